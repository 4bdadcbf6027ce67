// Rings of the simulated disk: writes under way that land and complete in an order of the seed's.
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <optional>
#include <vector>

#include "keel/base/check.h"
#include "support/sim_disk.h"

namespace keel {
namespace {

int next_first_descriptor() {
  static std::atomic<unsigned> disks{0};
  const unsigned disk = disks.fetch_add(1, std::memory_order_relaxed);  // a number, orders nothing
  return SimDisk::kFirstDescriptor +
         static_cast<int>(disk % SimDisk::kDisks) * SimDisk::kDescriptors;
}

}  // namespace

struct SimDisk::Ring : OsRing {
  struct Write {
    RingWrite asked;
    std::optional<SimIo> landed;
  };

  // Whether a write from a registered buffer lies in it.
  [[nodiscard]] bool can_read(const RingWrite& write) const {
    if (write.buffer < 0) {
      return true;
    }
    const auto index = static_cast<std::size_t>(write.buffer);
    if (write.count != 1 || index >= buffers.size()) {
      return false;
    }
    const auto* begin = static_cast<const std::byte*>(buffers[index].iov_base);
    const auto* at = static_cast<const std::byte*>(write.parts->iov_base);
    return at >= begin && at + write.parts->iov_len <= begin + buffers[index].iov_len;
  }

  int fd = -1;
  unsigned entries = 0;
  std::vector<struct iovec> buffers;
  std::vector<Write> under_way;
};

SimDisk::SimDisk(const SimDiskOptions& options)
    : options_(options), first_descriptor_(next_first_descriptor()), ring_dice_(options.seed) {}

SimDisk::~SimDisk() = default;

// Dice of the rings' own: random64() must not depend on them.
bool SimDisk::toss(std::uint64_t one_in) { return sim_random(ring_dice_) % one_in == 0; }

// Null for a ring of the kernel's.
SimDisk::Ring* SimDisk::ring_of(OsRing* ring) {
  MutexLock lock(mutex_);
  const auto entry = rings_.find(ring);
  return entry == rings_.end() ? nullptr : entry->second.get();
}

int SimDisk::create_ring(int fd, SimIo& io) {
  Descriptor descriptor;
  File* file = nullptr;
  if (const int bad = find(fd, io, descriptor, file); bad != 0) {
    return bad;
  }
  return fail_if_asked(io);
}

int SimDisk::ring_create(int fd, const struct iovec* buffers, int buffer_count, unsigned entries,
                         OsRing** out) {
  if (!is_virtual(fd)) {
    return Os::ring_create(fd, buffers, buffer_count, entries, out);
  }
  SimIo io{.op = SimOp::kRingCreate};
  {
    MutexLock lock(mutex_);
    record(io, create_ring(fd, io));
    if (io.result >= 0) {
      auto ring = std::make_unique<Ring>();
      ring->fd = fd;
      ring->entries = entries;
      if (options_.registers_buffers) {
        ring->buffers.assign(buffers, buffers + buffer_count);
        io.result = buffer_count;
      }
      *out = ring.get();
      rings_.emplace(ring.get(), std::move(ring));
    }
  }
  return static_cast<int>(announce(io));
}

int SimDisk::ring_submit(OsRing* ring, const RingWrite& write) {
  Ring* ours = ring_of(ring);
  if (ours == nullptr) {
    return Os::ring_submit(ring, write);
  }
  SimIo io{.op = SimOp::kRingSubmit, .offset = write.offset};
  bool lands_now = false;
  {
    MutexLock lock(mutex_);
    Descriptor descriptor;
    File* file = nullptr;
    (void)find(ours->fd, io, descriptor, file);  // a dead descriptor is the write's to report
    const bool full = ours->under_way.size() >= ours->entries;
    record(io, full ? -EBUSY : fail_if_asked(io));
    lands_now = toss(2) && ours->can_read(write);
  }
  if (io.result == 0) {
    Ring::Write started{write, {}};
    if (lands_now) {
      started.landed = write_call(ours->fd, write.parts, write.count, write.offset, 0);
    }
    ours->under_way.push_back(std::move(started));
  }
  return static_cast<int>(announce(io));
}

int SimDisk::ring_wait(OsRing* ring, bool block, RingDone* out) {
  Ring* ours = ring_of(ring);
  if (ours == nullptr) {
    return Os::ring_wait(ring, block, out);
  }
  std::size_t index = 0;
  {
    MutexLock lock(mutex_);
    SimIo io{.op = SimOp::kRingWait};
    if (const int failed = block ? fail_if_asked(io) : 0; failed != 0) {
      record(io, failed);
      return failed;
    }
    if (!block && (ours->under_way.empty() || toss(2))) {
      return 0;  // not complete yet
    }
    KEEL_CHECK(!ours->under_way.empty(), "a wait for no write at all never ends");
    index = sim_random(ring_dice_) % ours->under_way.size();
  }
  Ring::Write taken = std::move(ours->under_way[index]);
  ours->under_way.erase(ours->under_way.begin() + static_cast<std::ptrdiff_t>(index));
  const RingWrite& asked = taken.asked;
  if (!taken.landed && ours->can_read(asked)) {
    taken.landed = write_call(ours->fd, asked.parts, asked.count, asked.offset, 0);
  }
  *out = {asked.tag, taken.landed ? announce(*taken.landed) : -EFAULT};
  return 1;
}

void SimDisk::ring_destroy(OsRing* ring, bool inherited) {
  Ring* ours = ring_of(ring);
  if (ours == nullptr) {
    Os::ring_destroy(ring, inherited);
    return;
  }
  KEEL_CHECK(inherited || ours->under_way.empty(), "a ring goes with writes under way",
             ours->under_way.size());
  MutexLock lock(mutex_);
  rings_.erase(ring);
}

}  // namespace keel

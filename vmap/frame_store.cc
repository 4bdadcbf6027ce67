#include "keel/vmap/frame_store.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

#include "keel/base/check.h"

namespace keel {
namespace {

// Frame numbers fit 32 bits with room for a "none" value, and all frames as one free run FreeBins,
// both of which the page allocator relies on.
constexpr std::uint64_t kMaxFrames = (std::uint64_t{1} << 31) - 1;

constexpr std::size_t kHugeBytes = std::size_t{2} << 20;
constexpr Pages kHugePage{kHugeBytes / kPageBytes};
// Growths after one for which the kernel had no huge page. It looks for one by moving memory about,
// which is not worth while to do in vain again and again.
constexpr std::uint64_t kHugePause = 64;
constexpr std::uint64_t kNotAgain = UINT64_MAX;

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

bool is_valid(const FrameStoreConfig& config) {
  return config.chunk_bytes >= kPageBytes && is_power_of_two(config.chunk_bytes) &&
         config.capacity_bytes != 0 && config.capacity_bytes % config.chunk_bytes == 0 &&
         (config.capacity_bytes >> kPageShift) <= kMaxFrames;
}

// A limit of file size (RLIMIT_FSIZE) is of memory files too, and the kernel's word of it a signal
// that ends the program. Here the call's error is enough.
int truncate_untold(int fd, std::uint64_t bytes) {
  sigset_t told;
  sigset_t pending;
  sigset_t before;
  sigemptyset(&told);
  sigaddset(&told, SIGXFSZ);
  (void)::pthread_sigmask(SIG_BLOCK, &told, &before);
  (void)::sigpending(&pending);
  const int error = os().ftruncate(fd, bytes);
  if (error == -EFBIG && sigismember(&pending, SIGXFSZ) == 0) {
    constexpr struct timespec kNow {};
    (void)::sigtimedwait(&told, nullptr, &kNow);  // None comes where it is ignored.
  }
  (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error;
}

}  // namespace

FrameStore::FrameStore(const FrameStoreConfig& config)
    : config_(config),
      capacity_(pages_for(config.capacity_bytes)),
      chunk_(pages_for(config.chunk_bytes)),
      chunks_(config.capacity_bytes / config.chunk_bytes) {}

Result<std::unique_ptr<FrameStore>> FrameStore::create(const FrameStoreConfig& config) {
  if (!is_valid(config)) {
    return Error{Errc::kInvalidArgument, 0, "frame store of bytes", config.capacity_bytes};
  }
  std::unique_ptr<FrameStore> store(new (std::nothrow) FrameStore(config));
  if (store == nullptr) {
    return Error{Errc::kNoMemory, 0, "frame store"};
  }
  const Status opened = store->open();
  if (!opened) {
    return opened.error();
  }
  return store;
}

Status FrameStore::open() {
  if (auto armed = fork_guard_.arm(); !armed) {
    return armed;
  }
  is_populated_ = static_cast<bool*>(os().metadata_allocate(chunks_));
  if (is_populated_ == nullptr) {
    return Error{Errc::kNoMemory, 0, "chunk map of bytes", chunks_};
  }
  std::memset(is_populated_, 0, chunks_);
  fd_ = os().memfd_create("keel-frames", MFD_CLOEXEC);
  if (fd_ < 0) {
    return system_error(-fd_, "memfd_create");
  }
  const int error = truncate_untold(fd_, config_.capacity_bytes);
  if (error < 0) {
    return system_error(-error, "ftruncate of the frame store to bytes", config_.capacity_bytes);
  }
  return map_directly();
}

// Huge pages need the direct map at a multiple of their size.
Status FrameStore::reserve_directly() {
  const bool align = config_.huge_pages && config_.capacity_bytes >= kHugeBytes;
  reserved_bytes_ = config_.capacity_bytes + (align ? kHugeBytes : 0);
  const int error = os().mmap(nullptr, reserved_bytes_, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &reserved_);
  if (error < 0) {
    reserved_ = nullptr;
    return system_error(-error, "address space for the direct map, bytes", reserved_bytes_);
  }
  base_ = static_cast<std::byte*>(reserved_);
  const auto at = reinterpret_cast<std::uintptr_t>(reserved_);
  base_ += align ? round_up(at, kHugeBytes) - at : 0;
  return {};
}

Status FrameStore::map_directly() {
  const std::size_t bytes = config_.capacity_bytes;
  if (auto status = reserve_directly(); !status) {
    return status;
  }
  void* mapped = nullptr;
  int error = os().mmap(base_, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd_, 0, &mapped);
  if (error < 0) {
    return system_error(-error, "mmap of the direct map, bytes", bytes);
  }
  error = os().madvise(base_, bytes, MADV_DONTFORK);
  if (error == 0 && !config_.dump_memory) {
    error = os().madvise(base_, bytes, MADV_DONTDUMP);
  }
  if (error < 0) {
    return system_error(-error, "madvise of the direct map, bytes", bytes);
  }
  // Advice only: kernels without huge pages for shared memory refuse it, and 4 KiB pages serve.
  huge_advice_taken_ = config_.huge_pages && os().madvise(base_, bytes, MADV_HUGEPAGE) == 0;
  return {};
}

FrameStore::~FrameStore() {
  // Nothing can be done about a failure here, and neither call loses data.
  if (reserved_ != nullptr && owned_by_this_process()) {
    (void)os().munmap(reserved_, reserved_bytes_);
  }
  if (fd_ >= 0) {
    (void)os().close(fd_);
  }
  os().metadata_free(is_populated_);
}

Pages FrameStore::populated() const {
  MutexLock lock(lock_);
  return populated_;
}

bool FrameStore::contains(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  return at >= base_ && at < base_ + config_.capacity_bytes;
}

Pfn FrameStore::pfn_of(const void* address) const {
  KEEL_ASSERT(contains(address), "pfn_of an address outside the direct map",
              reinterpret_cast<std::uintptr_t>(address));
  const auto offset = static_cast<const std::byte*>(address) - base_;
  return Pfn(static_cast<std::uint64_t>(offset) >> kPageShift);
}

FrameRun FrameStore::chunk_at(std::uint64_t index) const {
  return {Pfn(index * chunk_.value()), chunk_};
}

Result<FrameRun> FrameStore::find_hole() const {
  for (Pfn at = beside_.first; at < beside_.end(); at += chunk_) {
    if (is_hole(at)) {
      return FrameRun{at, chunk_};
    }
  }
  if (lowest_hole_ < chunks_) {
    return chunk_at(lowest_hole_);
  }
  return Error{Errc::kNoMemory, 0, "frame store is at its capacity of pages", capacity_.value()};
}

Result<FrameRun> FrameStore::next_chunk() const {
  MutexLock lock(lock_);
  return find_hole();
}

Result<FrameRun> FrameStore::grow(GrowthPages pages) {
  if (!owned_by_this_process()) {
    return Error{Errc::kForked, 0, "growth of a parent's frame store", 0};
  }
  MutexLock lock(lock_);
  Result<FrameRun> hole = find_hole();
  if (!hole) {
    return hole;
  }
  const Status status = populate(*hole, pages);
  if (!status) {
    return status.error();
  }
  is_populated_[hole->first.value() / chunk_.value()] = true;
  while (lowest_hole_ < chunks_ && is_populated_[lowest_hole_]) {
    ++lowest_hole_;
  }
  populated_ += chunk_;
  return hole;
}

// Never an error: what is not there afterwards is populated in small pages.
void FrameStore::ask_for_huge_pages(FrameRun chunk) {
  const std::uint64_t huge = kHugePage.value();
  const std::uint64_t end = chunk.end().value();
  for (std::uint64_t first = round_down(chunk.first.value(), huge); first < end; first += huge) {
    bool hole = first + huge <= capacity_.value();
    for (std::uint64_t at = first; hole && at < first + huge; at += chunk_.value()) {
      hole = is_hole(Pfn(at));
    }
    if (!hole) {
      continue;
    }
    if (const int error = collapse(Pfn(first)); error < 0) {
      // EINVAL at the first: this kernel does not do it, or shmem_enabled is `deny`.
      huge_pause_ = error == -EINVAL && !huge_given_ ? kNotAgain : kHugePause;
      return;
    }
    huge_given_ = true;
    if (chunk_ < kHugePage) {
      beside_ = {Pfn(first), kHugePage};
    }
  }
}

// Its first page makes a page table for it, without which the kernel refuses.
int FrameStore::collapse(Pfn first) const {
  const int error = os().madvise(address_of(first), kPageBytes, MADV_POPULATE_WRITE);
  return error < 0 ? error : os().madvise(address_of(first), kHugeBytes, MADV_COLLAPSE);
}

bool FrameStore::is_hole(Pfn frame) const { return !is_populated_[frame.value() / chunk_.value()]; }

Status FrameStore::populate(FrameRun chunk, GrowthPages pages) {
  if (huge_pause_ != 0) {
    huge_pause_ -= huge_pause_ != kNotAgain ? 1 : 0;
  } else if (huge_advice_taken_ && pages == GrowthPages::kHuge) {
    ask_for_huge_pages(chunk);
  }
  const std::size_t bytes = bytes_of(chunk.count);
  const char* what = "populating a chunk of bytes";
  int error = os().madvise(address_of(chunk.first), bytes, MADV_POPULATE_WRITE);
  if (error == 0 && config_.lock_memory) {
    what = "mlock of a chunk of bytes";
    error = os().mlock(address_of(chunk.first), bytes);
  }
  if (error == 0) {
    return {};
  }
  // Part of the chunk may be there. If it cannot be given back either, the next growth finds it
  // and has less to do: it is nowhere counted as populated.
  (void)punch(chunk);
  huge_pause_ = std::max(huge_pause_, kHugePause);
  return system_error(-error, what, bytes);
}

int FrameStore::punch(FrameRun chunk) {
  if (!huge_given_) {
    return punch_run(chunk);
  }
  if (chunk.first < beside_.end() && beside_.first < chunk.end()) {
    beside_ = {};
  }
  const std::uint64_t huge = kHugePage.value();
  const Pfn from{round_down(chunk.first.value(), huge)};
  const Pfn to{std::min(round_up(chunk.end().value(), huge), capacity_.value())};
  int result = 0;
  for (Pfn at = from; at < to; at += chunk_) {
    if (at == chunk.first) {
      result = punch_run(chunk);
    } else if (is_hole(at)) {
      (void)punch_run({at, chunk_});  // Nowhere counted as there.
    } else {
      // The kernel has taken the huge page apart, and its entries out of the page table.
      (void)os().madvise(address_of(at), bytes_of(chunk_), MADV_POPULATE_WRITE);
    }
  }
  return result;
}

// fallocate and not MADV_REMOVE, which refuses locked mappings.
int FrameStore::punch_run(FrameRun run) const {
  return os().fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        bytes_of(run.first - Pfn(0)), bytes_of(run.count));
}

Status FrameStore::trim(FrameRun chunk) {
  if (!owned_by_this_process()) {
    return Error{Errc::kForked, 0, "trim of a parent's frame store", 0};
  }
  MutexLock lock(lock_);
  const std::uint64_t index = chunk.first.value() / chunk_.value();
  if (index >= chunks_ || chunk != chunk_at(index) || !is_populated_[index]) {
    return Error{Errc::kInvalidArgument, 0, "trim of what is no populated chunk, frame",
                 chunk.first.value()};
  }
  const int error = punch(chunk);
  if (error < 0) {
    return system_error(-error, "giving back the chunk at frame", chunk.first.value());
  }
  is_populated_[index] = false;
  lowest_hole_ = std::min(lowest_hole_, index);
  populated_ -= chunk_;
  return {};
}

void FrameStore::audit() const {
  MutexLock lock(lock_);
  Pages counted{};
  for (std::uint64_t i = 0; i < chunks_; ++i) {
    counted += is_populated_[i] ? chunk_ : Pages(0);
    KEEL_CHECK(i >= lowest_hole_ || is_populated_[i], "hole below the lowest", i, lowest_hole_);
  }
  KEEL_CHECK(lowest_hole_ == chunks_ || !is_populated_[lowest_hole_], "no hole at", lowest_hole_);
  KEEL_CHECK(counted == populated_, "populated pages, counted and kept", counted.value(),
             populated_.value());
}

}  // namespace keel

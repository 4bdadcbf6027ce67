// Damage of many bytes at a time, by number: bursts, scattered bytes, sectors and blocks that are
// swapped, doubled, misplaced, lost or of an earlier lap. And none at all: no false alarm.
//
// Which checkpoints are hit is found by comparing bytes. The first of them ends the log; that is
// damage if anything beside it that is whole vouches for it. If both copies of a superblock, or
// both state slots, are hit, the log is refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "keel/base/os.h"
#include "log/format.h"
#include "log_specimen.h"
#include "support/campaign.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = LogSpecimen::kBlock;
constexpr std::size_t kSector = 512;

class Damaged {
 public:
  explicit Damaged(const SpecimenPlan& plan)
      : specimen_(make_specimen(plan)), os_(specimen_.image) {
    SpecimenPlan earlier = plan;
    earlier.ending = LogEnding::kKilled;
    earlier.live_bytes = plan.live_bytes / 2;
    REQUIRE(plan.skip_bytes > specimen_.data_bytes());
    earlier.skip_bytes = 300'000;
    earlier_ = make_specimen(earlier).image;
    format::StateSlot state;
    std::memcpy(&state, specimen_.image.data() + kBlock, sizeof state);
    stable_ = state.stable_lsn;
  }

  std::string check(std::uint64_t seed) {
    std::uint64_t random = seed * 0x9e3779b97f4a7c15U + 1;
    // What is put somewhere may be what stands there: drawn again until something has changed.
    for (int draws = 0; !is_changed(); ++draws) {
      if (draws == 1000) {
        return "no damage";
      }
      damage(random);
    }
    std::string fault;
    {
      const ScopedOs scope(os_);
      fault = fault_of_damage(judge(os_, specimen_));
    }
    for (const auto& [offset, bytes] : touched_) {
      os_.put(offset, specimen_.image.data() + offset, bytes);
    }
    touched_.clear();
    return fault;
  }

 private:
  void put(std::size_t offset, const std::byte* from, std::size_t bytes) {
    os_.put(offset, from, bytes);
    touched_.emplace_back(offset, bytes);
  }

  // Mostly where something is.
  std::size_t place(std::uint64_t& random, std::size_t unit) {
    const std::uint64_t live = specimen_.starts.back() - specimen_.starts.front();
    const std::size_t units = specimen_.image.size() / unit;
    if (sim_random(random) % 8 == 0) {
      return sim_random(random) % units * unit;
    }
    return specimen_.offset_of(specimen_.starts.front() +
                               sim_random(random) % (live / unit) * unit);
  }

  void damage(std::uint64_t& random) {
    const std::uint64_t kind = sim_random(random) % 8;
    if (kind == 0) {  // a burst
      put_random(random, place(random, 1), 1 + sim_random(random) % (2 * kBlock));
    } else if (kind == 1) {  // here and there
      for (std::uint64_t i = 2 + sim_random(random) % 30; i > 0; --i) {
        put_random(random, place(random, 1), 1);
      }
    } else {
      const std::size_t unit = sim_random(random) % 2 == 0 ? kSector : kBlock;
      const std::size_t a = place(random, unit), b = place(random, unit);
      const SimContent first(os_.image().begin() + static_cast<std::ptrdiff_t>(a),
                             os_.image().begin() + static_cast<std::ptrdiff_t>(a + unit));
      const SimContent second(os_.image().begin() + static_cast<std::ptrdiff_t>(b),
                              os_.image().begin() + static_cast<std::ptrdiff_t>(b + unit));
      const SimContent zeros(unit);
      switch (kind) {
        case 2:  // swapped
          put(a, second.data(), unit);
          put(b, first.data(), unit);
          break;
        case 3: put(b, first.data(), unit); break;  // doubled, or written in the wrong place
        case 4: put(a, zeros.data(), unit); break;
        case 5: put_earlier(a, unit); break;
        case 6:  // several writes were lost
          for (std::uint64_t i = 1 + sim_random(random) % 8; i > 0; --i) {
            put_earlier(place(random, unit), unit);
          }
          break;
        default: lose_checkpoints(random); break;
      }
    }
  }

  [[nodiscard]] bool is_changed() const {
    return std::any_of(touched_.begin(), touched_.end(),
                       [&](const auto& put) { return changed(put.first, put.second); });
  }

  void put_random(std::uint64_t& random, std::size_t offset, std::size_t bytes) {
    bytes = std::min(bytes, specimen_.image.size() - offset);
    const std::string content = random_bytes(sim_random(random), bytes);
    put(offset, std::as_bytes(std::span(content)).data(), bytes);
  }

  // What the same log had there before. (Its superblock is the same; of its state slots both at a
  // time are another history, which nothing could tell from this one.)
  void put_earlier(std::size_t offset, std::size_t bytes) {
    if (offset >= 2 * kBlock && offset < specimen_.image.size() - 2 * kBlock) {
      put(offset, earlier_.data() + offset, bytes);
    }
  }

  void lose_checkpoints(std::uint64_t& random) {
    const std::size_t from = sim_random(random) % specimen_.checkpoints.size();
    const std::size_t to =
        from + 1 +
        sim_random(random) % std::min<std::size_t>(3, specimen_.checkpoints.size() - from);
    for (std::uint64_t lsn = specimen_.starts[from]; lsn < specimen_.starts[to]; lsn += kBlock) {
      put_earlier(specimen_.offset_of(lsn), kBlock);
    }
  }

  [[nodiscard]] bool changed(std::size_t offset, std::size_t bytes) const {
    return std::memcmp(os_.image().data() + offset, specimen_.image.data() + offset, bytes) != 0;
  }

  std::string fault_of_damage(const Judgement& judgement) const {
    const std::size_t all = specimen_.checkpoints.size(), end = specimen_.image.size();
    if ((changed(0, 80) && changed(end - kBlock, 80)) ||
        (changed(kBlock, 120) && changed(end - 2 * kBlock, 120))) {
      return judgement.ok ? "read without a superblock or a state" : judgement.fault;
    }
    std::size_t first = all;
    bool witness = false;  // one behind the first that is hit
    for (std::size_t i = 0; i < all; ++i) {
      bool hit = false;
      for (std::uint64_t lsn = specimen_.starts[i]; lsn < specimen_.starts[i + 1]; lsn += kBlock) {
        hit = hit || changed(specimen_.offset_of(lsn), kBlock);
      }
      first = hit ? std::min(first, i) : first;
      witness = witness || (first < i && !hit);
    }
    if (!judgement.fault.empty() || !judgement.ok) {
      return judgement.fault + judgement.error.message();
    }
    const bool is_damage = judgement.report.end == LogEnd::kDamaged;
    const std::string report = "; " + judgement.report.message();
    if (judgement.delivered != first || judgement.report.head.value() != specimen_.starts[first]) {
      return "not what is before the first that is hit, " + std::to_string(first) + report;
    }
    if (is_damage && first == all) {
      return "a false alarm" + report;
    }
    // A part of a checkpoint may vouch too: its first record, if the last one is hit.
    const bool must = first < all && (witness || specimen_.starts[first] < stable_);
    return must && !is_damage ? "damage is not reported" + report : "";
  }

  LogSpecimen specimen_;
  ImageOs os_;
  SimContent earlier_;
  std::uint64_t stable_ = 0;
  std::vector<std::pair<std::size_t, std::size_t>> touched_;
};

}  // namespace

TEST_CASE("damage of many bytes is never delivered, and reported where anything vouches") {
  Damaged logs[] = {
      Damaged({.ending = LogEnding::kClosed, .live_bytes = 200'000, .skip_bytes = 1'300'000}),
      Damaged({.ending = LogEnding::kKilled, .live_bytes = 200'000, .skip_bytes = 1'500'000}),
      Damaged({.ending = LogEnding::kKilled, .live_bytes = 250'000, .skip_bytes = 1'100'000}),
      Damaged({.ending = LogEnding::kCovered, .live_bytes = 120'000, .skip_bytes = 1'800'000}),
  };
  Campaign campaign("damage_many", 1'000'000, {8000, 600});
  campaign.run([&](std::uint64_t index) { return logs[index % 4].check(index); });
}

namespace {

constexpr const char* kCopyPath = "/sim/copy";

// A simulated disk on which the log stands at kCopyPath too: it can be read there while a journal
// has the log itself. `reading` keeps the copy as it is meanwhile.
class CopyingDisk : public SimDisk {
 public:
  explicit CopyingDisk(std::uint64_t seed) : SimDisk({.seed = seed}) {}

  std::mutex reading;

  void copy_all() { copy_.replace(image(kLogPath)); }

  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    const ssize_t result = SimDisk::pwritev2(fd, parts, count, offset, flags);
    const std::lock_guard lock(reading);
    for (int i = 0; i < count && result > 0; ++i) {
      copy_.put(offset, static_cast<const std::byte*>(parts[i].iov_base), parts[i].iov_len);
      offset += parts[i].iov_len;
    }
    return result;
  }
  int open(const char* path, int flags, mode_t mode) override {
    return std::strcmp(path, kCopyPath) == 0 ? copy_.open(ImageOs::kPath, flags, mode)
                                             : SimDisk::open(path, flags, mode);
  }
  int close(int fd) override { return is_copy(fd) ? copy_.close(fd) : SimDisk::close(fd); }
  int fstat(int fd, struct stat* out) override {
    return is_copy(fd) ? copy_.fstat(fd, out) : SimDisk::fstat(fd, out);
  }
  int statx(int fd, unsigned mask, struct statx* out) override {
    return is_copy(fd) ? copy_.statx(fd, mask, out) : SimDisk::statx(fd, mask, out);
  }
  int clear_nonblock(int fd) override { return is_copy(fd) ? 0 : SimDisk::clear_nonblock(fd); }
  int lock_shared(int fd) override {
    return is_copy(fd) ? copy_.lock_shared(fd) : SimDisk::lock_shared(fd);
  }
  int unlock(int fd) override { return is_copy(fd) ? copy_.unlock(fd) : SimDisk::unlock(fd); }
  int physical_sector_bytes(int fd) override {
    return is_copy(fd) ? copy_.physical_sector_bytes(fd) : SimDisk::physical_sector_bytes(fd);
  }
  int is_copy_on_write(int fd) override {
    return is_copy(fd) ? copy_.is_copy_on_write(fd) : SimDisk::is_copy_on_write(fd);
  }
  std::int64_t lseek(int fd, std::uint64_t offset, int whence) override {
    return is_copy(fd) ? copy_.lseek(fd, offset, whence) : SimDisk::lseek(fd, offset, whence);
  }
  ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                  int flags) override {
    return is_copy(fd) ? copy_.preadv2(fd, parts, count, offset, flags)
                       : SimDisk::preadv2(fd, parts, count, offset, flags);
  }

 private:
  static bool is_copy(int fd) { return fd == ImageOs::kDescriptor; }

  ImageOs copy_{SimContent(kMinLogBytes.value())};
};

// One life: commits of all sizes, forced, by a journal that is now and then closed or killed; after
// each the log is read. 64 readings a life.
class CleanLife {
 public:
  explicit CleanLife(std::uint64_t seed) : random_(seed), disk_(seed), scope_(disk_) {}

  std::string run() {
    if (!create_log(kLogPath, {.size = kMinLogBytes}).ok()) {
      return "create_log";
    }
    disk_.copy_all();
    open();
    for (unsigned reading = 0; reading < kReadings && fault_.empty(); ++reading) {
      step(reading);
    }
    if (journal_ != nullptr) {
      (void)journal_->close();
    }
    return fault_;
  }

  static constexpr unsigned kReadings = 64;

 private:
  void open() {
    auto journal = Journal::open(kLogPath, {.cover_after_ns = UINT64_MAX / 4}, kIgnore);
    if (!journal.ok()) {
      fault_ = "open: " + journal.error().message();
      return;
    }
    journal_ = std::move(*journal);
    journal_->release_recovered();
  }

  void step(unsigned reading) {
    const std::uint64_t draw = sim_random(random_);
    Probe item(trace_, static_cast<std::uint32_t>(draw % 40));
    item.after = Tracking::kRelease;
    const std::size_t bytes = draw % 5 == 0 ? draw / 64 % 100'000 : draw / 64 % 5000;
    item.regions = {random_bytes(draw, bytes), random_bytes(draw + 1, draw / 4096 % 300)};
    last_ = commit(*journal_, {&item}, bytes + 1000).value();
    if (!journal_->force_all().ok()) {
      fault_ = "force";
    }
    if (reading % 16 == 15) {
      if (draw % 2 == 0) {
        disk_.crash(draw, {});  // the journal's descriptor is dead
      } else if (!journal_->close().ok()) {
        fault_ = "close";
      }
      journal_.reset();
      disk_.copy_all();
      read();
      open();
    } else {
      read();
    }
  }

  // The newest forced checkpoint must be the last one, and there must be no alarm.
  void read() {
    const std::lock_guard lock(disk_.reading);
    const auto report = scan_log(kCopyPath, kIgnore);
    if (!report.ok()) {
      fault_ = "refused: " + report.error().message();
    } else if (report->end != LogEnd::kClean || report->last_sequence.value() != last_) {
      fault_ = "a false alarm: " + report->message();
    }
  }

  std::uint64_t random_;
  Trace trace_;
  CopyingDisk disk_;
  ScopedOs scope_;
  std::unique_ptr<Journal> journal_;
  std::uint64_t last_ = 0;
  std::string fault_;
};

}  // namespace

TEST_CASE("a log that nothing has happened to is clean whenever it is read") {
  Campaign campaign("clean_opens_x64", 1'000'000 / CleanLife::kReadings + 1, {12, 2});
  campaign.run([&](std::uint64_t seed) { return CleanLife(seed + 1).run(); });
}

// Power cuts and disk faults through faultfs.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "campaigns.h"
#include "fault_fs.h"
#include "keel/base/check.h"
#include "keel/cil/log_file.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::Cut;
using faultfs::random_step;

constexpr std::uint64_t kSmallLog = kMinLogBytes.value();
constexpr std::uint64_t kLargeLog = std::uint64_t{16} << 20U;

// A place for lives, used again by every seed of a campaign.
class Lab {
 public:
  Lab() : scratch_(std::filesystem::exists("/dev/shm") ? "/dev/shm" : "") {
    disk_ = FaultFs::start(scratch_, why_);
    ledger_ = std::make_unique<LedgerFile>(scratch_ / "ledger");
  }
  [[nodiscard]] FaultFs* disk() { return disk_.get(); }
  [[nodiscard]] LedgerFile& ledger() { return *ledger_; }
  [[nodiscard]] const std::string& why() const { return why_; }
  [[nodiscard]] std::string path(const char* name) const { return scratch_ / name; }

  // An empty log; false if it could not be made.
  bool make_log(std::uint64_t bytes) {
    disk_->clear();
    (void)disk_->tell("snapshots 0 0");
    std::filesystem::remove(*disk_ / "log");
    ledger_->begin_life(0, {}, {});
    return create_log(*disk_ / "log", {.size = Bytes(bytes)}).ok();
  }
  WriterPlan plan(std::uint64_t seed, bool large) {
    std::uint64_t random = seed;
    WriterPlan plan;
    plan.log = *disk_ / "log";
    plan.ledger = ledger_->path();
    plan.seed = seed;
    plan.threads = 1 + static_cast<std::uint32_t>(random_step(random) % 4);
    plan.transactions = (large ? 60 : 240) / plan.threads;
    plan.depth = static_cast<std::uint32_t>(random_step(random) % 5);
    plan.uring = random_step(random) % 2 == 0;
    plan.force = 1 + static_cast<std::uint32_t>(random_step(random) % 6);
    plan.large = large;
    return plan;
  }

 private:
  Scratch scratch_;
  std::string why_;
  std::unique_ptr<LedgerFile> ledger_;
  std::unique_ptr<FaultFs> disk_;
};

constexpr std::uint64_t kMoments = 32;
constexpr std::uint64_t kCutsOfMoment = 24;

// A file in memory that becomes what cuts leave of one moment, one after the other: only what was
// pending differs.
class ImageFile {
 public:
  ImageFile(std::string path, const faultfs::FileMoment& moment)
      : path_(std::move(path)), moment_(moment), bytes_(moment.durable.size()) {
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    KEEL_CHECK(fd >= 0 && ::ftruncate(fd, static_cast<off_t>(bytes_)) == 0, "an image");
    void* place = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    KEEL_CHECK(place != MAP_FAILED, "map an image");
    (void)::close(fd);
    image_ = static_cast<char*>(place);
    std::memcpy(image_, moment_.durable.data(), bytes_);
  }
  ~ImageFile() { (void)::munmap(image_, bytes_); }
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;

  void make(Cut cut, std::uint64_t seed) {
    for (const faultfs::PendingWrite& write : moment_.pending) {
      const std::uint64_t end = std::min<std::uint64_t>(bytes_, write.offset + write.bytes->size());
      std::memcpy(image_ + write.offset, moment_.durable.data() + write.offset, end - write.offset);
    }
    faultfs::apply_cut(image_, bytes_, moment_.pending, cut, seed);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  const std::string path_;
  const faultfs::FileMoment& moment_;
  const std::uint64_t bytes_;
  char* image_ = nullptr;
};

// All moments of the life that has just ended, cut in ways of all kinds.
void cut_all(Lab& lab, Tally& tally, std::uint64_t seed, std::uint64_t moments,
             std::uint64_t& random) {
  for (std::uint64_t i = 0; i < moments; ++i) {
    const PromisesCopy promises = lab.disk()->promises(i);
    const faultfs::FileMoment moment = lab.disk()->moment(i, lab.path("moment"));
    ImageFile image(lab.path("image"), moment);
    for (std::uint64_t k = 0; k < kCutsOfMoment; ++k) {
      // None and all once: they have no seed.
      const auto cut = static_cast<Cut>(k < faultfs::kCuts ? k : 2 + k % (faultfs::kCuts - 2));
      const std::uint64_t cut_seed = random_step(random);
      Verdict verdict;
      if (random_step(random) % 32 == 0) {
        // Recovered by a journal, and through the file system that lost the power.
        lab.disk()->make_image("image", i, cut, cut_seed);
        verdict = judge(*lab.disk() / "image", *lab.ledger(), promises, Reading::kOpen);
      } else if (!moment.pending.empty() || k == 0) {
        image.make(cut, cut_seed);
        verdict = judge(image.path(), *lab.ledger(), promises);
      } else {
        continue;  // nothing was pending: all cuts are one
      }
      tally.promised += promises.forced != 0 ? 1 : 0;
      tally.count(verdict, replay_of("fuse", seed));
      if (!verdict.ok()) {
        tally.failures.back() += " (moment " + std::to_string(i) + ", cut " + name_of(cut) + " " +
                                 std::to_string(cut_seed) + ")";
        return;
      }
    }
  }
}

void lives_of(Lab& lab, Tally& tally, std::uint64_t seed) {
  std::uint64_t random = seed * 1000003;
  const bool large = seed % 8 == 7;
  if (!lab.make_log(large ? kLargeLog : kSmallLog)) {
    tally.fail("the log could not be made", replay_of("fuse", seed));
    return;
  }
  for (int depth = 0; depth < 3 && tally.ok(); ++depth) {
    lab.disk()->take_snapshots(lab.ledger(), large ? kMoments / 4 : kMoments, random_step(random));
    // The last moment is a real cut: from then on the writer meets EIO.
    lab.disk()->rule("change " + std::to_string(10 + random_step(random) % 120) +
                     " 999999999 off 0");
    Helper writer(lab.plan(random_step(random), large).words());
    const int code = writer.wait();
    ++tally.lives;
    tally.failed_writers += code == kWriterFailed || code == kWriterNotOpened ? 1 : 0;
    if (code != kWriterDone && code != kWriterFailed && code != kWriterNotOpened) {
      tally.fail("the writer ended with " + std::to_string(code), replay_of("fuse", seed));
      return;
    }
    const std::uint64_t moments = lab.disk()->snapshots();
    cut_all(lab, tally, seed, moments, random);
    if (!tally.ok() || moments == 0) {
      return;
    }
    // The next life begins at one of them.
    const std::uint64_t chosen = random_step(random) % moments;
    const auto cut = static_cast<Cut>(random_step(random) % faultfs::kCuts);
    const PromisesCopy promises = lab.disk()->promises(chosen);
    lab.disk()->make_image("log", chosen, cut, random_step(random));
    lab.disk()->clear();
    const Verdict verdict = judge(*lab.disk() / "log", *lab.ledger(), promises);
    tally.count(verdict, replay_of("fuse", seed));
    lab.ledger().begin_life(
        std::max(verdict.report.last_sequence.value(), lab.ledger()->base_sequence), verdict.now,
        promises.home);
  }
}

struct FaultCase {
  const char* rule;  // after op, first and last
  const char* op;
  bool once;
  bool lies;     // the disk does not say that it fails
  bool failure;  // the writer must meet it
};

constexpr FaultCase kFaultCases[] = {
    {"eio 0", "write", true, false, true},       {"eio 0", "write", false, false, true},
    {"eio 0", "fsync", true, false, true},       {"eiodrop 0", "fsync", true, false, true},
    {"eiodrop 0", "fsync", false, false, true},  {"enospc 0", "write", true, false, true},
    {"enospc 0", "fsync", true, false, true},    {"eio 0", "change", true, false, true},
    {"short 4096", "write", true, false, false}, {"short 4096", "write", false, false, false},
    {"short 512", "write", true, false, false},  {"short 0", "write", true, false, false},
    {"lie 0", "fsync", false, true, false},      {"lie 0", "change", false, true, false},
    {"lose 0", "write", true, true, false},      {"misplace 8192", "write", true, true, false},
    {"delay 3", "change", true, false, false},
};
constexpr std::uint64_t kFaultKinds = std::size(kFaultCases);

void fault_of(Lab& lab, Tally& tally, std::uint64_t seed) {
  const FaultCase& fault = kFaultCases[seed % kFaultKinds];
  // Steps so that a few seeds already reach beyond the writes of opening.
  const std::uint64_t k = 1 + seed / kFaultKinds * 5 % 97;
  std::uint64_t random = seed * 7919;
  const std::string replay = replay_of("faults", seed);
  if (!lab.make_log(kSmallLog)) {
    tally.fail("the log could not be made", replay);
    return;
  }
  lab.disk()->clear();
  const std::string last = fault.once ? std::to_string(k) : "999999999";
  lab.disk()->rule(std::string(fault.op) + " " + std::to_string(k) + " " + last + " " + fault.rule);
  WriterPlan plan = lab.plan(random_step(random), seed / kFaultKinds % 5 == 4);
  plan.large = false;
  plan.transactions = 160 / plan.threads;
  Helper writer(plan.words());
  const int code = writer.wait();
  ++tally.lives;
  const bool met = lab.disk()->counts().faults > 0;
  const bool refused = code == kWriterFailed || code == kWriterNotOpened;
  tally.failed_writers += refused ? 1 : 0;
  const std::string what = std::string(fault.op) + " " + fault.rule + " at " + std::to_string(k);
  if (code != kWriterDone && !refused) {
    tally.fail("the writer ended with " + std::to_string(code) + ": " + what, replay);
    return;
  }
  if (met && fault.failure && !refused) {
    tally.fail("nobody was told of " + what, replay);
    return;
  }
  if (!met && refused) {
    tally.fail("a failure without a fault: " + what, replay);
    return;
  }
  lab.disk()->cut(static_cast<Cut>(random_step(random) % faultfs::kCuts), random_step(random));
  const PromisesCopy promises = lab.ledger().promises();
  tally.promised += promises.forced != 0 ? 1 : 0;
  tally.count(judge(*lab.disk() / "log", *lab.ledger(), promises, Reading::kScan, fault.lies),
              replay);
  if (!tally.ok()) {
    tally.failures.back() += " (" + what + ")";
    return;
  }
  // Bits that flip on the way from the disk: never a wrong value.
  if (seed % 4 == 0 && !fault.lies) {
    lab.disk()->rule("read " + std::to_string(1 + random_step(random) % 3) + " 9 flip " +
                     std::to_string(random_step(random) >> 8U));
    Verdict verdict = judge(*lab.disk() / "log", *lab.ledger(), promises, Reading::kScan, true);
    if (verdict.fault == Fault::kRefused) {
      verdict.fault = Fault::kNone;  // said so: that is what is promised
    }
    tally.count(verdict, replay);
    lab.disk()->clear();
  }
}

}  // namespace

Tally run_fuse(std::uint64_t first, std::uint64_t count) {
  Tally tally("fuse");
  Lab lab;
  if (lab.disk() == nullptr) {
    tally.skipped = lab.why();
    return tally;
  }
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    lives_of(lab, tally, seed);
  }
  return tally;
}

Tally run_faults(std::uint64_t first, std::uint64_t count) {
  Tally tally("faults");
  Lab lab;
  if (lab.disk() == nullptr) {
    tally.skipped = lab.why();
    return tally;
  }
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    fault_of(lab, tally, seed);
  }
  return tally;
}

}  // namespace keel_test

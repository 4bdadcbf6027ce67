// Hangs: a file system that does not answer, is stopped or frozen, a throttled device. The journal
// runs in this process. Its watchdog must say what it waits for, and once the hang is over all goes
// on. Nothing here fails on a time: a report that does not come is a test that hangs.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "campaigns.h"
#include "disk_lab.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;
using What = StallReport::What;
using WaitsFor = StallReport::WaitsFor;

constexpr std::uint64_t kDeadlineNs = 20'000'000;

class Stalls {
 public:
  void add(const StallReport& report) {
    const std::lock_guard<std::mutex> lock(mutex_);
    reports_.push_back(report);
    changed_.notify_all();
  }
  // The report of a force of this sequence, which must come.
  StallReport wait_for(Sequence sequence) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      for (const StallReport& report : reports_) {
        if (report.what == What::kForce && report.sequence == sequence) {
          return report;
        }
      }
      changed_.wait(lock);
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StallReport> reports_;
};

// A journal whose every commit is one object.
class Session {
 public:
  Session(const std::string& path, bool uring, Tally& tally, const std::string& replay)
      : object_(1), tally_(tally), replay_(replay) {
    JournalConfig config;
    config.io_mode = uring ? IoMode::kUring : IoMode::kSync;
    config.stall_after_ns = kDeadlineNs;
    config.cover_after_ns = std::uint64_t{3600} * 1'000'000'000;  // no writes of its own
    config.on_stall = [this](const StallReport& report) { stalls_.add(report); };
    auto opened =
        Journal::open(path, config, [](const RecoveredCheckpoint&) -> Status { return {}; });
    if (!opened) {
      tally.fail("open: " + opened.error().message(), replay);
      return;
    }
    journal_ = std::move(*opened);
    // So that nothing hangs at LSN 0, which a report could not tell from none.
    object_.set("x", 1);
    auto transaction = journal_->begin(ObjectItem::log_bytes(1), 1);
    if (!transaction || !transaction->log(object_).ok() || !transaction->commit().ok() ||
        !journal_->force_all().ok()) {
      tally.fail("the first commit", replay);
      journal_.reset();
    }
  }
  ~Session() {
    if (journal_ != nullptr) {
      (void)journal_->close();
    }
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  [[nodiscard]] bool ready() const { return journal_ != nullptr; }

  // Commits, forces on another thread, waits for the report; `end` ends the hang.
  template <class Begin, class End>
  void stall(const Begin& begin, const End& end) {
    const std::string bytes(1 + tally_.tried % 9000, 'h');
    object_.set(bytes.data(), bytes.size());
    auto transaction = journal_->begin(ObjectItem::log_bytes(bytes.size()), 1);
    if (!transaction || !transaction->log(object_).ok()) {
      tally_.fail("begin", replay_);
      return;
    }
    const auto sequence = transaction->commit();
    if (!sequence) {
      tally_.fail("commit: " + sequence.error().message(), replay_);
      return;
    }
    begin();
    Status forced;
    std::thread waiter([&] { forced = journal_->force(*sequence); });
    const StallReport report = stalls_.wait_for(*sequence);
    end();
    waiter.join();
    ++tally_.tried;
    late_ += report.waited_ns > 2 * kDeadlineNs ? 1 : 0;
    tally_.promised += 1;
    if (!forced) {
      tally_.fail("force after the hang: " + forced.error().message(), replay_);
    } else if (report.waits_for != WaitsFor::kWrite || report.lsn == Lsn{} ||
               report.waited_ns < kDeadlineNs || journal_->stable_sequence() < *sequence) {
      tally_.fail(std::string("the report says: ") + report.line, replay_);
    }
  }
  [[nodiscard]] std::uint64_t late() const { return late_; }

 private:
  Stalls stalls_;
  ObjectItem object_;
  std::unique_ptr<Journal> journal_;
  Tally& tally_;
  std::string replay_;
  std::uint64_t late_ = 0;
};

// Over a limit of bytes a second that a block device gives this process.
void throttle(DiskLab& lab, Tally& tally, std::uint64_t seed, std::string& note) {
  std::string why;
  const auto group = ControlGroup::make("blkio", why);
  struct stat st {};
  if (group == nullptr || ::stat(lab.loop().path().c_str(), &st) != 0) {
    note = why;
    return;
  }
  const std::string device =
      std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev));
  const auto set = [&](const char* bytes) {
    return group->version2()
               ? group->write("io.max", device + " wbps=" + (bytes[0] == '0' ? "max" : bytes))
               : group->write("blkio.throttle.write_bps_device", device + " " + bytes);
  };
  if (!set("0")) {
    note = "no throttling of a loop device";
    return;
  }
  Session session(lab.log(), seed % 4 == 1, tally, replay_of("hangs", seed));
  // All threads of this process; it leaves when the group is gone.
  const std::string self = std::to_string(::getpid());
  if (!session.ready() || !group->write("cgroup.procs", self)) {
    note = "cannot enter a control group";
    return;
  }
  // A few bytes a second: the write waits until the limit is lifted.
  session.stall([&] { (void)set("1"); }, [&] { (void)set("0"); });
  (void)ControlGroup::leave("blkio", self);
}

void hang_faultfs(FaultFs& disk, Tally& tally, std::uint64_t first, std::uint64_t count,
                  std::uint64_t& late) {
  for (const bool uring : {false, true}) {
    Session session(disk / "log", uring, tally, replay_of("hangs", first));
    if (!session.ready()) {
      return;
    }
    for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
      if ((seed / 2) % 2 != (uring ? 1U : 0U)) {
        continue;
      }
      if (seed % 8 == 0) {
        session.stall([&] { disk.stop(); }, [&] { disk.resume(); });
      } else {
        session.stall(
            [&] {
              disk.clear();
              disk.rule("change 1 999999999 hang 0");
            },
            [&] { disk.release(); });
      }
    }
    late += session.late();
  }
}

}  // namespace

Tally run_hangs(std::uint64_t first, std::uint64_t count) {
  Tally tally("hangs");
  std::uint64_t late = 0;
  {
    const Scratch scratch;
    std::string why;
    const auto disk = FaultFs::start(scratch, why);
    if (disk == nullptr) {
      tally.skipped = why;
    } else if (!create_log(*disk / "log", {.size = kMinLogBytes}).ok()) {
      tally.fail("the log could not be made", replay_of("hangs", first));
    } else {
      hang_faultfs(*disk, tally, first, count, late);
    }
  }
  for (const char* type : {"ext4", "xfs"}) {
    DiskLab lab(type, DiskLab::Under::kFile);
    if (!tally.ok() || !lab.ready() || !lab.make_log(kMinLogBytes.value())) {
      continue;
    }
    const std::uint64_t seed = first;
    {
      Session session(lab.log(), first % 2 == 0, tally, replay_of("hangs", seed));
      for (std::uint64_t i = 0; i < 1 + count / 20 && session.ready() && tally.ok(); ++i) {
        session.stall([&] { (void)lab.mounted().freeze(); }, [&] { (void)lab.mounted().thaw(); });
      }
      late += session.late();
    }
    std::string note;
    if (tally.ok()) {
      throttle(lab, tally, seed, note);
    }
    tally.note += note.empty() ? "" : " throttle on " + std::string(type) + ": " + note;
  }
  tally.note += " reported_late=" + std::to_string(late);
  if (tally.tried > 0) {
    tally.skipped.clear();
  }
  return tally;
}

}  // namespace keel_test

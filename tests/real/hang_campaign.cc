// Hangs: a file system that does not answer a write or a flush, is stopped or frozen, a throttled
// device; under a force, a close, and the destruction of a journal that was not closed. The journal
// runs in this process. Its watchdog must say what it waits for, and once the hang is over all goes
// on, and what was committed is in the log. A report that does not come is a test that hangs.
//
// A report that comes later than twice the deadline is a failure. The watchdog looks four times in
// a deadline, so that it has three quarters of one to spare; what it can do nothing about is a
// machine that gives it no processor. With a deadline of 20 ms, one report in ten was late on two
// processors with twenty threads that wanted one, by up to 55 ms, and each time a thread that did
// nothing but sleep for as long as the watchdog does overslept too, by 9 to 43 ms. Hence both: a
// deadline of 200 ms, three quarters of which are more than that; and such a thread, whose longest
// oversleeping meanwhile is allowed beyond. How late a report is, our own clock says, from before
// the call that hangs, and the report: the larger of both.
//
// A caller who gets no processor for a deadline before the device is asked for anything is reported
// with what it was about then. Of such a hang nothing is judged but how it ends; there is another.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "campaigns.h"
#include "control_group.h"
#include "disk_lab.h"
#include "keel/cil/journal.h"
#include "keel/cil/log_file.h"
#include "keel/cil/object_item.h"
#include "keel/cil/recovery.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;
using What = StallReport::What;
using WaitsFor = StallReport::WaitsFor;

constexpr std::uint64_t kDeadlineNs = 200'000'000;
constexpr std::uint64_t kPauseNs = kDeadlineNs / 4;  // as the watchdog's

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// What a thread that is to sleep for a pause oversleeps, which is what the machine makes it wait
// for a processor. One that sleeps right now counts too.
class Sleeper {
 public:
  Sleeper() : thread_([this] { run(); }) {}
  ~Sleeper() {
    stop_ = true;
    thread_.join();
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;

  void begin() { longest_ns_ = 0; }
  [[nodiscard]] std::uint64_t overslept_ns() const {
    return std::max(longest_ns_.load(), over(since_ns_));
  }

 private:
  static std::uint64_t over(std::uint64_t since_ns) {
    const std::uint64_t slept = now_ns() - since_ns;
    return slept > kPauseNs ? slept - kPauseNs : 0;
  }
  void run() {
    while (!stop_) {
      since_ns_ = now_ns();
      std::this_thread::sleep_for(std::chrono::nanoseconds(kPauseNs));
      longest_ns_ = std::max(longest_ns_.load(), over(since_ns_));
    }
  }

  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> since_ns_{now_ns()};
  std::atomic<std::uint64_t> longest_ns_{0};
  std::thread thread_;
};

// What a campaign has: its tally, and how late its reports were.
struct Watched {
  Tally& tally;
  Sleeper sleeper{};
  std::uint64_t starved = 0;  // late, or of something else, by the machine's doing
  // Reports of something else than the write, although nothing shows that the machine is to blame:
  // how many, and what the latest said.
  std::uint64_t astray = 0;
  std::string says{};
  std::uint64_t latest_ns = 0;
};

struct Told {
  StallReport report{};
  std::uint64_t at_ns = 0;
};

class Stalls {
 public:
  void add(const StallReport& report) {
    const std::uint64_t at_ns = now_ns();
    const std::lock_guard<std::mutex> lock(mutex_);
    told_.push_back({report, at_ns});
    changed_.notify_all();
  }
  // The report of a force of this sequence, or of a close, which must come.
  Told wait_for(What what, Sequence sequence) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      for (const Told& told : told_) {
        if (told.report.what == what &&
            (what == What::kClose || told.report.sequence == sequence)) {
          return told;
        }
      }
      changed_.wait(lock);
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Told> told_;
};

// Who waits while the device hangs.
enum class Call : std::uint8_t { kForce, kClose, kDestroy, kCloseIdle };
constexpr std::array<const char*, 4> kCallNames = {"force", "close", "destruction",
                                                   "close of what was forced"};

// What became of a hang: judged; there was none to be had; or nothing can be said of its report.
enum class Hung : std::uint8_t { kJudged, kNone, kStarved };

// A journal whose every commit is one object.
class Session {
 public:
  Session(const std::string& path, bool uring, Watched& watched, const std::string& replay)
      : path_(path), object_(1), watched_(watched), tally_(watched.tally), replay_(replay) {
    JournalConfig config;
    config.io_mode = uring && why_no_uring().empty() ? IoMode::kUring : IoMode::kSync;
    config.stall_after_ns = kDeadlineNs;
    config.cover_after_ns = std::uint64_t{3600} * 1'000'000'000;  // no writes of its own
    config.on_stall = [this](const StallReport& report) { stalls_.add(report); };
    auto opened =
        Journal::open(path, config, [](const RecoveredCheckpoint&) -> Status { return {}; });
    if (!opened) {
      tally_.fail("open: " + opened.error().message(), replay);
      return;
    }
    journal_ = std::move(*opened);
    // So that nothing hangs at LSN 0, which a report could not tell from none.
    object_.set("x", 1);
    auto transaction = journal_->begin(ObjectItem::log_bytes(1), 1);
    if (!transaction || !transaction->log(object_).ok() || !transaction->commit().ok() ||
        !journal_->force_all().ok()) {
      tally_.fail("the first commit", replay);
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

  // Commits an object of so many bytes, makes the call on another thread, waits for the report;
  // `end` ends the hang. kNone if `begin` says that there is none to be had. After another call
  // than kForce the journal is gone.
  template <class Begin, class End>
  Hung stall(Call call, std::size_t size_bytes, const Begin& begin, const End& end) {
    const std::string bytes(size_bytes, 'h');
    object_.set(bytes.data(), bytes.size());
    auto transaction = journal_->begin(ObjectItem::log_bytes(bytes.size()), 1);
    if (!transaction || !transaction->log(object_).ok()) {
      tally_.fail("begin", replay_);
      return Hung::kJudged;
    }
    const auto sequence = transaction->commit();
    if (!sequence) {
      tally_.fail("commit: " + sequence.error().message(), replay_);
      return Hung::kJudged;
    }
    // What close() forces is reported as a force; here it only records the log's end.
    const bool idle = call == Call::kCloseIdle;
    if (idle && !journal_->force(*sequence).ok()) {
      tally_.fail("force", replay_);
      return Hung::kJudged;
    }
    if (!begin()) {
      return Hung::kNone;
    }
    watched_.sleeper.begin();
    Status forced;
    std::atomic<std::uint64_t> since_ns{0};
    std::thread waiter([&] {
      since_ns = now_ns();
      switch (call) {
        case Call::kForce: forced = journal_->force(*sequence); break;
        case Call::kClose:
        case Call::kCloseIdle: forced = journal_->close(); break;
        case Call::kDestroy: journal_.reset(); break;
      }
    });
    const Told told = stalls_.wait_for(idle ? What::kClose : What::kForce, *sequence);
    const std::uint64_t overslept_ns = watched_.sleeper.overslept_ns();
    end();
    waiter.join();
    if (call == Call::kClose || idle) {
      journal_.reset();
    }
    const std::string name = kCallNames[static_cast<std::size_t>(call)];
    if (!forced) {
      tally_.fail(name + " after the hang: " + forced.error().message(), replay_);
    } else if (call == Call::kForce ? journal_->stable_sequence() < *sequence
                                    : !ends_with(*sequence, size_bytes)) {
      tally_.fail(name + " after the hang: what was committed is not in the log", replay_);
    } else {
      return judge_report(told, told.at_ns - since_ns, overslept_ns, call);
    }
    return Hung::kJudged;
  }

 private:
  Hung judge_report(const Told& told, std::uint64_t waited_ns, std::uint64_t overslept_ns,
                    Call call) {
    const StallReport& report = told.report;
    const std::string says = std::string(kCallNames[static_cast<std::size_t>(call)]) +
                             ": the report says: " + line_of(report);
    if (report.waited_ns < kDeadlineNs) {
      tally_.fail(says, replay_);
    } else if (report.waits_for != WaitsFor::kWrite ||
               (call != Call::kCloseIdle && report.lsn == Lsn{})) {
      // Who waits may have had no CPU before the write, while the sleeper had the other one.
      ++watched_.starved;
      if (overslept_ns <= kPauseNs) {
        ++watched_.astray;
        watched_.says = says;
      }
      return Hung::kStarved;
    }
    ++tally_.tried;
    ++tally_.promised;
    waited_ns = std::max(waited_ns, report.waited_ns);
    watched_.latest_ns = std::max(watched_.latest_ns, waited_ns);
    const bool late = waited_ns > 2 * kDeadlineNs;
    watched_.starved += late ? 1 : 0;
    if (late && clocks_are_judged() && waited_ns > 2 * kDeadlineNs + overslept_ns) {
      tally_.fail("reported after " + std::to_string(waited_ns / 1'000'000) + " ms", replay_);
    }
    return Hung::kJudged;
  }

  // A report's own line is valid in the callback only.
  static std::string line_of(const StallReport& report) {
    char line[512];
    return {line, describe(report, line, sizeof line)};
  }
  // The log that was closed, by close() or by the destructor.
  [[nodiscard]] bool ends_with(Sequence sequence, std::size_t size_bytes) const {
    std::size_t found = 0;
    const auto report = scan_log(path_, [&](const RecoveredCheckpoint& checkpoint) -> Status {
      for (const RecoveredItem& item : checkpoint.items) {
        const auto object = RecoveredObject::from(item);
        found = object ? object->size_bytes : 0;
      }
      return {};
    });
    return report && report->end == LogEnd::kClean && report->last_sequence == sequence &&
           found == size_bytes;
  }

  const std::string path_;
  Stalls stalls_;
  ObjectItem object_;
  std::unique_ptr<Journal> journal_;
  Watched& watched_;
  Tally& tally_;
  std::string replay_;
};

// Of a hang that can be tried again.
template <class Try>
Hung until_judged(const Try& one) {
  constexpr int kMostTries = 20;
  Hung hung = one();
  for (int i = 1; i < kMostTries && hung == Hung::kStarved; ++i) {
    hung = one();
  }
  return hung;
}

// Over a limit of bytes a second that a block device gives this process.
void throttle(DiskLab& lab, Watched& watched, std::uint64_t seed, const std::string& what) {
  std::string why;
  const auto group = ControlGroup::make(ControlGroup::Of::kBlockIo, why);
  struct stat st {};
  if (group == nullptr) {
    watched.tally.miss(what, why);
    return;
  }
  if (::stat(lab.loop().path().c_str(), &st) != 0) {
    watched.tally.miss(what, "no loop device");
    return;
  }
  const std::string device =
      std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev));
  if (!group->limit_writes(device, 0)) {
    watched.tally.miss(what, "a loop device cannot be");
    return;
  }
  Session session(lab.log(), seed % 4 == 1, watched, replay_of("hangs", seed));
  if (!session.ready()) {
    return;
  }
  if (!group->enter()) {
    watched.tally.miss(what, "cannot enter a control group");
    return;
  }
  // A byte a second: the write waits until the limit is lifted.
  const Hung hung = until_judged([&] {
    return session.stall(
        Call::kForce, 1 + seed % 9000, [&] { return group->limit_writes(device, 1); },
        [&] { (void)group->limit_writes(device, 0); });
  });
  watched.tally.unmet += hung == Hung::kStarved ? 1U : 0U;
  if (hung == Hung::kNone) {
    watched.tally.miss(what, "a loop device cannot be");
  }
  group->leave();
}

// What hangs on faultfs, and who waits for it; both in turn with each kind of I/O.
enum class Hang : std::uint8_t { kChange, kFlush, kDaemon };
struct HangCase {
  Hang hang;
  Call call;
};
constexpr HangCase kHangCases[] = {
    {Hang::kDaemon, Call::kForce},     {Hang::kChange, Call::kForce},
    {Hang::kFlush, Call::kForce},      {Hang::kChange, Call::kClose},
    {Hang::kFlush, Call::kClose},      {Hang::kChange, Call::kDestroy},
    {Hang::kChange, Call::kCloseIdle}, {Hang::kDaemon, Call::kClose},
};
constexpr std::uint64_t kHangKinds = std::size(kHangCases);
// More than one batch, so that the flush is a call of its own.
constexpr std::size_t kFlushedBytes = std::size_t{600} << 10U;
constexpr std::uint64_t kHangLogBytes = std::uint64_t{16} << 20U;

// Counts by the case's number.
using HangCounts = std::array<std::uint64_t, kHangKinds>;

Hung hang_once(FaultFs& disk, Watched& watched, std::uint64_t seed, HangCounts& counts) {
  const HangCase& one = kHangCases[seed % kHangKinds];
  const std::string replay = replay_of("hangs", seed);
  Session session(disk / "log", (seed + seed / kHangKinds) % 2 == 1, watched, replay);
  if (!session.ready()) {
    return Hung::kNone;
  }
  const bool flush = one.hang == Hang::kFlush;
  const auto begin = [&] {
    disk.clear();
    if (one.hang == Hang::kDaemon) {
      disk.stop();
    } else {
      disk.rule(flush ? "fsync 1 999999999 hang 0" : "change 1 999999999 hang 0");
    }
    return true;
  };
  std::uint64_t writes = 0;
  std::uint64_t flushes = 0;
  const auto end = [&] {
    if (one.hang == Hang::kDaemon) {
      disk.resume();
      return;
    }
    // The report may come while what is before the flush is written; the flush comes all the same.
    constexpr int kMostLooks = 60'000;
    FaultFs::Counts counted = disk.counts();
    for (int looks = 0; flush && counted.fsyncs == 0 && looks < kMostLooks; ++looks) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      counted = disk.counts();
    }
    writes = counted.writes;
    flushes = counted.fsyncs;
    disk.release();
  };
  const std::size_t bytes = flush ? kFlushedBytes + seed % 9000 : 1 + seed % 9000;
  const Hung hung = session.stall(one.call, bytes, begin, end);
  if (hung == Hung::kStarved) {
    return hung;
  }
  // A flush that hangs comes after writes that were answered.
  if (flush && (flushes == 0 || writes == 0)) {
    watched.tally.fail("no flush hung", replay);
  }
  ++counts[seed % kHangKinds];
  return hung;
}

void hang_on_faultfs(Watched& watched, std::uint64_t first, std::uint64_t count) {
  const Scratch scratch;
  std::string why;
  const auto disk = FaultFs::start(scratch, why);
  if (disk == nullptr) {
    watched.tally.miss("faultfs", why);
    return;
  }
  if (!watched.tally.log_made(create_log(*disk / "log", {.size = Bytes(kHangLogBytes)}),
                              replay_of("hangs", first))) {
    return;
  }
  HangCounts counts{};
  for (std::uint64_t seed = first; seed < first + count && watched.tally.ok(); ++seed) {
    const Hung hung = until_judged([&] { return hang_once(*disk, watched, seed, counts); });
    watched.tally.unmet += hung == Hung::kStarved ? 1U : 0U;
  }
  std::uint64_t flushes = 0;
  std::uint64_t ends = 0;
  for (std::size_t i = 0; i < kHangKinds; ++i) {
    flushes += kHangCases[i].hang == Hang::kFlush ? counts[i] : 0;
    ends += kHangCases[i].call != Call::kForce ? counts[i] : 0;
  }
  watched.tally.note += " flushes=" + std::to_string(flushes) + " closes=" + std::to_string(ends);
}

void freeze(DiskLab& lab, Watched& watched, std::uint64_t seed, std::uint64_t times,
            const std::string& what) {
  Session session(lab.log(), seed % 2 == 0, watched, replay_of("hangs", seed));
  for (std::uint64_t i = 0; i < times && session.ready() && watched.tally.ok(); ++i) {
    const Call call = i + 1 < times ? Call::kForce : Call::kClose;
    const auto once = [&] {
      return session.stall(
          call, 1 + i * 70 % 9000, [&] { return lab.mounted().freeze(); },
          [&] { (void)lab.mounted().thaw(); });
    };
    const Hung hung = call == Call::kForce ? until_judged(once) : once();  // The journal is gone.
    watched.tally.unmet += hung == Hung::kStarved ? 1U : 0U;
    if (hung == Hung::kNone) {
      watched.tally.miss(what, std::string("cannot be: ") + std::strerror(errno));
      return;
    }
  }
}

}  // namespace

Tally run_hangs(std::uint64_t first, std::uint64_t count) {
  Tally tally("hangs");
  Watched watched{tally};
  hang_on_faultfs(watched, first, count);
  for (const char* type : {"ext4", "xfs"}) {
    if (!tally.ok()) {
      break;
    }
    DiskLab lab(type, DiskLab::Under::kFile);
    if (!lab.ready()) {
      tally.miss(type, lab.why());
    } else if (tally.log_made(lab.make_log(kMinLogBytes.value()), replay_of("hangs", first))) {
      freeze(lab, watched, first, 2 + count / 20, std::string("freezing ") + type);
      if (tally.ok()) {
        throttle(lab, watched, first, std::string("throttling ") + type);
      }
    }
  }
  if (watched.astray > 3 + tally.tried / 4) {
    tally.fail(std::to_string(watched.astray) + " reports went astray; the latest, " + watched.says,
               replay_of("hangs", first));
  }
  tally.note += " starved=" + std::to_string(watched.starved) +
                " astray=" + std::to_string(watched.astray) +
                " latest_ms=" + std::to_string(watched.latest_ns / 1'000'000);
  return tally;
}

}  // namespace keel_test

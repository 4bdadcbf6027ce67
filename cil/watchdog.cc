#include "watchdog.h"

#include <algorithm>

#include "journal_impl.h"
#include "keel/base/check.h"
#include "keel/base/os.h"
#include "keel/cil/object_item.h"

namespace keel {
namespace {

constexpr std::uint64_t kDefaultStallNs = 10'000'000'000;
// Looks in each deadline: a stall is reported at most so much of it late.
constexpr std::uint64_t kLooks = 4;
constexpr std::uint64_t kShortestPauseNs = 1'000'000;

using What = StallReport::What;
using WaitsFor = StallReport::WaitsFor;

}  // namespace

Watchdog::~Watchdog() { KEEL_CHECK(!thread_.joinable(), "the watchdog runs"); }

void Watchdog::start() {
  const std::uint64_t wanted = journal_.settings.stall_after_ns;
  if (wanted != UINT64_MAX) {
    deadline_ns_ = wanted != 0 ? wanted : kDefaultStallNs;
    os_ = &os();
    thread_ = Thread("keel-watchdog", [this] { run(); });
  }
}

void Watchdog::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Watchdog::run() {
  const std::uint64_t pause_ns = std::max(deadline_ns_ / kLooks, kShortestPauseNs);
  MutexLock lock(mutex_);
  while (!stopping_) {
    (void)wake_.wait_for(mutex_, pause_ns);
    mutex_.unlock();
    look();
    mutex_.lock();
  }
}

void Watchdog::look() {
  now_ns_ = os_->monotonic_ns();
  look_at_parts();
  look_at_flights();
  look_at_forces();
  look_at_begins();
  look_at_close();
}

bool Watchdog::is_stalled(Watch& watch, std::uint64_t identity, std::uint64_t progress,
                          std::uint64_t since_ns) {
  if (watch.identity != identity || watch.progress != progress) {
    // What has moved counts from now; what is new, from when it began.
    const bool is_new = watch.identity != identity;
    watch = {identity, progress, is_new ? std::min(since_ns, now_ns_) : now_ns_, false};
  }
  if (identity == 0 || watch.reported || now_ns_ - watch.since_ns < deadline_ns_) {
    return false;
  }
  watch.reported = true;
  return true;
}

void Watchdog::look_at_parts() {
  for (unsigned i = 0; i < journal_.cil.part_count(); ++i) {
    const std::uint64_t holds = journal_.cil.holds(i);
    if (is_stalled(parts_[i], holds % 2 != 0 ? holds : 0, 0)) {
      StallReport report;
      report.what = What::kCommit;
      report.waits_for = WaitsFor::kFormat;
      report.sequence = journal_.cil.sequence();
      report.part = i;
      send(report, parts_[i]);
    }
  }
}

// The part that has been held for longest of those that a commit has held for two looks.
std::uint32_t Watchdog::stuck_part() const {
  std::uint32_t found = UINT32_MAX;
  for (std::uint32_t i = 0; i < parts_.size(); ++i) {
    const Watch& watch = parts_[i];
    if (watch.identity != 0 && watch.since_ns < now_ns_ &&
        (found == UINT32_MAX || watch.since_ns < parts_[found].since_ns)) {
      found = i;
    }
  }
  return found;
}

// Its checkpoint is read only after it was closed: before that the thread that closes it writes it.
Watchdog::FlightSeen Watchdog::see_flight(unsigned index, bool& is_first) const {
  MutexLock lock(journal_.push_mutex);
  const Flight& flight = journal_.flights[index];
  FlightSeen seen;
  is_first = journal_.first_flight == &flight;
  if (flight.step == Flight::Step::kFree) {
    return seen;
  }
  seen.identity = flight.since_ns;
  seen.progress = static_cast<std::uint64_t>(flight.step) * 2 + (is_first ? 1 : 0);
  if (flight.step == Flight::Step::kStarting) {
    seen.waits_for = WaitsFor::kContextLock;
    seen.sequence = journal_.cil.sequence();
    return seen;
  }
  seen.sequence = Sequence(flight.checkpoint.id.sequence);
  seen.lsn = Lsn(flight.checkpoint.id.start_lsn);
  seen.waits_for = flight.step == Flight::Step::kWriting ? WaitsFor::kWrite : WaitsFor::kCompletion;
  return seen;
}

// One that is written and waits for an older one is not stalled: that one is.
void Watchdog::look_at_flights() {
  for (unsigned i = 0; i < journal_.flight_count; ++i) {
    bool is_first = false;
    const FlightSeen seen = see_flight(i, is_first);
    const bool waits_in_turn = seen.waits_for == WaitsFor::kCompletion && !is_first;
    if (!is_stalled(flights_[i], waits_in_turn ? 0 : seen.identity, seen.progress, seen.identity)) {
      continue;
    }
    StallReport report;
    report.what = What::kPush;
    report.waits_for = seen.waits_for;
    report.sequence = seen.sequence;
    report.lsn = seen.lsn;
    report.part = seen.waits_for == WaitsFor::kContextLock ? stuck_part() : UINT32_MAX;
    send(report, flights_[i]);
  }
}

bool Watchdog::blame_flight(StallReport& report) {
  FlightSeen oldest;
  for (unsigned i = 0; i < journal_.flight_count; ++i) {
    bool is_first = false;
    const FlightSeen seen = see_flight(i, is_first);
    if (seen.identity != 0 && (oldest.identity == 0 || is_first)) {
      oldest = seen;
    }
  }
  if (oldest.identity == 0) {
    return false;
  }
  report.waits_for = oldest.waits_for;
  report.lsn = oldest.lsn;
  report.part = oldest.waits_for == WaitsFor::kContextLock ? stuck_part() : UINT32_MAX;
  return true;
}

void Watchdog::look_at_forces() {
  const StableSequence::Longest longest = journal_.stable.longest();
  const std::uint64_t progress = journal_.stable.now().value();
  if (!is_stalled(force_, longest.since_ns, progress, longest.since_ns)) {
    return;
  }
  StallReport report;
  report.what = What::kForce;
  report.sequence = longest.sequence;
  if (!blame_flight(report)) {
    report.part = stuck_part();
    report.waits_for = report.part != UINT32_MAX ? WaitsFor::kContextLock : WaitsFor::kThread;
  }
  send(report, force_);
}

void Watchdog::look_at_begins() {
  const std::uint64_t begun = journal_.home_pushes_begun.load(std::memory_order_relaxed);
  const std::uint64_t ended = journal_.home_pushes_ended.load(std::memory_order_relaxed);
  (void)is_stalled(home_push_, begun != ended ? begun : 0, ended);
  const LogSpace::Longest longest = journal_.space.longest();
  if (!is_stalled(begin_, longest.since_ns, 0, longest.since_ns)) {
    return;
  }
  StallReport report;
  report.what = What::kBegin;
  report.sequence = journal_.cil.sequence();
  if (!blame_home_push(report) && !blame_flight(report)) {
    blame_tail(report);
  }
  send(report, begin_);
}

// What it forces is watched as a force, and what is in flight then as a push. It asks many items to
// go home, has callbacks called and lets go of what is left: each of them is progress.
void Watchdog::look_at_close() {
  const std::uint64_t since_ns = journal_.close_since_ns.load(std::memory_order_relaxed);
  const std::uint64_t progress =
      home_push_.progress + journal_.callbacks.called() + journal_.ail.departures();
  if (!is_stalled(close_, since_ns, progress, since_ns)) {
    return;
  }
  StallReport report;
  report.what = What::kClose;
  report.sequence = journal_.cil.sequence();
  if (!blame_home_push(report)) {
    report.waits_for = journal_.close_waits_for.load(std::memory_order_relaxed);
  }
  send(report, close_);
}

bool Watchdog::blame_home_push(StallReport& report) {
  if (home_push_.identity == 0 || home_push_.since_ns >= now_ns_) {
    return false;
  }
  report.waits_for = WaitsFor::kClientPush;
  report.holders[0].type = journal_.home_push_type.load(std::memory_order_relaxed);
  report.holder_count = 1;
  report.lsn = journal_.ail.tail().lsn;
  return true;
}

void Watchdog::blame_tail(StallReport& report) {
  const TailPosition tail = journal_.ail.tail();
  if (journal_.space.memory_wanted()) {
    report.waits_for = WaitsFor::kMemory;
    return;
  }
  if (tail.empty) {
    report.waits_for = WaitsFor::kOpenTransactions;
    return;
  }
  report.waits_for = WaitsFor::kTail;
  report.lsn = tail.lsn;
  report.items_at_tail = tail.items;
  journal_.ail.for_oldest(report.holders.size(), [&report](LogItem& item) {
    const bool is_object = item.type() == format::kTypeObject;
    report.holders[report.holder_count++] = {
        item.type(), is_object ? static_cast<const ObjectItem&>(item).id() : 0};
    return true;
  });
}

void Watchdog::send(StallReport report, const Watch& watch) {
  report.waited_ns = now_ns_ - watch.since_ns;
  std::array<char, 512> line{};
  (void)describe(report, line.data(), line.size());
  report.line = line.data();
  if (journal_.settings.on_stall) {
    journal_.settings.on_stall(report);
  } else {
    send_message(report.line);
  }
}

}  // namespace keel

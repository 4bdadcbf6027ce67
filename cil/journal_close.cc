// Closing a journal: everything is forced, sent home where there is one, marked clean, let go of.

#include "journal_impl.h"
#include "keel/base/os.h"

namespace keel {

void Journal::Impl::stop_threads() {
  {
    MutexLock lock(push_mutex);
    stopping = true;
    push_wanted.notify_all();
  }
  stop_upkeep();
  for (Thread& thread : threads) {
    if (thread.joinable()) {
      thread.join();
    }
  }
  threads.clear();
}

void Journal::Impl::stop_upkeep() {
  {
    MutexLock lock(upkeep_mutex);
    upkeep_stopping = true;
    upkeep_wanted.notify_all();
  }
  if (!threads.empty() && threads.front().joinable()) {
    threads.front().join();
  }
}

void Journal::Impl::release_recovered() {
  {
    MutexLock lock(recovered_mutex);
    if (recovered == nullptr) {
      return;
    }
    ail.let_go(*recovered);
    recovered = nullptr;
  }
  ask_for_pass();
}

// A step of close() that forces nothing: what the watchdog is told while it lasts.
class Journal::Impl::CloseStep {
 public:
  CloseStep(Impl& journal, StallReport::WaitsFor waits_for) : journal_(journal) {
    journal_.close_waits_for.store(waits_for, std::memory_order_relaxed);
    journal_.close_since_ns.store(os().monotonic_ns(), std::memory_order_relaxed);
  }
  ~CloseStep() { journal_.close_since_ns.store(0, std::memory_order_relaxed); }
  CloseStep(const CloseStep&) = delete;
  CloseStep& operator=(const CloseStep&) = delete;

 private:
  Impl& journal_;
};

Status Journal::Impl::close() {
  using WaitsFor = StallReport::WaitsFor;
  if (auto status = owned(); !status) {
    return status;
  }
  if (is_closed) {
    return close_status;
  }
  if (callbacks.calling_here()) {
    report_bug({.bug = Bug::kForceInCallback, .call = "Journal::close"});
    return Error{Errc::kInvalidArgument, 0, "a callback may not close its journal", 0};
  }
  is_closed = true;
  {
    const CloseStep step(*this, WaitsFor::kCompletion);  // it may be in an item's release()
    pool.remove_shrinker(shrinker);  // first of all: it needs the journal's threads
  }
  // Before the rest, or the tail moved below could still grant a transaction to who waits in
  // begin(), and its commit would join a context that nobody writes.
  space.fail({Errc::kShutdown, 0, "the journal is closed", 0});
  // Before the force: the upkeep might log something again after it, or be pushing items home.
  {
    const CloseStep step(*this, WaitsFor::kWrite);
    stop_upkeep();
  }
  Status status = force(cil.sequence(), WaitWord::kForever);
  {
    const CloseStep step(*this, WaitsFor::kStableCallback);
    callbacks.close();  // what they have committed is forced below
  }
  if (status.ok()) {
    status = force(cil.sequence(), WaitWord::kForever);
  }
  if (status.ok()) {
    const CloseStep step(*this, WaitsFor::kClientPush);
    push_all_home();
  }
  stop_threads();
  followers.close();
  if (status.ok()) {
    status = stable.status();  // a thread may have failed after what was forced
  }
  if (status.ok()) {
    const CloseStep step(*this, WaitsFor::kWrite);
    status = mark_clean();
  }
  if (!status) {
    stable.fail(status.error());
  }
  let_go_of_all(stable.failed());
  watchdog.stop();
  stable.fail({Errc::kShutdown, 0, "the journal is closed", 0});
  close_status = status;
  return status;
}

void Journal::Impl::let_go_of_all(bool aborted) {
  const CloseStep step(*this, StallReport::WaitsFor::kCompletion);
  release_recovered();
  for (Ail::Removed one = ail.remove_first(); one.item != nullptr; one = ail.remove_first()) {
    if (one.held) {
      let_go_of(*one.item, aborted, false);
    }
  }
}

// So that there is nothing to replay: asks everything with a home to go there, as long as that
// makes it fewer.
void Journal::Impl::push_all_home() {
  constexpr int kMostPasses = 1000;
  constexpr std::uint64_t kPauseNs = 1'000'000;
  std::size_t before = SIZE_MAX;
  int idle_passes = 0;
  for (int i = 0; i < kMostPasses && idle_passes < 10; ++i) {
    const PushSums sums = push_items(Lsn(UINT64_MAX));
    if (sums.under_way == 0) {
      return;
    }
    idle_passes = sums.under_way < before ? 0 : idle_passes + 1;
    before = sums.under_way;
    os().sleep_ns(kPauseNs);
  }
}

Status Journal::Impl::mark_clean() {
  if (auto status = move_tail(true); !status) {
    return status;
  }
  MutexLock lock(state_mutex);
  state_stable = newest_complete().end;
  return write_state(format::kStateClean);
}

}  // namespace keel

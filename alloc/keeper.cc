#include "keeper.h"

#include <pthread.h>

#include <csignal>
#include <system_error>

namespace keel {
namespace {
constexpr std::uint64_t kRoundNs = 100'000'000;
constexpr std::uint64_t kRareRoundNs = 10'000'000'000;
}  // namespace

bool Keeper::start() {
  // Signals are the program's own threads' business.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_.emplace("keel-keeper", [this] { run(); });
  } catch (const std::system_error&) {  // No thread to be had.
  } catch (const std::bad_alloc&) {
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread_.has_value();
}

void Keeper::stop() {
  if (!thread_) {
    return;
  }
  {
    MutexLock lock(lock_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_->join();
  thread_.reset();
}

void Keeper::wake() {
  low_.store(true, std::memory_order_relaxed);  // A hint, see note_low().
  {
    MutexLock lock(lock_);
    if (woken_) {
      return;
    }
    woken_ = true;
  }
  wake_.notify_one();
}

void Keeper::pause() {
  MutexLock lock(lock_);
  ++pauses_;
  while (in_round_) {
    round_ended_.wait(lock_);
  }
}

void Keeper::resume() {
  {
    MutexLock lock(lock_);
    --pauses_;
  }
  wake_.notify_one();
}

bool Keeper::wait_for_round(Upkeep::Rounds rounds) {
  using Rounds = Upkeep::Rounds;
  MutexLock lock(lock_);
  in_round_ = false;
  round_ended_.notify_all();
  resting_.store(rounds != Rounds::kUsual, std::memory_order_seq_cst);
  if (active_.load(std::memory_order_seq_cst)) {  // See note_activity().
    rounds = Rounds::kUsual;                      // The round may have been past it already.
  }
  bool due = false;
  while (!stop_ && (pauses_ != 0 || (!woken_ && !due))) {
    if (rounds == Rounds::kNone || pauses_ != 0) {
      wake_.wait(lock_);
    } else {
      due = !wake_.wait_for(lock_, rounds == Rounds::kUsual ? kRoundNs : kRareRoundNs);
    }
  }
  woken_ = false;
  in_round_ = !stop_;
  return in_round_;
}

void Keeper::run() {
  for (auto rounds = Upkeep::Rounds::kUsual; wait_for_round(rounds);) {
    low_.store(false, std::memory_order_relaxed);  // A hint, see note_low().
    resting_.store(false, std::memory_order_relaxed);
    active_.store(false, std::memory_order_seq_cst);  // Before the round looks at anything.
    rounds = work_.upkeep();
  }
}

}  // namespace keel

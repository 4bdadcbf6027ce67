#include "stable_callbacks.h"

#include <new>
#include <utility>

#include "keel/base/check.h"
#include "thread_start.h"

namespace keel {
namespace {

thread_local const StableCallbacks* t_calling = nullptr;

}  // namespace

StableCallbacks::~StableCallbacks() { KEEL_CHECK(!thread_.joinable(), "callbacks not closed"); }

bool StableCallbacks::calling_here() const { return t_calling == this; }

Status StableCallbacks::add(Sequence sequence, Callback callback) {
  auto* pending = new (std::nothrow) Pending;
  if (pending == nullptr) {
    return Error{Errc::kNoMemory, 0, "wait for a sequence", sequence.value()};
  }
  pending->sequence = sequence;
  pending->callback = std::move(callback);
  const Status status = enter(*pending);
  if (!status) {
    delete pending;  // Without the lock: what the callback has captured may call the journal.
  }
  return status;
}

Status StableCallbacks::enter(Pending& pending) {
  MutexLock lock(mutex_);
  if (closing_) {
    return Error{Errc::kShutdown, 0, "the journal is closed", 0};
  }
  if (!thread_.joinable()) {
    if (auto status = start_thread(); !status) {
      return status;
    }
  }
  insert(pending);
  if (waiter_ == nullptr) {
    changed_.notify_one();
  } else if (pending.sequence < waiter_->sequence) {
    stable_.call_upon(*waiter_);
  }
  return {};
}

Status StableCallbacks::start_thread() {
  return start_or_say("start the thread of callbacks",
                      [this] { thread_ = Thread("keel-callbacks", [this] { run(); }); });
}

void StableCallbacks::insert(Pending& pending) {
  // Sequences mostly come in order.
  if (last_ == nullptr || last_->sequence <= pending.sequence) {
    (last_ != nullptr ? last_->next : first_) = &pending;
    last_ = &pending;
    return;
  }
  Pending** at = &first_;
  while ((*at)->sequence <= pending.sequence) {
    at = &(*at)->next;
  }
  pending.next = std::exchange(*at, &pending);
}

void StableCallbacks::close() {
  {
    MutexLock lock(mutex_);
    closing_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void StableCallbacks::run() {
  t_calling = this;
  MutexLock lock(mutex_);
  for (;;) {
    if (Pending* due = take_due(); due != nullptr) {
      mutex_.unlock();
      due->callback(stable_.now() >= due->sequence ? Status{} : stable_.status());
      delete due;
      called_.fetch_add(1, std::memory_order_relaxed);
      mutex_.lock();
    } else if (first_ != nullptr) {
      wait_for_first();
    } else if (closing_) {
      return;
    } else {
      changed_.wait(mutex_);
    }
  }
}

// The first one, if its fate is known. No more: an earlier one may come while it is called.
StableCallbacks::Pending* StableCallbacks::take_due() {
  if (first_ == nullptr || (!stable_.failed() && first_->sequence > stable_.now())) {
    return nullptr;
  }
  Pending* due = std::exchange(first_, first_->next);
  last_ = first_ == nullptr ? nullptr : last_;
  return due;
}

// Returns when it is stable or failed, or an earlier one has come.
void StableCallbacks::wait_for_first() {
  StableSequence::Waiter waiter;
  waiter.sequence = first_->sequence;
  waiter.looks_on = true;
  waiter_ = &waiter;
  mutex_.unlock();
  stable_.enter(waiter);
  std::uint64_t deadline_ns = WaitWord::kForever;
  while (stable_.wait(waiter, deadline_ns) == StableSequence::Wake::kCalledUpon) {
    // The next wait takes it off the list, or waits for its wake on the way; unless it is called
    // upon again: then it is still on the list.
    deadline_ns = 0;
  }
  mutex_.lock();
  waiter_ = nullptr;
}

}  // namespace keel

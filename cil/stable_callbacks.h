// StableCallbacks: who asked to be called when a sequence is stable, and the thread that calls.
//
// I1 Each is called once, in the order of sequences, and of equal ones in the order in which they
//    came, as far as they had come when it was called; with ok, or with the journal's first error.
// I2 None is called under a lock, nor by a thread that commits, forces or completes: a callback may
//    commit, and begin() may wait for what those threads do.
// I3 Whoever never asks pays nothing: there is no thread before the first add(), and a sequence
//    that becomes stable finds this thread as it finds any waiter.
// Locks: one (kJournalCallbacks), over the list; it stands after the stable sequence's, so that one
// is never taken under it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/result.h"
#include "keel/base/thread.h"
#include "stable_sequence.h"

namespace keel {

class StableCallbacks {
 public:
  using Callback = std::function<void(const Status&)>;

  explicit StableCallbacks(StableSequence& stable) : stable_(stable) {}
  ~StableCallbacks();
  StableCallbacks(const StableCallbacks&) = delete;
  StableCallbacks& operator=(const StableCallbacks&) = delete;

  // Has `callback` called when `sequence` is stable or never will be.
  // Errors: kNoMemory, kSystem (no thread), kShutdown after close(): it is not called.
  [[nodiscard]] Status add(Sequence sequence, Callback callback) KEEL_EXCLUDES(mutex_);
  // Lets no more in, and returns when all that are pending have been called: their sequences are
  // being pushed, or the journal has failed.
  void close() KEEL_EXCLUDES(mutex_);
  // True on the thread that calls: nothing there may wait for a sequence.
  [[nodiscard]] bool calling_here() const;
  [[nodiscard]] std::uint64_t called() const {
    return called_.load(std::memory_order_relaxed);  // a figure, orders nothing
  }

 private:
  struct Pending : MetadataObject {
    Sequence sequence{};
    Callback callback;
    Pending* next = nullptr;
  };

  [[nodiscard]] Status enter(Pending& pending) KEEL_EXCLUDES(mutex_);
  [[nodiscard]] Status start_thread() KEEL_REQUIRES(mutex_);
  void insert(Pending& pending) KEEL_REQUIRES(mutex_);
  [[nodiscard]] Pending* take_due() KEEL_REQUIRES(mutex_);
  void run();
  void wait_for_first() KEEL_REQUIRES(mutex_);

  StableSequence& stable_;
  mutable Mutex mutex_{LockRank::kJournalCallbacks};
  CondVar changed_;
  Pending* first_ KEEL_GUARDED_BY(mutex_) = nullptr;
  Pending* last_ KEEL_GUARDED_BY(mutex_) = nullptr;
  // Of the thread, while it waits for the first one's sequence.
  StableSequence::Waiter* waiter_ KEEL_GUARDED_BY(mutex_) = nullptr;
  bool closing_ KEEL_GUARDED_BY(mutex_) = false;
  std::atomic<std::uint64_t> called_{0};
  Thread thread_;
};

}  // namespace keel

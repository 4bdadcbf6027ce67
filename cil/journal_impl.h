// Journal::Impl: the parts of a journal put together, and its threads.
//
//   commit (transaction.cc)   any thread: snapshots items into the current context
//   push (push.cc)            a thread in force(), or one of `depth` workers: closes the context
//                             and writes it as one checkpoint
//   completion                whoever finds the oldest checkpoint in flight written: puts its items
//   (completion.cc)           into the AIL, unpins them, says that it is stable
//   upkeep (upkeep.cc)        one thread: gets items to leave the log, moves the tail
//
// Locks: their order is LockRank's (keel/base/lock_rank.h); the client's object lock is outside
// them all. No allocation and no I/O happens under the context lock.
//
// I1 Contexts are closed one at a time, and get their place in the log then; they are written in
//    any order, and completed in the order of their sequences.
// I2 A checkpoint owns its vectors until it is complete; items that are committed meanwhile use
//    others.
// I3 At most one small checkpoint is written at a time: what is committed meanwhile gathers for the
//    next. Large ones are written beside it and each other.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "ail.h"
#include "cil.h"
#include "followers.h"
#include "intents.h"
#include "journal_shrinker.h"
#include "keel/alloc/pool.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/thread.h"
#include "keel/cil/journal.h"
#include "log/checkpoint_writer.h"
#include "log/log_file.h"
#include "log/log_scan.h"
#include "log_space.h"
#include "stable_callbacks.h"
#include "stable_sequence.h"
#include "watchdog.h"

namespace keel {

// True while the calling thread has a transaction open.
[[nodiscard]] bool in_transaction();

// Counters, relaxed: each stands for itself and publishes nothing.
struct JournalCounters {
  std::atomic<std::uint64_t> checkpoints{0};
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> writes{0};
  std::atomic<std::uint64_t> flushes{0};
  std::atomic<std::uint64_t> forces{0};

  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t by) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }
};

// A checkpoint in flight, and all that it takes to write one.
struct Flight {
  enum class Step : std::uint8_t { kFree, kStarting, kWriting, kWritten, kFailed };

  std::unique_ptr<CheckpointWriter> writer;
  ClosedCheckpoint checkpoint;
  Bucket* bucket = nullptr;    // set aside for it, if there was memory
  LogVector* trash = nullptr;  // to be freed when who waits has been woken
  // Guarded by the push lock:
  Step step = Step::kFree;
  bool small = false;
  std::uint64_t since_ns = 0;
  Flight* next = nullptr;  // in the order of sequences
};

struct Journal::Impl : MetadataObject {
  Impl(LogFile log_file, Pool& memory, const ScanResult& found, const JournalConfig& config);
  ~Impl();

  // Makes what it takes to write; puts a fresh incarnation into the state slots: the log may be
  // written from now on.
  [[nodiscard]] Status make_flights(unsigned depth);
  [[nodiscard]] Status take_over();
  [[nodiscard]] Status start_threads();

  // kForked in a forked child.
  [[nodiscard]] Status owned() const;
  // Owned, and no error yet.
  [[nodiscard]] Status usable() const;
  [[nodiscard]] std::uint32_t block_bytes() const { return file.geometry().block_bytes; }

  // Space (space.cc).
  [[nodiscard]] Status reserve(const Reservation& wanted);
  // Adds to the part's credit; false, and nothing, if that would be more than it may keep.
  [[nodiscard]] bool keep_credit(CilPart& part, const Reservation& unused) const;
  void drain_credit();
  // What the log's space and the CIL's parts add up to at one moment.
  struct Sums {
    CommitCounts counts;
    Reservation credit;
    ContextSums context;
    LogSpace::Sums space;
    Sequence current{};
  };
  [[nodiscard]] Sums sums();

  // Intents (intents.cc).
  [[nodiscard]] Status check_intents() const;
  void adopt_intents(Journal& journal);
  void keep_snapshot(IntentItem& intent);
  [[nodiscard]] Status take_held(IntentItem& intent);
  void hold_for(IntentItem& intent);
  void drop_held(IntentItem& intent);

  // Push (push.cc).
  [[nodiscard]] Status force(Sequence sequence, std::uint64_t timeout_ns);
  // What to wait for, for `sequence` to be stable. Errors: kFutureSequence, the first error.
  [[nodiscard]] Result<Sequence> sequence_needed(Sequence sequence) const;
  [[nodiscard]] Status on_stable(Sequence sequence, StableCallbacks::Callback callback);
  // Has everything up to the sequence written, some time soon.
  void request_push(Sequence sequence) KEEL_EXCLUDES(push_mutex);
  // The same for what has gathered by now; nothing if nothing has.
  void request_push_of_open() KEEL_EXCLUDES(push_mutex);
  [[nodiscard]] Flight* try_start(Sequence sequence) KEEL_EXCLUDES(push_mutex);
  [[nodiscard]] bool may_start(bool small) KEEL_REQUIRES(push_mutex);
  [[nodiscard]] Flight* free_flight() KEEL_REQUIRES(push_mutex);
  void start_next() KEEL_EXCLUDES(push_mutex);
  // `is_worker`: one of the journal's threads, which may complete what others write.
  void push(Flight& flight, bool is_worker);
  [[nodiscard]] bool close_context(Flight& flight);
  [[nodiscard]] Status write_out(Flight& flight);
  void push_worker();
  // Asks the kernel for what settings.lock_memory says, for the calling thread.
  void prepare_thread();

  // Completion (completion.cc).
  void finish_write(Flight& flight, const Status& status, bool is_worker);
  [[nodiscard]] bool is_completion_due() const KEEL_REQUIRES(push_mutex);
  void complete_written(Sequence last);
  void complete(Flight& flight);
  LogVector* complete_batch(Flight& flight, LogVector* first);
  void abort(Flight& flight);
  void shut_down(const Error& error);
  void abort_chain(LogVector* first);
  void free_chain(LogVector* first);
  // A shadow that the caller has claimed; nullptr: nothing.
  void free_shadow(LogVector* shadow);
  void trim_shadow(LogItem& item);
  void trim_left(LogItem& item);
  // Ends this thread's hold of the item. Lets go of it, and calls its release(), unless a
  // checkpoint has it; `if_wanted`: only if that is (still) wanted.
  void let_go_of(LogItem& item, bool aborted, bool if_wanted);

  // Upkeep (upkeep.cc).
  void upkeep_loop();
  // A pass would find something to do.
  [[nodiscard]] bool upkeep_due() const;
  // Asks the upkeep for a pass.
  void nudge() KEEL_EXCLUDES(upkeep_mutex);
  // The same if somebody waits for space: something has left the log, and only a pass makes room of
  // it.
  void ask_for_pass() KEEL_EXCLUDES(upkeep_mutex);
  // Returns true if something may still free log space.
  [[nodiscard]] bool upkeep_pass(bool idle);
  struct PushSums {
    std::uint64_t under_way = 0;  // started, flushing, locked or pinned
    std::uint64_t homeless = 0;
  };
  [[nodiscard]] PushSums push_items(Lsn target);
  // One round of logging again.
  struct Again {
    std::uint64_t budget;
    std::uint64_t enough;  // from here on no further bucket is begun
    std::uint64_t used = 0;
    LogVector* trash = nullptr;
    std::size_t items = 0;           // logged
    const Bucket* bucket = nullptr;  // at hand
    bool stays = false;              // something of it
    bool is_oldest = true;
  };
  [[nodiscard]] bool log_again(std::uint64_t enough_bytes);
  [[nodiscard]] bool log_again_item(LogItem& item, CilPart& part, Sequence sequence, Again& again);
  [[nodiscard]] std::uint64_t cost_of_oldest(Again& again);
  static void put_again(LogItem& item, LogVector* vector, Again& again);
  [[nodiscard]] static bool reach_bucket(LogItem& item, Again& again);
  [[nodiscard]] bool trim_shadows();
  [[nodiscard]] bool trim_tracked(const std::function<bool(LogItem&)>& trim);
  class CloseStep;
  void push_all_home();
  void let_go_of_all(bool aborted);
  [[nodiscard]] Status move_tail(bool needed) KEEL_EXCLUDES(state_mutex);
  // Rewrites the state if a checkpoint up to `end` would lie too far beyond what it says.
  [[nodiscard]] Status keep_state_near(Lsn end) KEEL_EXCLUDES(state_mutex);
  [[nodiscard]] Status cover() KEEL_EXCLUDES(state_mutex);
  [[nodiscard]] Status write_state(std::uint64_t flags) KEEL_REQUIRES(state_mutex);
  struct Completed {
    Lsn end{};
    format::CheckpointId id{};
  };
  [[nodiscard]] Completed newest_complete() const KEEL_EXCLUDES(push_mutex);

  void release_recovered();
  [[nodiscard]] Status close();
  void stop_threads();
  void stop_upkeep();
  [[nodiscard]] Status mark_clean();

  Pool& pool;
  const JournalConfig settings;
  LogFile file;
  RecoveryReport report;
  const std::uint64_t threshold_bytes;

  LogSpace space;
  const Reservation most_credit;  // of a part
  StableSequence stable;
  StableCallbacks callbacks{stable};
  Ail ail;
  Followers followers;
  JournalCounters counters;

  // Held from the switch of contexts until the closed one is taken apart.
  Mutex close_mutex{LockRank::kJournalClose};
  Cil cil;

  mutable Mutex push_mutex{LockRank::kJournalPush};
  CondVar push_wanted;
  bool stopping KEEL_GUARDED_BY(push_mutex) = false;
  Sequence push_sequence KEEL_GUARDED_BY(push_mutex){};  // highest that was asked for
  bool starting KEEL_GUARDED_BY(push_mutex) = false;     // a flight has yet to close its context
  // Somebody was called upon and has not tried to start yet. If that one finds its sequence stable
  // instead, another has started since.
  bool called_upon KEEL_GUARDED_BY(push_mutex) = false;
  bool completing KEEL_GUARDED_BY(push_mutex) = false;
  unsigned idle_workers KEEL_GUARDED_BY(push_mutex) = 0;
  unsigned small_writes KEEL_GUARDED_BY(push_mutex) = 0;
  Flight* first_flight KEEL_GUARDED_BY(push_mutex) = nullptr;  // in the order of sequences
  Flight* last_flight KEEL_GUARDED_BY(push_mutex) = nullptr;
  format::CheckpointId last_closed KEEL_GUARDED_BY(push_mutex){};
  Completed completed KEEL_GUARDED_BY(push_mutex){};
  std::array<Flight, kMostDepth> flights;
  unsigned flight_count = 0;

  mutable Mutex upkeep_mutex{LockRank::kJournalPush};
  CondVar upkeep_wanted;
  bool upkeep_nudged KEEL_GUARDED_BY(upkeep_mutex) = false;
  bool upkeep_stopping KEEL_GUARDED_BY(upkeep_mutex) = false;
  // Of the upkeep thread: what was logged again since a waiter was last granted something.
  std::uint64_t again_bytes = 0;
  std::uint64_t again_since = 0;

  // For the watchdog: calls of LogItem::push(), and the type of the newest. Relaxed: only reported.
  std::atomic<std::uint64_t> home_pushes_begun{0};
  std::atomic<std::uint64_t> home_pushes_ended{0};
  std::atomic<std::uint32_t> home_push_type{0};

  // For the watchdog: since when close() has been at a step that forces nothing, 0: at none; and
  // what such a step waits for. Relaxed: only reported.
  std::atomic<std::uint64_t> close_since_ns{0};
  std::atomic<StallReport::WaitsFor> close_waits_for{StallReport::WaitsFor::kWrite};

  Mutex state_mutex{LockRank::kJournalState};
  std::uint64_t incarnation = 0;  // constant once the log is taken over
  Lsn incarnation_start{};
  // What the state slots say.
  Lsn state_tail KEEL_GUARDED_BY(state_mutex){};
  format::CheckpointId state_tail_predecessor KEEL_GUARDED_BY(state_mutex){};
  Lsn state_stable KEEL_GUARDED_BY(state_mutex){};
  // The same, once it is written; only grows. Written under the lock, read without it.
  std::atomic<std::uint64_t> written_stable{0};

  Mutex recovered_mutex{LockRank::kJournalInfo};
  Bucket* recovered KEEL_GUARDED_BY(recovered_mutex) =
      nullptr;  // holds the tail for recovered items
  // What info() tells: the file's own is guarded by state_mutex.
  mutable Mutex info_mutex{LockRank::kJournalInfo};
  LogInfo info KEEL_GUARDED_BY(info_mutex){};
  // Found at open and owned; what recovered_intents() tells. Constant after that.
  std::vector<std::unique_ptr<OwnedIntent>> recovered_intents;
  std::vector<IntentItem*> intents;

  bool is_closed = false;
  Status close_status;

  bool memory_locked = false;
  std::atomic<bool> io_flusher{false};
  std::vector<Thread> threads;  // the first is the upkeep's
  Watchdog watchdog{*this};
  JournalShrinker shrinker{*this};
};

}  // namespace keel

// Journal: delayed logging. Items that change again and again are merged in memory; what has been
// committed reaches the log as whole checkpoints.
//
//   auto transaction = journal->begin(max_bytes, max_items);
//   transaction->log(item);                     // under the object's own lock
//   auto sequence = transaction->commit();      // in memory: no I/O, no waiting
//   journal->force(*sequence);                  // stable: survives a crash
//
// Promises: after a crash at any point every forced checkpoint is there, whole; nothing of an
// incomplete one; and what is there is a prefix of the sequences. A transaction is never split over
// checkpoints. The first failed write or flush shuts the journal down for good.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "keel/alloc/pool.h"
#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/base/scopes.h"
#include "keel/base/units.h"
#include "keel/cil/follower.h"
#include "keel/cil/io_mode.h"
#include "keel/cil/log_file.h"
#include "keel/cil/log_item.h"
#include "keel/cil/recovery.h"
#include "keel/cil/stall_report.h"

namespace keel {

class IntentItem;
class Journal;
struct CilPart;
struct ContextSums;
struct Reservation;
class JournalShrinker;
class Watchdog;

struct JournalConfig {
  // For snapshots and buffers; nullptr: default_pool(). It outlives the items too, which ask it
  // whose process they are in.
  Pool* pool = nullptr;
  bool buffered = false;  // through the page cache, where there is no direct I/O
  // Go on at the first damage, dropping it and all that follows. The report still tells of it. A
  // block of checkpoints that cannot be read is damage then, else open() fails with kIo. Sequences
  // from RecoveryReport::first_missing on are given anew: see FollowConfig::from.
  bool salvage = false;
  // A context of this size is written without being asked for; 0: an eighth of the log, at most
  // 32 MiB, and never more than half of max_checkpoint.
  Bytes push_threshold{};
  // Most memory of snapshots: gathered, in flight and standing by. A hard bound: begin() waits for
  // it. 0: twelve times max_checkpoint, at most half of the pool's capacity.
  Bytes cil_memory{};
  // Reclaims and purges for contiguous memory before a snapshot is mapped from scattered pages
  // (AllocFlags::kRetryMayfail). Dear where memory is fragmented: for measuring that.
  bool retry_contiguous = false;
  // How large checkpoints are written. A small one is one pwritev2 in any mode.
  IoMode io_mode = IoMode::kAuto;
  // Locks the process's memory and tells the kernel that the journal's threads write a log, where
  // that is permitted (log/lock_memory.h): so that no write waits for memory. JournalFacts says
  // what was obtained.
  bool lock_memory = false;
  // Checkpoints that may be in flight at once, 16 at most: what is more is taken for that. 0: 4, or
  // 2 on a machine of one or two CPUs.
  unsigned depth = 0;
  // Makes everything stable that clients have written home; called before log space is reused. May
  // be empty: then Journal::release() says that the item is stable already. A failure shuts the
  // journal down. Called by a thread of the journal, in a NoReclaimScope; must not call the
  // journal.
  std::function<Status()> flush_home = {};
  // A journal without commits for so long records its tail and head, so that a reopening knows what
  // must be there, and replays only what nobody has let go of. 0: five seconds.
  std::uint64_t cover_after_ns = 0;
  std::function<void(Bytes done, Bytes most)> recovery_progress = {};  // may be empty
  // A force, begin, commit, push or close that gets nowhere for so long is reported, once. 0: ten
  // seconds; UINT64_MAX: never, and there is no thread for it.
  std::uint64_t stall_after_ns = 0;
  // Called on a thread of its own, with no lock held; may be empty: then the line goes to the
  // message hook (pool.h). Must not close the journal or throw, and keeps later reports waiting; so
  // does stats() in it, which waits for a commit that is stuck.
  std::function<void(const StallReport&)> on_stall = {};
};

// What the machine gave a journal.
struct JournalFacts {
  IoMode io_mode = IoMode::kSync;  // kUring or kSync
  unsigned depth = 0;
  Bytes cil_memory{};
  Bytes push_threshold{};
  bool memory_locked = false;
  bool io_flusher = false;  // the journal's threads
};

struct JournalStats {
  std::uint64_t transactions = 0;  // committed
  std::uint64_t items = 0;         // in them
  Bytes committed{};               // what they would have written, one by one
  Bytes coalesced{};               // of it, replaced in memory before it was written
  std::uint64_t checkpoints = 0;   // stable
  Bytes written{};                 // to the log, padding and headers included
  std::uint64_t writes = 0;        // system calls, for checkpoints
  std::uint64_t flushes = 0;       // for checkpoints and moves of the tail
  std::uint64_t forces = 0;        // calls of force() that had to wait
  Bytes log_used{};                // tail to head, context included
  Bytes log_reserved{};            // by open transactions
  Bytes log_held{};                // for the dones of open intents
  // For logging again, and granted to no transaction: what the checkpoint in the log that holds
  // most of items without a home needs for that, and at least a sixteenth of the log, or half of
  // the largest checkpoint where that is less.
  Bytes log_set_aside{};
  Bytes memory{};                     // of snapshots, and reserved or held for them
  Bytes memory_held{};                // of it, for dones
  unsigned in_flight = 0;             // checkpoints
  std::uint64_t ail_max_hold_ns = 0;  // longest that a batch of items held the AIL's lock
  Lsn tail{};                         // stable: space before it is reused
  Sequence current{};                 // of the context that commits join
  Sequence stable{};
};

// A set of items that are journalled together or not at all. Threads: bound to the one that began
// it, which may have only one. Destroying it without commit() cancels it: nothing is journalled.
class Transaction {
 public:
  Transaction(Transaction&& other) noexcept;
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();

  // Adds an item that has changed; adding it again has no effect. Never fails within the number of
  // items begun for; one more is kReservationExceeded. The caller holds the object's lock until
  // commit() returns (or until the item's committing() is called), or the transaction is destroyed.
  [[nodiscard]] Status log(LogItem& item);

  // Snapshots all items and joins them to the current checkpoint; returns its sequence, which
  // Journal::force() takes; where nothing has changed since the last checkpoint, that one's. Waits
  // for no I/O. On success the transaction is over.
  // Errors: kReservationExceeded, kNoMemory: nothing has changed, the caller may call again or
  // cancel. kShutdown and the journal's first error: the transaction is over.
  [[nodiscard]] Result<Sequence> commit();

 private:
  friend class Journal;
  struct Entry;
  static constexpr std::uint32_t kInlineEntries = 4;

  Transaction(Journal& journal, Reservation reserved);
  Transaction(Journal& journal, Reservation reserved, std::uint32_t max_items, void* entries);

  [[nodiscard]] static Result<Transaction> begin(Journal& journal, std::uint32_t max_items,
                                                 Reservation wanted);
  [[nodiscard]] static Result<Transaction> begin_done(Journal& journal, IntentItem& intent);
  [[nodiscard]] static Status check_alone(const char* call);
  [[nodiscard]] bool settle_intent(LogItem& item, Sequence sequence, ContextSums& before,
                                   ContextSums& after);
  [[nodiscard]] Entry* inline_entries();
  [[nodiscard]] Status prepare();
  [[nodiscard]] Status prepare_shadow(Entry& entry);
  [[nodiscard]] Result<Sequence> insert(bool& gave_back);
  static void insert_item(Entry& entry, CilPart& part, Sequence sequence, std::uint64_t order,
                          ContextSums& before, ContextSums& after);
  void account(CilPart& part, const ContextSums& before, const ContextSums& after);
  [[nodiscard]] static bool give_shadow_back(Entry& entry, bool inserted);
  void free_vector(LogVector* vector);
  void finish(bool gave_back = false);

  Journal* journal_ = nullptr;  // nullptr: over
  NoReclaimScope no_reclaim_;
  Entry* entries_ = nullptr;
  std::uint32_t entry_count_ = 0;
  std::uint32_t max_items_ = 0;
  std::uint64_t reserved_log_bytes_ = 0;
  std::uint64_t reserved_memory_bytes_ = 0;
  IntentItem* intent_ = nullptr;  // whose done it was begun for, until that is committed
  alignas(8) std::byte inline_bytes_[kInlineEntries * 56];
};

// Threads: every call from any thread, but for close() and the destructor: one thread, when no
// other is in a call and no transaction is open.
class Journal : public MetadataObject {
 public:
  // Opens the log at `path`, hands every checkpoint found in it to `handler` (oldest first, before
  // open() returns), and makes it ready for commits. What was recovered stays in the log until
  // release_recovered().
  // The log is the effective user's or root's, and nobody else may write to it, but for a block
  // device's group.
  // Errors: those of read_log_info(); kUntrusted; kBusy; kDamaged (unless config.salvage; more open
  // intents than the log has room for, or a sequence, LSN or generation of 2^61 and more, in any
  // case); kTooLarge (value: the cil_memory that the open intents need); kIo; kNoMemory;
  // kSystem (no thread); what the handler returns.
  [[nodiscard]] static Result<std::unique_ptr<Journal>> open(const std::string& path,
                                                             const JournalConfig& config,
                                                             const RecoveryHandler& handler);
  // As close(), its error ignored. Items must outlive the journal or have been released.
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Reserves log space for a transaction of at most `max_bytes` payload (what the items' regions
  // add up to) in `max_items` items, and waits for it in turn if need be. Take it before any object
  // lock. Four regions an item are allowed for; each more needs 15 bytes more of `max_bytes`, or
  // commit() may answer kReservationExceeded. `max_intents` of the items may be intents that are
  // committed for the first time: each then holds what its done will take.
  // Errors: kInvalidArgument (no items; the thread's second transaction, a reported bug), kTooLarge
  // (max_checkpoint; of snapshots: cil_memory / 4), kLogFull, kNoMemory, kForked, the first error.
  [[nodiscard]] Result<Transaction> begin(std::size_t max_bytes, std::uint32_t max_items,
                                          std::uint32_t max_intents = 0);
  // Begins a transaction for the intent's done, and nothing else, out of what the intent holds. It
  // never waits for log space; only, if the context and the open transactions are as large as a
  // checkpoint can be, until that changes, and then goes before all who wait in begin(): take it
  // before any object lock too. Without a commit, or if nothing was logged, the intent holds it
  // again. Anything but its done aborts.
  // Errors: kInvalidArgument (a second transaction of the thread), kForked, the first error.
  [[nodiscard]] Result<Transaction> begin_done(IntentItem& intent);

  // Blocks until checkpoint `sequence` and all before it are stable.
  // Without a timeout the calling thread may write the checkpoint itself: then committed(), unpin()
  // and release() of its items are called on it. After `timeout_ns` it gives up waiting; the push
  // goes on.
  // Errors: kFutureSequence, kForked, kInvalidArgument (in a callback of on_stable()), kTimeout,
  // the first error (then `sequence` may or may not be stable).
  // Source: xfs_log_force_seq (Linux).
  [[nodiscard]] Status force(Sequence sequence, std::uint64_t timeout_ns = UINT64_MAX);
  // Everything committed before the call.
  [[nodiscard]] Status force_all();

  // Has `callback` called once: with ok when checkpoint `sequence` and all before it are stable, or
  // with the journal's first error. Asks for the push of `sequence`. Callbacks are called in the
  // order of sequences, on a thread of their own that the first call starts; also for a sequence
  // that is stable already. Those still pending are called at the start of close(), when begin() is
  // refused already.
  // A callback may commit and call this again; force() and close() of its journal in it, and
  // waiting for a follower's next checkpoint, are reported bugs. It holds up the callbacks behind
  // it, and must not throw.
  // Threads: any; does not wait for I/O. Owner: the journal keeps `callback` until it was called.
  // Errors: kFutureSequence, kForked, kNoMemory, kSystem (no thread could be started), kShutdown,
  // the first error: the callback is not called.
  [[nodiscard]] Status on_stable(Sequence sequence, std::function<void(const Status&)> callback);

  // Follows the journal from a checkpoint on (follower.h). Reads what is stable before that one.
  // Threads: any; reads the device. Owner: the caller; it destroys the follower before the journal.
  // Errors: kLagged (value: config.from, which the log no longer holds), kFutureSequence,
  // kNoMemory, kIo, kDamaged, kForked, the first error.
  [[nodiscard]] Result<std::unique_ptr<Follower>> follow(const FollowConfig& config);

  // All up to here is stable. Threads: any; no lock.
  [[nodiscard]] Sequence stable_sequence() const;

  // The item's newest state no longer needs the log: it is stable elsewhere, or dropped. True: it
  // is gone, and no call of LogItem::release() follows. False: a checkpoint that is not yet stable,
  // a push(), a release() that is under way on another thread, or whoever looks for memory to free,
  // holds it; the journal lets go of it after that and calls LogItem::release(), unless it is
  // committed again before. An item that answered Tracking::kRelease is not to be released here
  // too.
  // Threads: under the object's lock, or LogItem::release() may destroy it meanwhile. In a forked
  // child: true, and nothing is done.
  bool release(LogItem& item);

  // What open() recovered no longer needs the log. Idempotent.
  void release_recovered();

  // Intents that open() found in the log without a done, in the log's order. The journal owns them;
  // their work is to be finished, and a done committed for each. Until that is stable they hold the
  // tail, whether release_recovered() was called or not; after a close they are found again.
  [[nodiscard]] std::span<IntentItem* const> recovered_intents() const;

  // Forces everything, marks the log clean, lets go of every item (LogItem::release). No
  // transaction may be open. Errors: the first error; the journal is closed all the same.
  // Idempotent.
  [[nodiscard]] Status close();

  [[nodiscard]] const RecoveryReport& recovery() const;
  // In a forked child nothing, as stats().
  [[nodiscard]] LogInfo info() const;
  // In a forked child: zeros.
  [[nodiscard]] JournalStats stats() const;
  [[nodiscard]] JournalFacts facts() const;

  // Walks every structure and aborts on a broken invariant. Threads: needs a quiet journal.
  void audit() const;

 private:
  friend class Transaction;
  friend class Follower;
  friend class JournalShrinker;
  friend class Watchdog;
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  [[nodiscard]] static Result<std::unique_ptr<Journal>> open_or_throw(
      const std::string& path, const JournalConfig& config, const RecoveryHandler& handler);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keel

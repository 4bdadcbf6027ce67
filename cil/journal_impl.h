// Journal::Impl: the parts of a journal put together, and the thread that pushes checkpoints.
//
// Locks: their order is LockRank's (keel/base/lock_rank.h); the client's object lock is outside
// them all. A commit holds the context lock shared, the switch to the next context exclusively. No
// allocation and no I/O happens under it.
//
// I1 One thread at a time writes to the device: open() before the push thread starts, that thread
//    and the batch thread that it waits for, close() after it has ended.
// I2 The checkpoint being written owns its vectors; items that are committed meanwhile use others.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "ail.h"
#include "context.h"
#include "keel/alloc/pool.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/cil/journal.h"
#include "log/checkpoint_writer.h"
#include "log/log_file.h"
#include "log/log_scan.h"
#include "log_space.h"
#include "stable_sequence.h"

namespace keel {

// Counters, relaxed: each stands for itself and publishes nothing.
struct JournalCounters {
  std::atomic<std::uint64_t> transactions{0};
  std::atomic<std::uint64_t> items{0};
  std::atomic<std::uint64_t> committed_bytes{0};
  std::atomic<std::uint64_t> coalesced_bytes{0};
  std::atomic<std::uint64_t> checkpoints{0};
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> writes{0};
  std::atomic<std::uint64_t> flushes{0};
  std::atomic<std::uint64_t> forces{0};

  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t by) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }
};

struct Journal::Impl : MetadataObject {
  Impl(LogFile log_file, std::unique_ptr<CheckpointWriter> checkpoint_writer, Pool& memory,
       const ScanResult& found, std::uint64_t push_threshold);
  ~Impl();

  // Puts a fresh incarnation into the state slots: the log may be written from now on.
  [[nodiscard]] Status take_over();
  [[nodiscard]] Status start_thread();

  // kForked in a forked child.
  [[nodiscard]] Status owned() const;
  // Owned, and no error yet.
  [[nodiscard]] Status usable() const;
  [[nodiscard]] Status force(Sequence sequence);
  void release_recovered();
  [[nodiscard]] Status close();
  [[nodiscard]] Status mark_clean();
  // As LogFile's, and for info() to tell.
  [[nodiscard]] Status write_state(const format::StateSlot& state) KEEL_EXCLUDES(info_mutex);
  [[nodiscard]] std::uint32_t block_bytes() const { return file.geometry().block_bytes; }

  // Asks the push thread for a pass.
  void nudge() KEEL_EXCLUDES(push_mutex);
  void request_push(Sequence sequence) KEEL_EXCLUDES(push_mutex);

  // The push thread.
  void push_loop();
  void pass();
  [[nodiscard]] bool close_context(ClosedCheckpoint& checkpoint);
  [[nodiscard]] Status write_out(ClosedCheckpoint& checkpoint);
  void complete(const ClosedCheckpoint& checkpoint);
  [[nodiscard]] Status move_tail(bool needed);
  [[nodiscard]] format::StateSlot next_state() const;
  void shut_down(const Error& error);
  void abort_chain(LogVector* first);
  void free_chain(LogVector* first);

  Pool& pool;
  LogFile file;
  std::unique_ptr<CheckpointWriter> writer;
  RecoveryReport report;
  const std::uint64_t threshold_bytes;

  SharedMutex context_mutex{LockRank::kJournalContext};
  mutable Mutex cil_mutex{LockRank::kJournalCil};
  Context context KEEL_GUARDED_BY(cil_mutex);
  std::uint64_t order KEEL_GUARDED_BY(cil_mutex) = 0;
  // The context's sequence, readable without the lock. Relaxed: force() only compares with it.
  std::atomic<std::uint64_t> current_sequence{1};
  std::atomic<std::uint64_t> transaction_ids{0};

  LogSpace space;
  StableSequence stable;
  Ail ail;
  JournalCounters counters;

  Mutex push_mutex{LockRank::kJournalPush};
  CondVar push_wanted;
  bool nudged KEEL_GUARDED_BY(push_mutex) = false;
  bool stopping KEEL_GUARDED_BY(push_mutex) = false;
  Sequence push_sequence KEEL_GUARDED_BY(push_mutex){};
  std::thread push_thread;

  // Of the push thread, and of open() and close() before and after it.
  format::CheckpointId last_id{};  // newest checkpoint in the log
  std::uint64_t incarnation = 0;
  Lsn incarnation_start{};
  Lsn stable_lsn{};   // end of the newest stable checkpoint
  Lsn stable_tail{};  // tail in the state slots
  format::CheckpointId stable_tail_predecessor{};

  Mutex recovered_mutex{LockRank::kJournalInfo};
  Bucket* recovered KEEL_GUARDED_BY(recovered_mutex) =
      nullptr;  // holds the tail for recovered items
  // What info() tells: the file's own is the push thread's.
  mutable Mutex info_mutex{LockRank::kJournalInfo};
  LogInfo info KEEL_GUARDED_BY(info_mutex){};
  bool is_closed = false;
  Status close_status;
};

}  // namespace keel

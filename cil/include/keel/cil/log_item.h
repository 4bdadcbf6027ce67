// LogItem: the handle by which a client's object is journalled.
//
// The client embeds one in each object and answers how large it is and how it is written down. keel
// snapshots the object at commit (format), so the object may change again at once.
//
// I1 From Transaction::log() to the end of commit() the caller holds the object's own lock: two
//    transactions never touch one item at the same time.
// I2 pin() is called once for each checkpoint that the item enters, however often it is committed
//    to it; unpin() once for each pin().
// I3 An item may be destroyed before its first commit, after Journal::release() returned true, when
//    release() is called and in_use() is false, or after the journal's close; not while a commit or
//    a push holds it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

class Pool;
struct LogVector;
class SnapshotWriter;
struct Bucket;
struct ItemAccess;
struct CallOfRelease;

// What an item will write: filled in by LogItem::size(). An item that adds nothing is empty: it is
// neither written nor pinned by this commit.
class ItemSize {
 public:
  explicit ItemSize(std::uint32_t block_bytes) : block_bytes_(block_bytes) {}

  // One region of at most `bytes` bytes. Regions of a log block and more are kept aligned, so that
  // their whole blocks go to the disk without another copy; those blocks are then written.
  void region(std::size_t bytes);
  // Ordered: tracked and pinned like any item, never written. Call instead of region().
  void ordered() { ordered_ = true; }

  [[nodiscard]] bool is_ordered() const { return ordered_; }
  [[nodiscard]] bool empty() const { return region_count_ == 0 && !ordered_; }
  [[nodiscard]] std::uint32_t region_count() const { return region_count_; }
  [[nodiscard]] std::uint64_t packed_bytes() const { return packed_bytes_; }
  [[nodiscard]] std::uint64_t bulk_blocks() const { return bulk_blocks_; }
  [[nodiscard]] std::size_t large_bytes() const { return large_bytes_; }

 private:
  std::uint32_t block_bytes_;
  std::uint32_t region_count_ = 0;
  bool ordered_ = false;
  std::size_t large_bytes_ = 0;     // regions of a block and more, each padded to a page
  std::uint64_t packed_bytes_ = 0;  // what the item adds to the checkpoint's packed stream
  std::uint64_t bulk_blocks_ = 0;   // what it adds to the bulk stream
};

// Where LogItem::format() writes the regions, in the order in which size() named them; fewer or
// shorter ones are fine, but one sized at a log block or more keeps its whole blocks and gets
// shorter only beyond them. More is a bug and aborts.
class ItemFormatter {
 public:
  explicit ItemFormatter(SnapshotWriter& writer) : writer_(writer) {}

  // Copies one region.
  void copy(const void* data, std::size_t bytes);
  // Gives room for one region that the caller fills before it returns from format().
  [[nodiscard]] std::byte* reserve(std::size_t bytes);

 private:
  SnapshotWriter& writer_;
};

// What becomes of an item whose checkpoint is stable.
enum class Tracking : std::uint8_t {
  kTrack,    // it stays in the log until it is home: the journal holds the tail for it
  kRelease,  // its owner needs the log no more: release() follows, unless it was committed again
};

// What an item that holds the tail of a filling log does about it.
enum class PushResult : std::uint8_t {
  kStarted,   // it is being written home, or is home: Journal::release() follows or has come
  kFlushing,  // it was on its way already
  kLocked,    // its object is in use: ask again later
};

class LogItem {
 public:
  // The types of the items that keel brings along; a client's own begin above them.
  static constexpr std::uint32_t kFirstClientType = 16;

  // `type` tells items apart in recovery: kFirstClientType and up are the client's to choose;
  // another one aborts.
  explicit LogItem(std::uint32_t type);
  // Destroying an item in use is a reported bug.
  virtual ~LogItem();
  LogItem(const LogItem&) = delete;
  LogItem& operator=(const LogItem&) = delete;

  [[nodiscard]] std::uint32_t type() const { return type_; }
  // True while a checkpoint that is not yet stable holds the item.
  [[nodiscard]] bool pinned() const;
  // True once such a checkpoint has failed with its journal, until a commit to another. What
  // is pinned, or then aborted, must not be written home: ask in this order.
  [[nodiscard]] bool aborted() const;
  // True while the journal holds the log's tail for the item.
  [[nodiscard]] bool tracked() const;
  // True while the journal has the item, or will call release(): to be looked at there, under the
  // object lock, where a commit or Journal::release() of another thread may cross with the call.
  [[nodiscard]] bool in_use() const;

 protected:
  // For keel's own items.
  struct BuiltIn {
    std::uint32_t type;
  };
  explicit LogItem(BuiltIn built_in) : type_(built_in.type) {}

  // What follows is called by the journal. None of it may wait for the journal (force, begin,
  // close) or throw.

  // size() and format() are called by commit() on the committing thread, under the caller's object
  // lock; format() also under the context lock: it must not block, allocate or call the journal.
  virtual void size(ItemSize& size) const = 0;
  virtual void format(ItemFormatter& formatter) const = 0;

  // Entry into a checkpoint: by commit() (its thread, object lock held), or by a thread of the
  // journal that logs the item again, without the object lock. The context lock is held, perhaps
  // the AIL's: as format(), and no call of the journal.
  virtual void pin() {}
  // That checkpoint is stable, or failed (`aborted`: the journal has shut down). A thread of the
  // journal, or one that is in force().
  virtual void unpin(bool aborted) { (void)aborted; }
  // The commit belongs to checkpoint `sequence`; the client may drop its object lock here. As
  // pin(): the context lock is held.
  virtual void committing(Sequence sequence) { (void)sequence; }
  // The item is stable in the log at `lsn`. Before unpin(), on its thread, which completes the
  // checkpoint in a NoReclaimScope: what it or unpin() allocates takes only what is free. kRelease
  // counts for this checkpoint in any case; release() follows unless the item was committed again.
  // Source: iop_committed (XFS).
  virtual Tracking committed(Lsn lsn) {
    (void)lsn;
    return Tracking::kTrack;
  }
  // True if push() can write the item somewhere else. Of one without a home the journal keeps the
  // newest snapshot in memory while it holds the tail, as far as JournalConfig::cil_memory allows,
  // to be able to log it again. Constant.
  [[nodiscard]] virtual bool has_home() const { return false; }
  // The log is filling up, or the journal closes, and this item is among the oldest: see to it that
  // it can leave. Called only if has_home(), by a thread of the journal or in close(), with no lock
  // held, on an item that was not pinned when it was chosen. A commit may have come since, or the
  // journal failed: take the object lock and look at pinned() and aborted() before writing home.
  // May write before it returns, and may call Journal::release(). Keep it short: others wait behind
  // it.
  // Source: iop_push (XFS).
  virtual PushResult push() { return PushResult::kLocked; }
  // The journal no longer knows the item; it may be destroyed, here at the earliest. `aborted`: by
  // a shutdown. A commit of another thread may cross with it: under the object lock, look at
  // in_use() before destroying; if it is true, this is called again, unless it is committed again.
  // Never called by two threads at once. Called by a thread of the journal, one in force() or
  // close(), or one that allocates from the pool (its shrinker).
  virtual void release(bool aborted) { (void)aborted; }

 private:
  friend struct ItemAccess;

  // The item's part in one context. Two of them: the context that is being gathered uses one, a
  // closed one that is being taken apart the other, by the parity of its sequence.
  struct Membership {
    LogVector* active = nullptr;  // snapshot in the context
    LogItem* next = nullptr;      // in the context's list
  };

  const std::uint32_t type_;
  // Pins (unstable checkpoints that hold the item) and flags; see ItemState in log_vector.h.
  std::atomic<std::uint32_t> state_{0};
  std::atomic<bool> aborted_{false};  // what it holds failed with its journal
  // Standby snapshot. Whoever exchanges it for nullptr owns it: a commit, or who trims.
  std::atomic<LogVector*> shadow_{nullptr};
  // Guarded by the client's object lock: mark of the transaction that holds the item, or nullptr.
  const void* transaction_ = nullptr;
  // A snapshot whose LogVector::order is less holds nothing that the log needs: of the newest
  // commit that logged the item, or of what came to let it go since. Relaxed: who takes a snapshot
  // for good has seen the item unpinned since, or is the commit.
  std::atomic<std::uint64_t> logged_order_{0};
  // Guarded by the context lock: shared and the object lock, or exclusive; of a closed context, by
  // who takes it apart.
  Membership memberships_[2];
  // Guarded by the AIL's lock.
  Bucket* bucket_ = nullptr;  // checkpoint that the item counts for
  LogItem* ail_next_ = nullptr;
  LogItem* ail_previous_ = nullptr;
  CallOfRelease* release_call_ = nullptr;  // under way; guarded by the lock of release_call.cc
  Pool* pool_ = nullptr;                   // owner of the log vectors; set at first commit
};

}  // namespace keel

// LogItem: the handle by which a client's object is journalled.
//
// The client embeds one in each object and answers how large it is and how it is written down. keel
// snapshots the object at commit (format), so the object may change again at once.
//
// I1 From Transaction::log() to the end of commit() the caller holds the object's own lock: two
//    transactions never touch one item at the same time.
// I2 pin() is called once for each checkpoint that the item enters, however often it is committed
//    to it; unpin() once for each pin().
// I3 An item may be destroyed only when it is neither pinned nor tracked: before its first commit,
//    or after Journal::release() or the journal's close.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

class Pool;
struct LogVector;
struct Bucket;
struct ItemAccess;

// What an item will write: filled in by LogItem::size(). An item that adds nothing is empty: it is
// neither written nor pinned by this commit.
class ItemSize {
 public:
  explicit ItemSize(std::uint32_t block_bytes) : block_bytes_(block_bytes) {}

  // One region of at most `bytes` bytes. Regions of a log block and more are kept aligned, so that
  // their whole blocks go to the disk without another copy.
  void region(std::size_t bytes);
  // Ordered: tracked and pinned like any item, never written. Call instead of region().
  void ordered() { ordered_ = true; }

  [[nodiscard]] bool is_ordered() const { return ordered_; }
  [[nodiscard]] bool empty() const { return region_count_ == 0 && !ordered_; }
  [[nodiscard]] std::uint32_t region_count() const { return region_count_; }
  [[nodiscard]] std::uint64_t packed_bytes() const { return packed_bytes_; }
  [[nodiscard]] std::uint64_t bulk_blocks() const { return bulk_blocks_; }
  [[nodiscard]] std::size_t small_bytes() const { return small_bytes_; }
  [[nodiscard]] std::size_t large_bytes() const { return large_bytes_; }

 private:
  std::uint32_t block_bytes_;
  std::uint32_t region_count_ = 0;
  bool ordered_ = false;
  std::size_t small_bytes_ = 0;     // regions below a block, each padded to 8
  std::size_t large_bytes_ = 0;     // regions of a block and more, each padded to a page
  std::uint64_t packed_bytes_ = 0;  // what the item adds to the checkpoint's packed stream
  std::uint64_t bulk_blocks_ = 0;   // what it adds to the bulk stream
};

// Where LogItem::format() writes the regions, in the order in which size() named them; fewer or
// shorter ones are fine (but a region sized at a log block or more stays at a block or more), more
// is a bug and aborts.
class ItemFormatter {
 public:
  explicit ItemFormatter(LogVector& vector) : vector_(vector) {}

  // Copies one region.
  void copy(const void* data, std::size_t bytes);
  // Gives room for one region that the caller fills before it returns from format().
  [[nodiscard]] std::byte* reserve(std::size_t bytes);

 private:
  LogVector& vector_;
};

class LogItem {
 public:
  // `type` tells items apart in recovery: 16 and up are the client's to choose.
  explicit LogItem(std::uint32_t type);
  // Destroying an item in use is a reported bug.
  virtual ~LogItem();
  LogItem(const LogItem&) = delete;
  LogItem& operator=(const LogItem&) = delete;

  [[nodiscard]] std::uint32_t type() const { return type_; }
  // True while a checkpoint that is not yet stable holds the item.
  [[nodiscard]] bool pinned() const;

 protected:
  // size() and format() are called by commit() on the committing thread, under the caller's object
  // lock; format() also under the context lock: it must not block, allocate or call the journal.
  virtual void size(ItemSize& size) const = 0;
  virtual void format(ItemFormatter& formatter) const = 0;

  // First insertion into a checkpoint (committing thread, context lock held: as format()).
  virtual void pin() {}
  // That checkpoint is stable, or failed (`aborted`: the journal has shut down). Journal's thread.
  virtual void unpin(bool aborted) { (void)aborted; }
  // The commit belongs to checkpoint `sequence`; the client may drop its object lock here.
  virtual void committing(Sequence sequence) { (void)sequence; }
  // The item is stable in the log at `lsn` and tracked from there. Journal's thread.
  virtual void committed(Lsn lsn) { (void)lsn; }
  // The journal no longer knows the item; it may be destroyed. `aborted`: by a shutdown.
  virtual void release(bool aborted) { (void)aborted; }

 private:
  friend struct ItemAccess;

  const std::uint32_t type_;
  // Guarded by the client's object lock.
  LogVector* shadow_ = nullptr;    // standby snapshot; see log_vector.h
  std::uint64_t transaction_ = 0;  // id of the transaction that holds the item, or 0
  // Guarded by the context lock (shared and the object lock, or exclusive).
  LogVector* active_ = nullptr;  // snapshot in the current context
  // Guarded by the CIL's lock.
  LogItem* cil_next_ = nullptr;
  std::uint64_t order_ = 0;  // of the last commit
  // Guarded by the AIL's lock.
  Bucket* bucket_ = nullptr;  // checkpoint that the item counts for
  LogItem* ail_next_ = nullptr;
  LogItem* ail_previous_ = nullptr;
  // Number of unstable checkpoints that hold the item; written under the context lock or by the
  // push thread, read by anyone.
  std::atomic<std::uint32_t> pins_{0};
  Pool* pool_ = nullptr;  // owner of the log vectors; set at first commit
};

}  // namespace keel

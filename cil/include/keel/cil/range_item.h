// RangeItem: the ready-made item for a stretch of the caller's memory, of which only what has been
// marked is logged, in chunks of 128 bytes.
//
// I1 A snapshot replaces the item's earlier one, whose place in the log is reused. So it holds
//    every chunk marked since clean(), not only those of its own commit: it is enough on top of
//    what is home.
// I2 Marks are cleared by clean() alone, and never while a checkpoint that is not yet stable holds
//    the item: a commit that joins that checkpoint would take the place of what it has. Nor by a
//    release() with which a commit has crossed that is stable by then: it does not speak of that.
// Source: xfs_buf_log_item (XFS).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "keel/base/metadata_object.h"
#include "keel/base/result.h"
#include "keel/cil/log_item.h"

namespace keel {

// Journals what changes in a stretch of memory. Owner: the caller keeps the memory alive, and
// unchanged from Transaction::log() to the end of commit(). Threads: under the caller's object
// lock.
class RangeItem : public LogItem, public MetadataObject {
 public:
  static constexpr std::size_t kChunkBytes = 128;
  static constexpr std::size_t kMostBytes = std::size_t{16} << 20;

  // An item with its bitmap; nothing is marked. `base` is where the memory begins, for `id`.
  // Errors: kNoMemory; kTooLarge, beyond kMostBytes.
  [[nodiscard]] static Result<std::unique_ptr<RangeItem>> create(std::uint64_t id, const void* base,
                                                                 std::size_t length_bytes);

  // For classes derived from it: an item of no bytes, until attach().
  explicit RangeItem(std::uint64_t id);
  ~RangeItem() override;
  // Gives the item its memory, once. Errors: those of create().
  [[nodiscard]] Status attach(const void* base, std::size_t length_bytes);

  // The next commit, and every later one until clean(), logs these bytes, rounded to whole chunks,
  // as they are then. No effect for no bytes; beyond the end aborts.
  void mark(std::size_t offset, std::size_t length_bytes);

  // All that was committed is home, written where JournalConfig::flush_home makes it stable, or
  // stable already: later commits log only what is marked from here on. A commit without a mark
  // logs nothing. To be called with Journal::release() (whatever it answers) or by
  // LogItem::release(), not between a mark and its commit.
  // No effect while pinned(), nor while a release() is under way if a commit has crossed with that
  // and is in the log to stay: then the next snapshot holds the old marks too.
  void clean();

  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] std::size_t length_bytes() const { return length_bytes_; }
  // What the next commit would log of the memory.
  [[nodiscard]] std::size_t dirty_bytes() const { return measure().bytes; }

  // Payload that begin() must allow for, whatever is marked of so many bytes.
  [[nodiscard]] static std::size_t log_bytes(std::size_t length_bytes);
  // The same for `dirty_bytes` (of whole chunks) in at most `runs` pieces.
  [[nodiscard]] static std::size_t log_bytes(std::size_t dirty_bytes, std::size_t runs);

 protected:
  void size(ItemSize& size) const override;
  void format(ItemFormatter& formatter) const override;

 private:
  struct Run {
    std::size_t offset;
    std::size_t bytes;
  };
  struct Measure {
    std::size_t runs;
    std::size_t bytes;
  };

  [[nodiscard]] std::size_t chunks() const;
  [[nodiscard]] std::size_t find(std::size_t from, bool dirty) const;
  [[nodiscard]] Run next_run(std::size_t from_bytes) const;
  [[nodiscard]] Measure measure() const;

  const std::uint64_t id_;
  const std::byte* base_ = nullptr;
  std::size_t length_bytes_ = 0;
  std::uint64_t* dirty_ = nullptr;  // one bit a chunk; bits beyond the end are 0
};

}  // namespace keel

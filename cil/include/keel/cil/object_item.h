// ObjectItem: the ready-made item for an object, an id and bytes in the caller's memory: logged
// whole, or only the ranges of it that have changed since the object was last home.
//
// I1 A snapshot replaces the item's earlier one, whose place in the log is reused. So it holds
//    every range marked since clean(), not only those of its own commit: it is enough on top of
//    what is home.
// I2 Marks are cleared by clean() alone, and never while a checkpoint that is not yet stable holds
//    the item: a commit that joins that checkpoint would take the place of what it has. Nor by a
//    release() with which a commit has crossed that is stable by then: it does not speak of that.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "keel/cil/log_item.h"

namespace keel {

class RecoveredItem;

// Journals the bytes of one object. Owner: the caller keeps the bytes alive, and unchanged from
// Transaction::log() to the end of commit(). Threads: under the caller's object lock.
class ObjectItem : public LogItem {
 public:
  // Most ranges that are told apart; beyond it the two nearest are logged as one.
  static constexpr std::uint32_t kMostRanges = 16;

  explicit ObjectItem(std::uint64_t id);

  // The object's bytes as the next commit shall log them, whole; no copy is made before commit.
  void set(std::span<const std::byte> bytes);
  void set(const void* data, std::size_t size_bytes);

  // Where the object's bytes are, and how many. Of a new item they are what is home. Later calls
  // move or resize the object: what lies beyond its former end is marked, all else only if it was.
  // An object that was erased is logged whole, as by set().
  void attach(std::span<const std::byte> bytes);
  // The next commit, and every later one until clean(), logs these bytes of the object as they are
  // then. No effect for no bytes; beyond the object's end aborts.
  void mark(std::size_t offset, std::size_t length_bytes);
  // The next commit logs that the object is gone.
  void erase();

  // All that was committed is home, written where JournalConfig::flush_home makes it stable, or
  // stable already: later commits log only what is marked from here on. A commit without a mark
  // logs nothing. To be called with Journal::release() (whatever it answers) or by
  // LogItem::release(), not between a mark and its commit.
  // No effect while pinned(), nor while a release() is under way if a commit has crossed with that
  // and is in the log to stay: then the next snapshot holds the old marks too.
  void clean();

  [[nodiscard]] std::uint64_t id() const { return id_; }
  // What the next commit would log of the object's bytes.
  [[nodiscard]] std::size_t dirty_bytes() const;

  // Payload that begin() must allow for to log an object of `size_bytes`, whatever is marked of it.
  [[nodiscard]] static std::size_t log_bytes(std::size_t size_bytes);
  // The same for at most `ranges` ranges of it with `dirty_bytes` in all: those of earlier commits
  // since clean() count too, and what lies between ranges that are logged as one for want of room.
  [[nodiscard]] static std::size_t log_bytes(std::size_t dirty_bytes, std::size_t ranges);

 protected:
  void size(ItemSize& size) const override;
  void format(ItemFormatter& formatter) const override;

 private:
  struct Range {
    std::size_t begin;
    std::size_t end;
  };
  enum class State : std::uint8_t { kNew, kWhole, kRanges, kErased };

  [[nodiscard]] bool is_whole() const;
  void add(Range range);
  void join_nearest();
  void cut_to(std::size_t size_bytes);

  std::uint64_t id_;
  std::span<const std::byte> bytes_;
  State state_ = State::kNew;
  bool dirty_ = true;  // there is something to log
  std::uint32_t range_count_ = 0;
  // Ascending, neither touching nor empty; one more than is kept, for add().
  std::array<Range, kMostRanges + 1> ranges_{};
};

}  // namespace keel

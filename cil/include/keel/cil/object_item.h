// ObjectItem: the ready-made item for a whole object, an id and bytes in the caller's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "keel/cil/log_item.h"

namespace keel {

class RecoveredItem;

// Journals the bytes of one object, whole. Owner: the caller keeps the bytes alive and unchanged
// from Transaction::log() to the end of commit(). Threads: under the caller's object lock.
class ObjectItem : public LogItem {
 public:
  explicit ObjectItem(std::uint64_t id);

  // The object's bytes as the next commit shall log them; no copy is made before commit.
  void set(std::span<const std::byte> bytes);
  void set(const void* data, std::size_t size_bytes);
  // The next commit logs that the object is gone.
  void erase();

  [[nodiscard]] std::uint64_t id() const { return id_; }

  // Payload that begin() must allow for to log an object of `size_bytes`.
  [[nodiscard]] static std::size_t log_bytes(std::size_t size_bytes);

 protected:
  void size(ItemSize& size) const override;
  void format(ItemFormatter& formatter) const override;

 private:
  std::uint64_t id_;
  std::span<const std::byte> bytes_;
  bool erased_ = false;
};

}  // namespace keel

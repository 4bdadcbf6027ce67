#include "keel/cil/object_item.h"

#include "log/format.h"

namespace keel {

ObjectItem::ObjectItem(std::uint64_t id) : LogItem(BuiltIn{format::kTypeObject}), id_(id) {}

void ObjectItem::set(std::span<const std::byte> bytes) {
  bytes_ = bytes;
  erased_ = false;
}

void ObjectItem::set(const void* data, std::size_t size_bytes) {
  set(std::span(static_cast<const std::byte*>(data), size_bytes));
}

void ObjectItem::erase() {
  bytes_ = {};
  erased_ = true;
}

std::size_t ObjectItem::log_bytes(std::size_t size_bytes) {
  return size_bytes + sizeof(format::ObjectHeader);
}

void ObjectItem::size(ItemSize& size) const {
  size.region(sizeof(format::ObjectHeader));
  if (!bytes_.empty()) {
    size.region(bytes_.size());
  }
}

void ObjectItem::format(ItemFormatter& formatter) const {
  const auto operation =
      erased_ ? format::ObjectOperation::kErase : format::ObjectOperation::kWrite;
  const format::ObjectHeader header{id_, bytes_.size(), static_cast<std::uint32_t>(operation), 0};
  formatter.copy(&header, sizeof header);
  if (!bytes_.empty()) {
    formatter.copy(bytes_.data(), bytes_.size());
  }
}

}  // namespace keel

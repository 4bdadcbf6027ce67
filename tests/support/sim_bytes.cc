#include "support/sim_bytes.h"

#include <algorithm>
#include <cstring>

namespace keel {

SimBytes::SimBytes(const SimBytes& other) : size_(other.size_), chunks_(other.chunks_) {
  other.disown();
}

SimBytes& SimBytes::operator=(const SimBytes& other) {
  if (this != &other) {
    *this = SimBytes(other);
  }
  return *this;
}

// Tests before it writes: a snapshot owns nothing, and several threads may copy it.
void SimBytes::disown() const {
  if (!owned_.empty()) {
    owned_.clear();
  }
}

SimBytes::Chunk& SimBytes::writable(std::size_t index) {
  if (owned_.size() <= index) {
    owned_.resize(chunks_.size(), false);
  }
  std::shared_ptr<Chunk>& chunk = chunks_[index];
  if (!owned_[index]) {
    chunk = chunk ? std::make_shared<Chunk>(*chunk) : std::make_shared<Chunk>();
    owned_[index] = true;
  }
  return *chunk;
}

void SimBytes::zero_tail() {
  const std::size_t used = size_ % kChunkBytes;
  if (used != 0 && chunks_.back()) {
    Chunk& last = writable(chunks_.size() - 1);
    std::fill(last.begin() + static_cast<std::ptrdiff_t>(used), last.end(), std::byte{0});
  }
}

void SimBytes::resize(std::uint64_t size) {
  const bool shrinks = size < size_;
  size_ = size;
  chunks_.resize((size + kChunkBytes - 1) / kChunkBytes);
  if (owned_.size() > chunks_.size()) {
    owned_.resize(chunks_.size());
  }
  if (shrinks) {
    zero_tail();
  }
}

void SimBytes::write(std::uint64_t offset, const std::byte* from, std::size_t bytes) {
  if (bytes == 0) {
    return;
  }
  if (offset + bytes > size_) {
    resize(offset + bytes);
  }
  for (std::size_t done = 0; done < bytes;) {
    const std::uint64_t at = offset + done;
    const std::size_t start = at % kChunkBytes;
    const std::size_t part = std::min(bytes - done, kChunkBytes - start);
    std::memcpy(writable(at / kChunkBytes).data() + start, from + done, part);
    done += part;
  }
}

std::size_t SimBytes::read(std::uint64_t offset, std::byte* to, std::size_t bytes) const {
  if (offset >= size_) {
    return 0;
  }
  const std::size_t there = std::min<std::uint64_t>(bytes, size_ - offset);
  for (std::size_t done = 0; done < there;) {
    const std::uint64_t at = offset + done;
    const std::size_t start = at % kChunkBytes;
    const std::size_t part = std::min(there - done, kChunkBytes - start);
    const std::shared_ptr<Chunk>& chunk = chunks_[at / kChunkBytes];
    if (chunk) {
      std::memcpy(to + done, chunk->data() + start, part);
    } else {
      std::memset(to + done, 0, part);
    }
    done += part;
  }
  return there;
}

SimContent SimBytes::flat() const {
  SimContent content(size_);
  read(0, content.data(), content.size());
  return content;
}

}  // namespace keel

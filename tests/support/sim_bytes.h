// The content of a simulated file: bytes in chunks that copies share until one of them is written.
//
// A copy costs one pointer a chunk, so that a snapshot after every I/O and a crash image of a large
// file are cheap. Chunks never written read as zeros and cost nothing.
//
// I1 A chunk is written in place only by the one SimBytes that owns it; copying gives up ownership
//    on both sides. (Reference counts would tell too, but only with an order that shared_ptr does
//    not promise.)
// I2 Bytes of a chunk past the size are zero.
// Threads: as a std container; a SimBytes that nobody has written since it was last copied may be
// copied by several threads at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace keel {

// Flat bytes, as tests handle them.
using SimContent = std::vector<std::byte>;

class SimBytes {
 public:
  SimBytes() = default;
  explicit SimBytes(const SimContent& content) { write(0, content.data(), content.size()); }
  SimBytes(const SimBytes& other);
  SimBytes& operator=(const SimBytes& other);
  SimBytes(SimBytes&&) noexcept = default;
  SimBytes& operator=(SimBytes&&) noexcept = default;
  ~SimBytes() = default;

  [[nodiscard]] std::uint64_t size() const { return size_; }
  // New bytes are zeros.
  void resize(std::uint64_t size);
  // Grows the content if it must; a gap reads as zeros.
  void write(std::uint64_t offset, const std::byte* from, std::size_t bytes);
  // Returns how many bytes there were to read.
  std::size_t read(std::uint64_t offset, std::byte* to, std::size_t bytes) const;
  [[nodiscard]] SimContent flat() const;

 private:
  static constexpr std::size_t kChunkBytes = 16384;
  using Chunk = std::array<std::byte, kChunkBytes>;

  void disown() const;
  Chunk& writable(std::size_t index);
  void zero_tail();

  std::uint64_t size_ = 0;
  std::vector<std::shared_ptr<Chunk>> chunks_;  // null: zeros
  mutable std::vector<bool> owned_;             // by chunk; shorter than chunks_: the rest is not
};

}  // namespace keel

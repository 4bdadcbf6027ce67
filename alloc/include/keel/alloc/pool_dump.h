// What lies in a pool's window, area by area, in the manner of /proc/vmallocinfo.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "keel/base/units.h"

namespace keel {

enum class PoolAreaState : std::uint8_t {
  kMapping,  // a buffer that is being made
  kLive,     // a caller's buffer
  kIdle,     // mapped and kept, ready for the next request of its size
  kLazy,     // given up; its addresses wait for a purge
};
[[nodiscard]] const char* to_string(PoolAreaState state);

struct PoolArea {
  const std::byte* start = nullptr;
  Bytes size{};            // in whole pages, without the guard page behind
  Pages pages{};           // the same
  std::uint64_t runs = 0;  // of neighbouring frames: kernel mappings that it costs
  const char* owner = "";  // who has the buffer, or had it last; not who first mapped it
  PoolAreaState state = PoolAreaState::kLive;
};

class PoolAreaVisitor {
 public:
  virtual ~PoolAreaVisitor() = default;
  virtual void visit(const PoolArea& area) = 0;

 protected:
  PoolAreaVisitor() = default;
  PoolAreaVisitor(const PoolAreaVisitor&) = default;
  PoolAreaVisitor& operator=(const PoolAreaVisitor&) = default;
};

// Writes the area as a line without a newline: addresses, bytes, owner, pages, runs, state. A line
// that is longer than `out` is cut; it always ends with a 0 unless `out` is empty.
// Allocates nothing. Gives the length of what was written.
std::size_t to_line(const PoolArea& area, std::span<char> out);

}  // namespace keel

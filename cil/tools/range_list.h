// RangeList: which bytes of an object are known, gathered over the items that tell some of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace keel::tools {

// Takes memory by how many ranges lie apart, not by how often they were told.
class RangeList {
 public:
  // The object has this size from here on. What it grows by is zeros, and so is known; of what it
  // was before the first call nothing is.
  void resize(std::uint64_t size_bytes);
  void add(std::uint64_t offset, std::uint64_t length_bytes);

  // A line "offset length" for each, ascending, neither touching nor empty nor beyond the object.
  [[nodiscard]] std::string text();

 private:
  struct Range {
    std::uint64_t begin;
    std::uint64_t end;
  };
  void join();

  // In any order. What was beyond an end that the object had for a while needs no care: if the
  // object has grown over it again, that is a range of its own.
  std::vector<Range> ranges_;
  std::size_t join_at_ = 1024;
  std::optional<std::uint64_t> size_bytes_;
};

}  // namespace keel::tools

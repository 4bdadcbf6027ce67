// RawReader: the limit that recovery's rate is held against. Reads a range of a file from end to
// end with O_DIRECT, in blocks, and looks at nothing.
//
// It stands outside keel on purpose, as RawWriter does: plain system calls.
//
// Depth d is d threads with one read each in flight, each with one block of memory of its own that
// it reads into again and again: in huge pages, where the kernel gives them, as reads are fastest
// so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "keel/base/result.h"

namespace keel::bench {

struct RawReaderConfig {
  std::size_t block_bytes = std::size_t{4} << 20;
  unsigned depth = 1;
  std::uint64_t offset = 0;  // of the range
  std::uint64_t bytes = 0;
};

class RawReader {
 public:
  // Units: offset, bytes and block_bytes are multiples of 4096.
  [[nodiscard]] static Result<std::unique_ptr<RawReader>> open(const std::string& path,
                                                               const RawReaderConfig& config);
  ~RawReader();
  RawReader(const RawReader&) = delete;
  RawReader& operator=(const RawReader&) = delete;

  // Reads the range once; gives the seconds.
  [[nodiscard]] Result<double> read_once();

 private:
  RawReader(int fd, const RawReaderConfig& config, std::byte* memory);

  const int fd_;
  const RawReaderConfig config_;
  std::byte* const memory_;
};

}  // namespace keel::bench

// WriteProgress: what is left of one write, and what an answer of the kernel makes of it.
//
// One place for the rule, whichever way a write reaches the kernel:
// I1 A short write is finished once: its count hides an error in what is missing, and writing the
//    rest brings it out. A second short answer, or one within a unit of direct I/O, is an error.
// I2 An interrupted call has moved nothing; it is made again as it was.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "keel/base/result.h"

namespace keel {

class WriteProgress {
 public:
  // One system call writes at most this many parts (IOV_MAX).
  static constexpr int kMaxParts = 1024;

  WriteProgress() = default;  // of nothing: done
  // Owner: the parts stay the caller's until done() or an error; they are changed on the way.
  WriteProgress(std::uint64_t offset, struct iovec* parts, int count)
      : offset_(offset), parts_(parts), left_(count) {}

  [[nodiscard]] bool done() const { return left_ == 0; }
  // The next call: these parts, to this offset.
  [[nodiscard]] std::uint64_t offset() const { return offset_; }
  [[nodiscard]] const struct iovec* parts() const { return parts_; }
  [[nodiscard]] int count() const { return left_ < kMaxParts ? left_ : kMaxParts; }

  // Takes what that call returned: bytes moved or a negative errno. `alignment` in bytes.
  // Errors: kIo, and what the errno stands for.
  [[nodiscard]] Status advance(ssize_t result, std::uint32_t alignment);

 private:
  void consume(std::size_t bytes);

  std::uint64_t offset_ = 0;
  struct iovec* parts_ = nullptr;
  int left_ = 0;
  bool was_short_ = false;
};

}  // namespace keel

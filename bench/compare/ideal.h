// ideal: what the hardware allows a log, as a toy. A file that was written before, O_DIRECT, XXH3,
// and nothing else: no recovery, no tail, no memory bound. The journal is held against it.
//
//   durable   leader group commit, one group write in flight (ideal_durable.cc)
//   async     commits copy into large buffers, which one thread writes (ideal_async.cc)
//   hot set   objects merged by hand in a table (ideal_hot_set.cc)
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "compare/engines.h"

namespace keel::bench {

inline constexpr std::size_t kBlockBytes = 4096;

constexpr std::size_t whole_blocks(std::size_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

// What stands before each record.
struct RecordHead {
  std::uint64_t hash = 0;
  std::uint64_t key = 0;
};

[[nodiscard]] std::uint64_t hash_of(const void* data, std::size_t bytes);

// Touched memory for direct I/O. Aborts if there is none.
class IoBuffer {
 public:
  explicit IoBuffer(std::size_t bytes);
  ~IoBuffer();
  IoBuffer(const IoBuffer&) = delete;
  IoBuffer& operator=(const IoBuffer&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  std::byte* data_;
};

// A file of `bytes` bytes, written once whole, then over and over. Threads: one write at a time.
class IdealRing {
 public:
  [[nodiscard]] static Result<std::unique_ptr<IdealRing>> create(const std::string& dir,
                                                                 std::uint64_t bytes);
  ~IdealRing();
  IdealRing(const IdealRing&) = delete;
  IdealRing& operator=(const IdealRing&) = delete;

  // `bytes` is whole blocks. `durable`: stable when it returns.
  [[nodiscard]] Status write(const std::byte* data, std::size_t bytes, bool durable);
  [[nodiscard]] Status flush();

 private:
  IdealRing(int fd, std::uint64_t bytes) : fd_(fd), bytes_(bytes) {}

  const int fd_;
  const std::uint64_t bytes_;
  std::uint64_t next_ = 0;
};

// Sleeps while *word is `value`; wakes all, or one, that sleep on it.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
inline void futex_wake(std::atomic<std::uint32_t>& word, int count) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

[[nodiscard]] EngineResult open_ideal_durable(const EngineConfig& config,
                                              std::unique_ptr<IdealRing> ring);
[[nodiscard]] EngineResult open_ideal_async(const EngineConfig& config,
                                            std::unique_ptr<IdealRing> ring);
[[nodiscard]] EngineResult open_ideal_hot_set(const EngineConfig& config,
                                              std::unique_ptr<IdealRing> ring);

}  // namespace keel::bench

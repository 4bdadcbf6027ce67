// WriteQueue: the writes of one checkpoint that are under way, each under a number of its own.
//
// I1 A slot is idle or under way. Under way, its parts and their bytes are the queue's; wait()
//    makes it idle, whatever comes of the write, and never before the kernel is done with them.
// I2 Every failure is latched in the device: at start, at completion, and of the ring itself. After
//    it nothing new is started; what is under way is still waited for.
// I3 start(), wait() and wait_all() allocate nothing.
// I4 What is short is finished by WriteProgress, as in LogDevice::write(). A write that the kernel
//    could not take for want of memory has not been tried: it is made by pwritev2 instead.
//
// Threads: one at a time; who started a write lives until it was waited for. system_calls(): any.
// Locks: none of its own; the device's latch.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "keel/base/metadata_object.h"
#include "keel/base/os.h"
#include "keel/base/result.h"
#include "keel/cil/io_mode.h"
#include "log/log_device.h"
#include "log/write_progress.h"

namespace keel {

class WriteQueue : public MetadataObject {
 public:
  static constexpr unsigned kMaxDepth = 256;
  static constexpr std::size_t kMaxStaging = 8;

  // For writes to `device`, at most `depth` at a time. `staging`: memory that many writes come
  // from, registered with the kernel if it allows that; any other memory may be written too.
  // Owner: device and staging outlive the queue.
  // Errors: kInvalidArgument (depth 0 or above kMaxDepth, more than kMaxStaging pieces), kNoMemory,
  // kForked; kUnsupported or kPermission (kUring: no io_uring here).
  [[nodiscard]] static Result<std::unique_ptr<WriteQueue>> make(
      LogDevice& device, IoMode mode, std::span<const struct iovec> staging, unsigned depth);

  // Waits for what is under way. In a forked child it lets go of what was inherited.
  ~WriteQueue();
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  // Starts writing the parts at byte `offset`, under the number `slot` < depth, which must be idle.
  // The parts and their bytes stay untouched by the caller until wait(slot); they are changed on
  // the way. kSync: the write is made here. After an error the slot is idle.
  // Errors: what the device latched; kForked.
  [[nodiscard]] Status start(unsigned slot, std::uint64_t offset, struct iovec* parts, int count);
  // Waits until that write, if there is one, is complete. Blocks. Errors: as start(), also for what
  // failed under another number.
  [[nodiscard]] Status wait(unsigned slot);
  // As wait(), for every slot.
  [[nodiscard]] Status wait_all();

  [[nodiscard]] IoMode mode() const { return ring_ == nullptr ? IoMode::kSync : IoMode::kUring; }
  // True if single parts out of staging are written without the kernel looking up their pages.
  [[nodiscard]] bool staging_is_registered() const { return staging_count_ > 0; }
  // Made so far, by start() and wait().
  [[nodiscard]] std::uint64_t system_calls() const {
    return system_calls_.load(std::memory_order_relaxed);  // a count, orders nothing
  }

 private:
  struct Slot {
    WriteProgress progress;
    bool under_way = false;  // in the kernel
  };

  WriteQueue(LogDevice& device, unsigned depth) : device_(device), depth_(depth) {}

  [[nodiscard]] Status open_ring(std::span<const struct iovec> staging);
  [[nodiscard]] Status check_owner() const;
  [[nodiscard]] Status submit(unsigned slot);
  [[nodiscard]] Status write_here(WriteProgress& progress);
  [[nodiscard]] int staging_of(const WriteProgress& progress) const;
  void take_completion();
  [[nodiscard]] RingDone next_completion();
  void count_call() { system_calls_.fetch_add(1, std::memory_order_relaxed); }

  LogDevice& device_;
  const unsigned depth_;
  OsRing* ring_ = nullptr;  // nullptr: kSync
  unsigned under_way_ = 0;
  std::array<struct iovec, kMaxStaging> staging_{};  // registered pieces
  std::size_t staging_count_ = 0;
  std::atomic<std::uint64_t> system_calls_{0};
  std::array<Slot, kMaxDepth> slots_{};
};

}  // namespace keel

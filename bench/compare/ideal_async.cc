// The ideal log, async: commits take room in an open buffer with one atomic addition and copy into
// it; a thread hashes and writes full buffers, in order. A force seals the open one and flushes.
//
// I1 One commit finds that a buffer's room ends within it: that one opens the next buffer. A
//    buffer's `taken` is past its end from then on until it is opened again, so a commit that comes
//    late with an old pointer sees it full, or open again and rightly its own.
// I2 A buffer is written when the bytes copied into it are those taken.

#include <array>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "compare/ideal.h"

namespace keel::bench {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{4} << 20;
constexpr std::size_t kBuffers = 6;

struct alignas(128) Buffer {
  Buffer() : bytes(kBufferBytes) {}
  std::atomic<std::uint64_t> taken{kBufferBytes + 1};
  alignas(128) std::atomic<std::uint64_t> copied{0};
  std::uint64_t end = 0;  // once sealed
  IoBuffer bytes;
};

class IdealAsync : public Engine {
 public:
  IdealAsync(const EngineConfig& config, std::unique_ptr<IdealRing> ring)
      : object_bytes_(config.object_bytes), ring_(std::move(ring)) {
    buffers_[0].taken.store(0, std::memory_order_relaxed);
    writer_ = std::thread([this] { write_buffers(); });
  }
  ~IdealAsync() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    writer_.join();
  }

  Status commit(unsigned, std::uint64_t key, const std::byte* bytes) override {
    const std::uint64_t need = sizeof(RecordHead) + object_bytes_;
    for (;;) {
      const std::uint64_t number = open_.load(std::memory_order_acquire);
      Buffer& buffer = buffers_[number % kBuffers];
      // Relaxed: what is taken is nobody else's; the buffer was handed over by open_.
      const std::uint64_t at = buffer.taken.fetch_add(need, std::memory_order_relaxed);
      if (at + need <= kBufferBytes) {
        std::byte* place = buffer.bytes.data() + at;
        const RecordHead head{0, key};
        __builtin_memcpy(place, &head, sizeof head);
        __builtin_memcpy(place + sizeof head, bytes, object_bytes_);
        buffer.copied.fetch_add(need, std::memory_order_release);  // pairs with is_copied()
        return {};
      }
      if (at <= kBufferBytes) {
        seal(buffer, at);
      } else {
        wait_for_next(number);
      }
    }
  }

  Status force() override {
    const std::uint64_t number = open_.load(std::memory_order_acquire);
    Buffer& buffer = buffers_[number % kBuffers];
    const std::uint64_t at = buffer.taken.fetch_add(kBufferBytes + 1, std::memory_order_relaxed);
    if (at <= kBufferBytes) {
      seal(buffer, at);
    }
    std::unique_lock lock(mutex_);
    const std::uint64_t target = sealed_;
    changed_.wait(lock, [&] { return written_ >= target || !status_.ok(); });
    const Status status = status_;
    lock.unlock();
    return status.ok() ? ring_->flush() : status;
  }
  Status close() override { return force(); }

 private:
  // Hands the open buffer to the writer and opens the next, when that is free.
  void seal(Buffer& buffer, std::uint64_t end) {
    std::unique_lock lock(mutex_);
    buffer.end = end;
    ++sealed_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return sealed_ - written_ < kBuffers || !status_.ok(); });
    Buffer& next = buffers_[sealed_ % kBuffers];
    next.copied.store(0, std::memory_order_relaxed);
    next.taken.store(0, std::memory_order_relaxed);
    open_.store(sealed_, std::memory_order_release);  // pairs with commit()
    changed_.notify_all();
  }
  void wait_for_next(std::uint64_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_.load(std::memory_order_relaxed) != number; });
  }

  void write_buffers() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || sealed_ > written_; });
      if (sealed_ == written_) {
        return;
      }
      Buffer& buffer = buffers_[written_ % kBuffers];
      lock.unlock();
      const Status status = write(buffer);
      lock.lock();
      status_ = status_.ok() ? status : status_;
      ++written_;
      changed_.notify_all();
    }
  }
  Status write(Buffer& buffer) {
    while (buffer.copied.load(std::memory_order_acquire) != buffer.end) {
      std::this_thread::yield();  // the last copies into it are under way
    }
    if (buffer.end == 0) {
      return {};
    }
    const RecordHead sealed{hash_of(buffer.bytes.data(), buffer.end), buffer.end};
    __builtin_memcpy(buffer.bytes.data(), &sealed, sizeof sealed);
    return ring_->write(buffer.bytes.data(), whole_blocks(buffer.end), false);
  }

  const std::size_t object_bytes_;
  const std::unique_ptr<IdealRing> ring_;
  std::array<Buffer, kBuffers> buffers_;
  alignas(128) std::atomic<std::uint64_t> open_{0};  // number of the open buffer
  alignas(128) std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t sealed_ = 0;  // buffers, ever
  std::uint64_t written_ = 0;
  Status status_;
  bool stopping_ = false;
  std::thread writer_;
};

}  // namespace

EngineResult open_ideal_async(const EngineConfig& config, std::unique_ptr<IdealRing> ring) {
  if (sizeof(RecordHead) + config.object_bytes > kBufferBytes) {
    return Error{Errc::kTooLarge, 0, "an object larger than the ideal log's buffers", kBufferBytes};
  }
  return std::unique_ptr<Engine>(new IdealAsync(config, std::move(ring)));
}

}  // namespace keel::bench

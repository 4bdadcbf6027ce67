// FaultOs: the real system, with counted calls and one of them (or all from one on) made to fail.
//
// Typical use: learn how many calls an act makes, then let it fail at each of them in turn: for
// (std::uint64_t n = 1;; ++n) { os.fail_nth(n); act(); if (!os.fired()) break; check(); } Calls
// that cannot fail for lack of resources (munmap, close, sleep, clocks) are counted, never failed.
// Threads: any may call it as the Os; arm it from one.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>

#include "keel/base/os.h"

namespace keel_test {

enum class OsCall : unsigned {
  kMmap,
  kMremap,
  kMprotect,
  kMadvise,
  kMlock,
  kIoFlusher,
  kMemfdCreate,
  kOpen,
  kFtruncate,
  kFallocate,
  kRead,
  kRingCreate,
  kRingSubmit,
  kMetadata,
  kMunmap,
  kClose,
  kSleep,
  kClock,
  kCount
};

using OsCallMask = unsigned;
constexpr OsCallMask mask_of(OsCall call) { return 1U << static_cast<unsigned>(call); }
inline constexpr OsCallMask kAllThatCanFail = mask_of(OsCall::kMunmap) - 1;

class FaultOs : public keel::Os {
 public:
  // The n-th call from now (1 is the next) among those in `mask` fails with `error`; 0: none.
  void fail_nth(std::uint64_t n, OsCallMask mask = kAllThatCanFail, int error = ENOMEM) {
    arm(n, mask, error, false);
  }
  // That one and all after it.
  void fail_from(std::uint64_t n, OsCallMask mask = kAllThatCanFail, int error = ENOMEM) {
    arm(n, mask, error, true);
  }
  void disarm() { nth_ = 0; }
  // True if a call was made to fail since it was armed last.
  [[nodiscard]] bool fired() const { return fired_.load(); }

  [[nodiscard]] std::uint64_t calls(OsCall call) const {
    return calls_[static_cast<unsigned>(call)].load();
  }
  [[nodiscard]] std::uint64_t all_calls() const {
    std::uint64_t sum = 0;
    for (const auto& count : calls_) {
      sum += count.load();
    }
    return sum;
  }

  // What keel holds of the system through this Os, to see leaks.
  [[nodiscard]] std::int64_t metadata_held() const { return metadata_held_.load(); }
  [[nodiscard]] std::int64_t files_held() const { return files_held_.load(); }
  [[nodiscard]] std::int64_t reservations_held() const { return reservations_held_.load(); }
  [[nodiscard]] bool holds_nothing() const {
    return metadata_held() == 0 && files_held() == 0 && reservations_held() == 0 &&
           rings_held_.load() == 0;
  }

  // Sleeps return at once and move the monotonic clock instead; `on_sleep` is called in each.
  void use_virtual_time(std::function<void()> on_sleep = {}) {
    on_sleep_ = std::move(on_sleep);
    virtual_time_ = true;
  }

  // Mappings at a given address, and advice, are counted and not made: for tests of bookkeeping
  // that would spend their time in the kernel.
  void simulate_mappings() { simulated_ = true; }

  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    if (const int error = enter(OsCall::kMmap)) return -error;
    if (simulated_ && address != nullptr) return 0;
    const int result = Os::mmap(address, bytes, protection, flags, fd, offset, out);
    if (result == 0 && address == nullptr) ++reservations_held_;
    return result;
  }
  int munmap(void* address, std::size_t bytes) override {
    (void)enter(OsCall::kMunmap);
    --reservations_held_;
    return Os::munmap(address, bytes);
  }
  int mremap(void* old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
             void* new_address, void** out) override {
    if (const int error = enter(OsCall::kMremap)) return -error;
    if (simulated_) return 0;
    return Os::mremap(old_address, old_bytes, new_bytes, flags, new_address, out);
  }
  int mprotect(void* address, std::size_t bytes, int protection) override {
    if (const int error = enter(OsCall::kMprotect)) return -error;
    return Os::mprotect(address, bytes, protection);
  }
  int madvise(void* address, std::size_t bytes, int advice) override {
    if (const int error = enter(OsCall::kMadvise)) return -error;
    if (simulated_) return 0;
    return Os::madvise(address, bytes, advice);
  }
  int mlock(const void* address, std::size_t bytes) override {
    if (const int error = enter(OsCall::kMlock)) return -error;
    return Os::mlock(address, bytes);
  }
  int mlockall(int flags) override {
    if (const int error = enter(OsCall::kMlock)) return -error;
    return Os::mlockall(flags);
  }
  int set_io_flusher() override {
    if (const int error = enter(OsCall::kIoFlusher)) return -error;
    return Os::set_io_flusher();
  }
  int memfd_create(const char* name, unsigned flags) override {
    if (const int error = enter(OsCall::kMemfdCreate)) return -error;
    return opened(Os::memfd_create(name, flags));
  }
  int open(const char* path, int flags, mode_t mode) override {
    if (const int error = enter(OsCall::kOpen)) return -error;
    return opened(Os::open(path, flags, mode));
  }
  int close(int fd) override {
    (void)enter(OsCall::kClose);
    --files_held_;
    return Os::close(fd);
  }
  int ftruncate(int fd, std::uint64_t bytes) override {
    if (const int error = enter(OsCall::kFtruncate)) return -error;
    return Os::ftruncate(fd, bytes);
  }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) override {
    if (const int error = enter(OsCall::kFallocate)) return -error;
    return Os::fallocate(fd, mode, offset, bytes);
  }
  ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                  int flags) override {
    if (const int error = enter(OsCall::kRead)) return -error;
    return Os::preadv2(fd, parts, count, offset, flags);
  }
  int ring_create(int fd, const struct iovec* buffers, int buffer_count, unsigned entries,
                  keel::OsRing** out) override {
    if (const int error = enter(OsCall::kRingCreate)) return -error;
    const int result = Os::ring_create(fd, buffers, buffer_count, entries, out);
    if (result >= 0) ++rings_held_;
    return result;
  }
  int ring_submit(keel::OsRing* ring, const keel::RingWrite& write) override {
    if (const int error = enter(OsCall::kRingSubmit)) return -error;
    return Os::ring_submit(ring, write);
  }
  void ring_destroy(keel::OsRing* ring, bool inherited) override {
    --rings_held_;
    Os::ring_destroy(ring, inherited);
  }
  std::uint64_t monotonic_ns() override {
    (void)enter(OsCall::kClock);
    return virtual_time_ ? virtual_now_ns_.load() : Os::monotonic_ns();
  }
  void sleep_ns(std::uint64_t duration_ns) override {
    (void)enter(OsCall::kSleep);
    if (!virtual_time_) {
      Os::sleep_ns(duration_ns);
      return;
    }
    virtual_now_ns_ += duration_ns;
    if (on_sleep_) on_sleep_();
  }
  void* metadata_allocate(std::size_t bytes) override {
    if (enter(OsCall::kMetadata) != 0) return nullptr;
    void* address = Os::metadata_allocate(bytes);
    if (address != nullptr) ++metadata_held_;
    return address;
  }
  void metadata_free(void* address) override {
    if (address != nullptr) --metadata_held_;
    Os::metadata_free(address);
  }

 private:
  void arm(std::uint64_t n, OsCallMask mask, int error, bool persistent) {
    mask_ = mask;
    error_ = error;
    persistent_ = persistent;
    fired_ = false;
    armed_calls_ = 0;
    nth_ = n;
  }
  // Counts the call; the error that it shall fail with, or 0.
  int enter(OsCall call) {
    ++calls_[static_cast<unsigned>(call)];
    const std::uint64_t nth = nth_.load();
    if (nth == 0 || (mask_.load() & kAllThatCanFail & mask_of(call)) == 0) return 0;
    const std::uint64_t count = ++armed_calls_;
    if (count < nth || (count > nth && !persistent_.load())) return 0;
    fired_ = true;
    return error_.load();
  }
  int opened(int fd) {
    if (fd >= 0) ++files_held_;
    return fd;
  }

  std::array<std::atomic<std::uint64_t>, static_cast<unsigned>(OsCall::kCount)> calls_{};
  std::atomic<std::uint64_t> nth_{0};
  std::atomic<std::uint64_t> armed_calls_{0};
  std::atomic<OsCallMask> mask_{0};
  std::atomic<int> error_{0};
  std::atomic<bool> persistent_{false};
  std::atomic<bool> fired_{false};
  std::atomic<std::int64_t> metadata_held_{0};
  std::atomic<std::int64_t> files_held_{0};
  std::atomic<std::int64_t> reservations_held_{0};
  std::atomic<std::int64_t> rings_held_{0};
  std::atomic<bool> simulated_{false};
  std::atomic<bool> virtual_time_{false};
  std::atomic<std::uint64_t> virtual_now_ns_{1};
  std::function<void()> on_sleep_;
};

}  // namespace keel_test

// ExtentMemory: a source of slabs over memory of its own, that knows its runs and can refuse.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <vector>

#include "extent_source.h"
#include "keel/base/check.h"

namespace keel_test {

class ExtentMemory final : public keel::ExtentSource {
 public:
  explicit ExtentMemory(keel::Pages capacity) : used_(capacity.value(), 0) {
    void* mapped = ::mmap(nullptr, keel::bytes_of(capacity), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    KEEL_CHECK(mapped != MAP_FAILED, "mmap of a test's frames");
    base_ = static_cast<std::byte*>(mapped);
  }
  ~ExtentMemory() { (void)::munmap(base_, used_.size() * keel::kPageBytes); }

  [[nodiscard]] const std::byte* base() const { return base_; }
  [[nodiscard]] keel::Pages capacity() const { return keel::Pages(used_.size()); }

  // The n-th request from now is refused (1 is the next), or that and all after it; 0: none.
  void refuse_nth(std::uint64_t n, bool and_later = false) {
    std::lock_guard<std::mutex> lock(mutex_);
    nth_ = n;
    and_later_ = and_later;
    armed_calls_ = 0;
    refused_ = 0;
  }
  [[nodiscard]] std::uint64_t refused() const { return locked(refused_); }
  // Called at the start of each request, without any lock of this.
  void on_allocate(std::function<void()> call) { on_allocate_ = std::move(call); }

  // Requests that got nothing, for whatever reason.
  [[nodiscard]] std::uint64_t failures() const { return locked(failures_); }
  [[nodiscard]] std::uint64_t held() const { return locked(held_); }
  [[nodiscard]] std::uint64_t longest() const { return locked(longest_); }
  [[nodiscard]] std::uint64_t calls() const { return locked(calls_); }

  void* allocate(keel::Pages pages) override {
    if (on_allocate_) on_allocate_();
    std::lock_guard<std::mutex> lock(mutex_);
    ++calls_;
    ++armed_calls_;
    if (nth_ != 0 && (armed_calls_ == nth_ || (and_later_ && armed_calls_ > nth_))) {
      ++refused_;
      ++failures_;
      return nullptr;
    }
    const std::size_t count = pages.value();
    longest_ = std::max<std::uint64_t>(longest_, count);
    for (std::size_t at = next_, tried = 0; tried < used_.size(); ++tried, ++at) {
      at = at + count > used_.size() ? 0 : at;
      if (is_free(at, count)) {
        take(at, count);
        return base_ + at * keel::kPageBytes;
      }
    }
    ++failures_;
    return nullptr;
  }

  void free(void* run, keel::Pages pages) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto at =
        static_cast<std::size_t>(static_cast<std::byte*>(run) - base_) / keel::kPageBytes;
    KEEL_CHECK(used_[at] == pages.value(), "not a run that was given", at, used_[at]);
    // Whoever uses it now, and no longer may, shows.
    std::memset(run, 0xDD, keel::bytes_of(pages));
    for (std::size_t i = 0; i < pages.value(); ++i) {
      used_[at + i] = 0;
    }
    held_ -= pages.value();
  }

 private:
  static constexpr std::uint8_t kBody = 0xFF;

  std::uint64_t locked(const std::uint64_t& value) const {
    std::lock_guard<std::mutex> lock(mutex_);
    return value;
  }
  [[nodiscard]] bool is_free(std::size_t at, std::size_t count) const {
    for (std::size_t i = at; i < at + count; ++i) {
      if (i >= used_.size() || used_[i] != 0) return false;
    }
    return true;
  }
  void take(std::size_t at, std::size_t count) {
    used_[at] = static_cast<std::uint8_t>(count);
    for (std::size_t i = 1; i < count; ++i) {
      used_[at + i] = kBody;
    }
    held_ += count;
    next_ = at + count;
  }

  std::function<void()> on_allocate_;
  mutable std::mutex mutex_;
  std::byte* base_ = nullptr;
  std::vector<std::uint8_t> used_;  // of a frame: 0, length of the run that begins there, or kBody
  std::size_t next_ = 0;
  std::uint64_t held_ = 0;
  std::uint64_t longest_ = 0;
  std::uint64_t calls_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t nth_ = 0;
  std::uint64_t armed_calls_ = 0;
  std::uint64_t refused_ = 0;
  bool and_later_ = false;
};

}  // namespace keel_test

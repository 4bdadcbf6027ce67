// A BufferCache under test and where each of its buffers is: with a caller or in the cache.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "buffer_cache.h"

namespace keel_test {

// Buffers are numbers, each of one class for ever. What is evicted is a caller's again.
class CacheBoard final : public keel::Evictor {
 public:
  explicit CacheBoard(unsigned buffers) : cached_(buffers) {}

  // The class of a buffer, among `classes`.
  static unsigned class_of(std::uint32_t buffer) { return kClasses[buffer % kClasses.size()]; }
  static constexpr std::array<unsigned, 6> kClasses{0, 3, 15, 31, 47, 63};

  // A caller puts it in.
  void put(keel::BufferCache& cache, std::uint32_t buffer) {
    note_in(buffer);
    if (!cache.push(class_of(buffer), buffer)) {
      cache.overflow(class_of(buffer), buffer);
    }
  }
  // A caller wants one of the class.
  std::uint32_t take(keel::BufferCache& cache, unsigned of) {
    std::uint32_t buffer = cache.pop(of);
    if (buffer == keel::CpuStacks::kNone) {
      buffer = cache.refill(keel::Pages(keel::pages_of_class(of)));
    }
    if (buffer != keel::CpuStacks::kNone) {
      wrong += class_of(buffer) != of ? 1 : 0;
      note_out(buffer);
    }
    return buffer;
  }

  void evict(std::span<const keel::Pfn> buffers) override {
    const std::lock_guard lock(mutex_);
    for (const keel::Pfn buffer : buffers) {
      note_out(static_cast<std::uint32_t>(buffer.value()));
      evicted_.push_back(static_cast<std::uint32_t>(buffer.value()));
      evicted_pages += keel::pages_of_class(class_of(static_cast<std::uint32_t>(buffer.value())));
    }
  }
  void note_returned() override { ++returned; }
  [[nodiscard]] keel::Tier tier_of(keel::Pfn buffer) const override {
    return buffer.value() % 3 == 0 ? keel::Tier::kMapped : keel::Tier::kContiguous;
  }

  [[nodiscard]] keel::Pages pages_of(keel::Pfn buffer) const override {
    return keel::Pages(keel::pages_of_class(class_of(static_cast<std::uint32_t>(buffer.value()))));
  }

  // What was evicted since the last call.
  std::vector<std::uint32_t> take_evicted() {
    const std::lock_guard lock(mutex_);
    return std::exchange(evicted_, {});
  }

  // The cache has exactly what was put in and not taken out, and says so.
  void audit(keel::BufferCache& cache) {
    std::vector<bool> found(cached_.size());
    std::uint64_t pages = 0;
    cache.for_each([&](unsigned of, keel::Pfn buffer) {
      REQUIRE(class_of(static_cast<std::uint32_t>(buffer.value())) == of);
      REQUIRE(!found[buffer.value()]);
      found[buffer.value()] = true;
      pages += keel::pages_of_class(of);
    });
    for (std::size_t i = 0; i < found.size(); ++i) {
      REQUIRE(found[i] == cached_[i].load());
    }
    REQUIRE(cache.idle_pages() == keel::Pages(pages));
    REQUIRE(wrong == 0);
  }

  std::atomic<unsigned> wrong{0};  // put in twice, or taken out twice
  std::uint64_t evicted_pages = 0;
  std::atomic<unsigned> returned{0};  // how often the cache said so

 private:
  void note_in(std::uint32_t buffer) { wrong += cached_[buffer].exchange(true) ? 1 : 0; }
  void note_out(std::uint32_t buffer) { wrong += cached_[buffer].exchange(false) ? 0 : 1; }

  std::vector<std::atomic<bool>> cached_;
  std::mutex mutex_;
  std::vector<std::uint32_t> evicted_;
};

}  // namespace keel_test

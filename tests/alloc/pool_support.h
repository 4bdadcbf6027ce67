// What tests of whole pools share.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "keel/alloc/pool.h"
#include "support/gate.h"

namespace keel_test {

inline constexpr std::size_t kMiB = std::size_t{1} << 20;
inline constexpr std::size_t kPage = 4096;

// Without the pool's thread, whose work would be counted among what a test looks at.
inline std::unique_ptr<keel::Pool> make_pool(keel::PoolConfig config) {
  config.background = false;
  auto pool = keel::Pool::create(config);
  REQUIRE(pool.ok());
  return std::move(*pool);
}

// What nobody frees is seen for a minute; the pool's thread has idle buffers in its hands, and so
// in no count, for a moment only.
[[nodiscard]] inline bool all_is_free(const keel::Pool& pool) {
  return soon([&] { return pool.stats().live == keel::Bytes(0); });
}

// Keeps what the message hook gets while it lives.
class Messages {
 public:
  Messages() : before_(keel::set_message_hook(keep)) { lines().clear(); }
  ~Messages() { keel::set_message_hook(before_); }
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  static std::vector<std::string>& lines() {
    static std::vector<std::string> kept;
    return kept;
  }

 private:
  static void keep(const char* line) { lines().emplace_back(line); }
  keel::MessageHook before_;
};

inline bool all_bytes_are(const void* buffer, std::size_t bytes, unsigned char value) {
  const auto* at = static_cast<const unsigned char*>(buffer);
  return std::all_of(at, at + bytes, [value](unsigned char byte) { return byte == value; });
}

// Allocates buffers of `size` until there are no more.
inline std::vector<void*> fill(keel::Pool& pool, std::size_t size, const char* owner = "fill") {
  std::vector<void*> buffers;
  while (void* buffer = pool.kvmalloc(size, keel::AllocFlags::kNoWarn, owner)) {
    buffers.push_back(buffer);
  }
  std::sort(buffers.begin(), buffers.end());
  return buffers;
}

inline void free_all(keel::Pool& pool, std::vector<void*>& buffers) {
  for (void* buffer : buffers) {
    pool.kvfree(buffer);
  }
  buffers.clear();
}

// Frees every second buffer, beginning with the first, and keeps the others in `buffers`.
inline void free_every_second(keel::Pool& pool, std::vector<void*>& buffers) {
  std::vector<void*> kept;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    i % 2 == 0 ? pool.kvfree(buffers[i]) : kept.push_back(buffers[i]);
  }
  buffers = kept;
}

// Takes the whole pool in single pages and frees every second one: no two free ones are neighbours.
inline std::vector<void*> fragment(keel::Pool& pool) {
  auto pages = fill(pool, kPage, "fragment");
  free_every_second(pool, pages);
  return pages;
}

// What memory there is adds up.
inline void check_adds_up(const keel::PoolStats& stats) {
  CHECK(stats.live + stats.cached + stats.quarantined + stats.free == stats.populated);
  CHECK(stats.populated <= stats.capacity);
}

// A shrinker made of a function that gives what it freed; 0 and no call once `left` is 0.
class FunctionShrinker final : public keel::Shrinker {
 public:
  explicit FunctionShrinker(std::function<keel::Bytes(keel::Bytes)> scan, std::size_t left = kMiB)
      : scan_(std::move(scan)), left_(left) {}
  [[nodiscard]] const char* name() const override { return "test"; }
  [[nodiscard]] keel::Bytes count() const override { return keel::Bytes(left_); }
  keel::Bytes scan(keel::Bytes wanted) override {
    ++calls;
    return scan_(wanted);
  }
  unsigned calls = 0;

 private:
  std::function<keel::Bytes(keel::Bytes)> scan_;
  std::size_t left_;
};

}  // namespace keel_test

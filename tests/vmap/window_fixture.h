// A populated store of 1 MiB whose frames hold their number, and a window on it.
#pragma once

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <vector>

#include "keel/vmap/frame_store.h"
#include "keel/vmap/window.h"

namespace keel_test {

inline constexpr std::uint64_t kFrames = 256;

struct WindowFixture {
  explicit WindowFixture(keel::WindowConfig config = {.bytes = 1U << 20},
                         keel::FrameStoreConfig store_config = {}) {
    store_config.capacity_bytes = kFrames * keel::kPageBytes;
    store_config.chunk_bytes = kFrames * keel::kPageBytes;
    auto made_store = keel::FrameStore::create(store_config);
    REQUIRE(made_store.ok());
    store = std::move(*made_store);
    REQUIRE(store->grow().ok());
    for (std::uint64_t i = 0; i < kFrames; ++i) {
      std::memcpy(store->address_of(keel::Pfn(i)), &i, sizeof i);
    }
    auto made_window = keel::Window::create(*store, config);
    REQUIRE(made_window.ok());
    window = std::move(*made_window);
  }

  std::byte* map(const std::vector<keel::Pfn>& frames, const keel::MapOptions& options = {}) {
    auto mapped = window->map(frames, options);
    REQUIRE(mapped.ok());
    return static_cast<std::byte*>(*mapped);
  }

  std::unique_ptr<keel::FrameStore> store;
  std::unique_ptr<keel::Window> window;
};

inline std::vector<keel::Pfn> run_of(std::uint64_t first, std::uint64_t count) {
  std::vector<keel::Pfn> frames;
  for (std::uint64_t i = 0; i < count; ++i) {
    frames.emplace_back(first + i);
  }
  return frames;
}

// `count` frames, no two of them neighbours in the store.
inline std::vector<keel::Pfn> scattered(std::uint64_t count) {
  std::vector<keel::Pfn> frames;
  for (std::uint64_t i = 0; i < count; ++i) {
    frames.emplace_back(2 * i % kFrames);
  }
  return frames;
}

inline std::uint64_t number_at(const std::byte* page) {
  std::uint64_t number = 0;
  std::memcpy(&number, page, sizeof number);
  return number;
}

// True if a read of `address` in a child process ends in SIGSEGV.
inline bool faults_in_child(const void* address) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGSEGV, SIG_DFL);
    const volatile char value = *static_cast<const volatile char*>(address);
    (void)value;
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

// What of a window must not change when a call fails.
struct WindowSnapshot {
  explicit WindowSnapshot(const keel::Window& window) : stats(window.stats()) {}
  bool operator==(const WindowSnapshot& other) const {
    return stats.live == other.stats.live && stats.lazy == other.stats.lazy &&
           stats.free == other.stats.free && stats.mappings == other.stats.mappings;
  }
  keel::WindowStats stats;
};

}  // namespace keel_test

// What a journal on simulated threads begins with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"
#include "probe.h"
#include "support/sim_disk.h"

namespace keel_test {

// A disk with an empty log on it, made before there are turns to take.
inline keel::SimSnapshot fresh_log(std::uint64_t seed) {
  keel::SimDisk ground({.seed = seed});
  const keel::ScopedOs scope(ground);
  KEEL_CHECK(keel::create_log(kLogPath, {.size = keel::kMinLogBytes}).ok(), "create");
  return ground.snapshot();
}

// Without a thread of its own.
inline std::unique_ptr<keel::Pool> sim_pool(std::size_t mebibytes) {
  auto pool = keel::Pool::create({.capacity_bytes = mebibytes << 20,
                                  .window_bytes = 4 * mebibytes << 20,
                                  .huge_pages = false,
                                  .background = false});
  KEEL_CHECK(pool.ok(), "pool");
  return std::move(*pool);
}

}  // namespace keel_test

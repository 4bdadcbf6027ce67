// A pool in which nearly everything is taken and what is free lies in short runs far apart.
#pragma once

#include <cstddef>
#include <memory>

#include "keel/alloc/pool.h"

namespace keel::bench {

inline constexpr std::size_t kFragmentedBytes = std::size_t{256} << 20;

// Takes every frame of `pool` in single pages, then frees `run_pages` neighbours of every
// `period_pages`. What stays taken goes with the pool. Aborts if the pool gives nothing.
void fragment(Pool& pool, std::size_t run_pages, std::size_t period_pages);

// A pool of kFragmentedBytes, all populated, after fragment(). Aborts if it cannot be made.
[[nodiscard]] std::unique_ptr<Pool> make_fragmented_pool(std::size_t run_pages,
                                                         std::size_t period_pages);

}  // namespace keel::bench

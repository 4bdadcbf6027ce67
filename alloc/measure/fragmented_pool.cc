#include "keel/measure/fragmented_pool.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "keel/base/check.h"
#include "keel/base/units.h"

namespace keel::bench {

void fragment(Pool& pool, std::size_t run_pages, std::size_t period_pages) {
  std::vector<void*> pages;
  while (void* page = pool.kvmalloc(kPageBytes, AllocFlags::kNoWarn, "fragment")) {
    pages.push_back(page);
  }
  KEEL_CHECK(!pages.empty(), "fragment a pool");
  std::sort(pages.begin(), pages.end());
  const auto first = reinterpret_cast<std::uintptr_t>(pages.front());
  for (void* page : pages) {
    const std::size_t number = (reinterpret_cast<std::uintptr_t>(page) - first) / kPageBytes;
    if (number % period_pages < run_pages) {
      pool.kvfree(page);
    }
  }
}

std::unique_ptr<Pool> make_fragmented_pool(std::size_t run_pages, std::size_t period_pages) {
  auto pool = Pool::create({.capacity_bytes = kFragmentedBytes, .initial_bytes = kFragmentedBytes});
  KEEL_CHECK(pool.ok(), "make a pool to fragment");
  fragment(**pool, run_pages, period_pages);
  return std::move(*pool);
}

}  // namespace keel::bench

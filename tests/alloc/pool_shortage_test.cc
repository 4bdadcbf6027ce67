// A full pool: what it says to others while a request that will fail has all that was free.
#include <doctest/doctest.h>

#include <cerrno>
#include <functional>
#include <thread>
#include <utility>

#include "pool_support.h"

using namespace keel;
using namespace keel_test;

namespace {

// Refuses every alias, and calls back at the first.
class NoAliases final : public Os {
 public:
  std::function<void()> at_first;

  int mremap(void*, std::size_t, std::size_t, int, void*, void**) override {
    if (at_first) {
      std::exchange(at_first, nullptr)();
    }
    return -ENOMEM;
  }
};

}  // namespace

TEST_CASE("frames of a mapping that failed are there for those who found none meanwhile") {
  const Messages messages;
  NoAliases os;
  const ScopedOs scope(os);
  const auto pool =
      make_pool({.capacity_bytes = 2 * kMiB, .chunk_bytes = kMiB, .window_bytes = 16 * kMiB});
  auto pages = fragment(*pool);
  const std::size_t free_pages = pages.size();
  bool refused = false;
  os.at_first = [&] {
    std::thread another([&] { refused = pool->kvmalloc(kPage, AllocFlags::kNoWarn) == nullptr; });
    another.join();
  };
  CHECK(pool->kvmalloc(free_pages * kPage, AllocFlags::kNoWarn) == nullptr);
  CHECK(refused);  // Rightly so: the other request had them all.
  CHECK(pool->stats().free >= Bytes(free_pages * kPage));
  for (const AllocFlags flags : {AllocFlags::kNoWait, AllocFlags::kKernel, AllocFlags::kNoFs}) {
    pages.push_back(pool->kvmalloc(kPage, flags | AllocFlags::kNoWarn));
    CHECK(pages.back() != nullptr);
  }
  free_all(*pool, pages);
  pool->audit();
}

#include "keel/alloc/pool.h"

#include <doctest/doctest.h>

#include <cstring>

using namespace keel;

TEST_CASE("a pool gives and takes buffers of both tiers") {
  auto pool = Pool::create({.capacity_bytes = 16U << 20});
  REQUIRE(pool.ok());
  Pool& p = **pool;
  void* small = p.kvmalloc(100);
  void* large = p.kvmalloc(5U << 20);
  REQUIRE(small);
  REQUIRE(large);
  CHECK(p.is_contiguous(small));
  CHECK(!p.is_contiguous(large));
  std::memset(small, 1, 4096);
  std::memset(large, 2, 5U << 20);
  p.kvfree(small);
  p.kvfree(large);
  p.audit();
  CHECK(p.trim() == Bytes(8U << 20));
  p.audit();
}

// A batch of a checkpoint's records: when it is full, and what is left when there is no memory.
#include "log/batch.h"

#include <doctest/doctest.h>

#include <vector>

#include "keel/alloc/pool.h"
#include "keel/base/check.h"

using namespace keel;

TEST_CASE("a batch is full when one more record may not fit into its parts, staging or bytes") {
  constexpr std::uint64_t kEnough = 1U << 20;
  constexpr int kMostParts = 1024;
  constexpr int kRecordParts = 257;  // the largest record's, of the smallest blocks
  auto made = Batch::make(default_pool());
  REQUIRE(made.ok());
  Batch& batch = *made;
  batch.restart(Lsn(4096));
  CHECK(batch.lsn == Lsn(4096));
  CHECK_FALSE(batch.is_full(kEnough));
  batch.bytes = kEnough - 1;
  CHECK_FALSE(batch.is_full(kEnough));
  batch.bytes = kEnough;
  CHECK(batch.is_full(kEnough));
  batch.restart(Lsn(0));
  batch.part_count = kMostParts - kRecordParts;
  CHECK_FALSE(batch.is_full(kEnough));
  batch.part_count += 1;
  CHECK(batch.is_full(kEnough));
  batch.restart(Lsn(0));
  batch.staging_used = batch.staging.bytes() - format::kMaxPackedPartBytes;
  CHECK_FALSE(batch.is_full(kEnough));
  batch.staging_used += 1;
  CHECK(batch.is_full(kEnough));
}

TEST_CASE("a batch for half of which there is memory is not made, and takes none") {
  const MessageHook before = set_message_hook([](const char*) {});
  auto pool = Pool::create({.capacity_bytes = 8U << 20, .background = false});
  REQUIRE(pool.ok());
  std::vector<void*> taken, large;
  while (void* memory = (*pool)->kvmalloc(1U << 20, AllocFlags::kNoWarn)) {
    large.push_back(memory);
  }
  for (std::size_t bytes = 1U << 19; bytes >= 4096; bytes /= 2) {
    while (void* memory = (*pool)->kvmalloc(bytes, AllocFlags::kNoWarn)) {
      taken.push_back(memory);
    }
  }
  REQUIRE(large.size() >= 2);
  for (int i = 0; i < 2; ++i) {
    const Bytes live = (*pool)->stats().live;
    const auto batch = Batch::make(**pool);
    REQUIRE_FALSE(batch.ok());
    CHECK(batch.error().code == Errc::kNoMemory);
    CHECK((*pool)->stats().live == live);
    // Then there is memory for the staging alone.
    (*pool)->kvfree(large.back());
    large.pop_back();
  }
  CHECK(Batch::make(**pool).ok());
  for (const auto* all : {&taken, &large}) {
    for (void* memory : *all) {
      (*pool)->kvfree(memory);
    }
  }
  set_message_hook(before);
}

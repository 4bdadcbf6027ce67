// What the AIL does about an item that is wanted elsewhere: by a checkpoint, or by its owner.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "ail_support.h"
#include "keel/base/check.h"
#include "keel/base/units.h"
#include "lasting_life.h"
#include "probe.h"
#include "support/death.h"
#include "support/fault_os.h"

using namespace keel;
using namespace keel_test;

namespace {

// An item alone in the AIL, in a bucket that nothing else holds.
struct Tracked {
  Tracked() {
    Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(4096), {});
    ail.adopt(*bucket, item);
    ail.let_go(*bucket);
  }
  ~Tracked() { (void)take_first(ail); }
  Tracked(const Tracked&) = delete;
  Tracked& operator=(const Tracked&) = delete;

  [[nodiscard]] Ail::Batch walk() { return Ail::Walk(ail, Lsn(UINT64_MAX)).hold_next(); }

  Trace trace;
  Probe item{trace, 1};
  Ail ail;
};

}  // namespace

TEST_CASE("an item that a checkpoint has is not forgotten, nor one that is not to leave") {
  Tracked tracked;
  (void)ItemAccess::commit(tracked.item, true);
  CHECK_FALSE(forget(tracked.ail, tracked.item));
  CHECK(tracked.item.tracked());
  ItemAccess::state(tracked.item).fetch_and(~ItemState::kReleaseWanted);
  CHECK_FALSE(ItemAccess::unpin(tracked.item, false));
  REQUIRE(tracked.walk().count == 1);
  CHECK_FALSE(tracked.ail.leave(tracked.item, true));
  CHECK(tracked.item.tracked());
  REQUIRE(tracked.walk().count == 1);
  (void)ItemAccess::commit(tracked.item, true);
  CHECK_FALSE(tracked.ail.leave(tracked.item, false));
  CHECK(tracked.item.tracked());
  CHECK_FALSE(ItemAccess::unpin(tracked.item, false));
  CHECK(forget(tracked.ail, tracked.item));
  CHECK_FALSE(tracked.item.tracked());
  CHECK(tracked.ail.tail().empty);
}

TEST_CASE("a walk passes by what is pinned, and by what is about to leave") {
  Tracked tracked;
  (void)ItemAccess::commit(tracked.item, true);
  const Ail::Batch pinned = tracked.walk();
  CHECK(pinned.count == 0);
  CHECK(pinned.pinned == 1);
  CHECK((ItemAccess::state(tracked.item) & ItemState::kHeld) == 0);
  CHECK_FALSE(forget(tracked.ail, tracked.item));
  REQUIRE(ItemAccess::unpin(tracked.item, false));  // held now, to be let go of
  const Ail::Batch leaving = tracked.walk();
  CHECK(leaving.count == 0);
  CHECK(leaving.pinned == 1);
  let_go(tracked.ail, tracked.item, true);
  CHECK_FALSE(tracked.item.tracked());
}

TEST_CASE("memory for a bucket that was not needed is the next bucket, and goes with the AIL") {
  FaultOs os;
  const ScopedOs scope(os);
  {
    Ail ail;
    Bucket* bucket = ail.make_bucket();
    REQUIRE(bucket != nullptr);
    ail.give_bucket(nullptr);
    ail.give_bucket(bucket);
    const std::uint64_t calls = os.calls(OsCall::kMetadata);
    CHECK(ail.make_bucket() == bucket);
    CHECK(os.calls(OsCall::kMetadata) == calls);
    ail.give_bucket(bucket);
  }
  CHECK(os.metadata_held() == 0);
}

TEST_CASE("an AIL may end with a bucket that is held, also with the one that it has of its own") {
  FaultOs os;
  const ScopedOs scope(os);
  {
    Ail ail;
    const Bucket* own = ail.publish(nullptr, Lsn(4096), {});
    const Bucket* second = ail.publish(ail.make_bucket(), Lsn(8192), {});
    CHECK(own != second);
    CHECK(ail.tail().lsn == Lsn(4096));
  }
  CHECK(os.metadata_held() == 0);
}

TEST_CASE("a bucket that is held and empty is passed by, and what is behind it is found") {
  Trace trace;
  Probe first(trace, 1), second(trace, 2);
  Ail ail;
  std::vector<LogItem*> seen;
  const auto see = [&](LogItem& item) {
    seen.push_back(&item);
    return true;
  };
  ail.for_oldest(4, see);
  CHECK(seen.empty());
  CHECK(take_first(ail) == nullptr);
  Bucket* held = ail.publish(ail.make_bucket(), Lsn(4096), {});
  Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(8192), {});
  ail.for_oldest(4, see);
  CHECK(seen.empty());
  ail.adopt(*bucket, first);
  ail.adopt(*bucket, second);
  ail.let_go(*bucket);
  CHECK(ail.tail().lsn == Lsn(4096));
  ail.for_oldest(1, see);
  CHECK(seen == std::vector<LogItem*>{&first});
  ail.for_oldest(4, see);
  CHECK(seen == std::vector<LogItem*>{&first, &first, &second});
  CHECK(take_first(ail) == &first);
  CHECK(take_first(ail) == &second);
  CHECK(take_first(ail) == nullptr);
  ail.let_go(*held);
  CHECK(ail.tail().empty);
}

TEST_CASE("a walk goes on behind a bucket whose items all left meanwhile, held or gone") {
  for (const bool is_held : {false, true}) {
    CAPTURE(is_held);
    Trace trace;
    std::vector<std::unique_ptr<Probe>> items;
    Probe behind(trace, 1);
    Ail ail;
    Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(4096), {});
    Bucket* after = ail.publish(ail.make_bucket(), Lsn(8192), {});
    for (std::uint32_t i = 0; i < 2 * Ail::kBatch; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      ail.adopt(*bucket, *items.back());
    }
    ail.adopt(*after, behind);
    ail.let_go(*after);
    if (!is_held) {
      ail.let_go(*bucket);
    }
    Ail::Walk walk(ail, Lsn(UINT64_MAX));
    const Ail::Batch batch = walk.hold_next();
    CHECK(batch.count == Ail::kBatch);
    CHECK_FALSE(batch.is_last);
    for (LogItem* item : batch.items) {
      let_go(ail, *item, true);
    }
    for (const auto& item : items) {
      CHECK(forget(ail, *item));
    }
    const Ail::Batch rest = walk.hold_next();
    REQUIRE(rest.count == 1);
    CHECK(rest.items[0] == &behind);
    CHECK(rest.is_last);
    let_go(ail, behind, true);
    CHECK(forget(ail, behind));
    if (is_held) {
      ail.let_go(*bucket);
    }
    CHECK(ail.tail().empty);
  }
}

TEST_CASE("an item is pinned from outside only if nothing pins it and nobody wants it gone") {
  Trace trace;
  Probe item(trace, 1);
  CHECK(ItemAccess::try_pin(item));
  CHECK(item.pinned());
  CHECK_FALSE(ItemAccess::try_pin(item));
  CHECK(trace.count(Call::kPin) == 1);
  CHECK_FALSE(ItemAccess::unpin(item, false));
  ItemAccess::state(item).fetch_or(ItemState::kReleaseWanted);
  CHECK_FALSE(ItemAccess::try_pin(item));
  CHECK_FALSE(item.pinned());
  CHECK(trace.count(Call::kPin) == 1);
  ItemAccess::state(item) = 0;
}

TEST_CASE("without memory for buckets there are two, and again once they are empty") {
  BucketlessDisk disk;
  disk.no_buckets = true;
  const ScopedOs scope(disk);
  Ail ail;
  Bucket* first = ail.make_bucket();
  Bucket* second = ail.make_bucket();
  REQUIRE(first != nullptr);
  REQUIRE(second != nullptr);
  CHECK(first != second);
  CHECK(ail.make_bucket() == nullptr);
  ail.give_bucket(second);
  CHECK(ail.make_bucket() == second);
  REQUIRE(ail.publish(first, Lsn(1), {}) == first);
  REQUIRE(ail.publish(second, Lsn(2), {}) == second);
  CHECK(ail.publish(nullptr, Lsn(3), {}) == second);
  ail.let_go(*second);
  ail.let_go(*first);
  CHECK(ail.tail().lsn == Lsn(2));
  CHECK(ail.make_bucket() == first);
  ail.let_go(*second);
  CHECK(ail.tail().empty);
  CHECK(ail.make_bucket() == second);
  CHECK(ail.make_bucket() == nullptr);
}

TEST_CASE("a bucket goes when its last item leaves it, wherever it stands") {
  constexpr std::uint32_t kBuckets = 10'000;
  constexpr std::int64_t kSpares = 16;
  FaultOs os;
  const ScopedOs scope(os);
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  {
    Ail ail;
    const std::int64_t before = os.metadata_held();
    for (std::uint32_t i = 0; i < kBuckets; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(i + 1), {});
      ail.adopt(*bucket, *items.back());
      ail.let_go(*bucket);
    }
    std::int64_t most = kBuckets;
    for (std::uint32_t i = 1; i < kBuckets; i += 2) {
      CHECK(forget(ail, *items[i]));
      most -= 1;
      REQUIRE(os.metadata_held() - before <= most + kSpares + 1);
    }
    // What moves leaves its bucket too.
    Bucket* last = ail.publish(ail.make_bucket(), Lsn(kBuckets + 1), {});
    for (std::uint32_t i = 2; i < kBuckets; i += 2) {
      LogVector vector{};
      vector.item = items[i].get();
      ail.enter(*last, &vector, nullptr);
    }
    ail.let_go(*last);
    CHECK(os.metadata_held() - before <= 2 + kSpares);
    (void)ail.audit();
    CHECK(ail.tail().lsn == Lsn(1));
    CHECK(forget(ail, *items[0]));
    CHECK(ail.tail().lsn == Lsn(kBuckets + 1));
    while (take_first(ail) != nullptr) {
    }
  }
  CHECK(os.metadata_held() == 0);
}

TEST_CASE("the last of several buckets stays, for a checkpoint that was told that it joins it") {
  Trace trace;
  Probe oldest(trace, 1), again(trace, 2);
  Ail ail;
  Bucket* front = ail.publish(ail.make_bucket(), Lsn(1), {});
  ail.adopt(*front, oldest);
  ail.let_go(*front);
  Bucket* back = ail.publish(ail.make_bucket(), Lsn(2), {});
  ail.adopt(*back, again);
  ail.let_go(*back);
  CHECK(forget(ail, again));
  CHECK(ail.publish(nullptr, Lsn(3), {}) == back);
  CHECK(back->lsn == Lsn(2));
  ail.let_go(*back);
  (void)ail.audit();
  CHECK(forget(ail, oldest));
  CHECK(ail.tail().empty);  // nor does it hold the tail
}

TEST_CASE("a walk does not look at the buckets again that it has passed") {
  constexpr std::uint32_t kBuckets = 10'000;
  constexpr std::size_t kBytes = std::size_t{4} << 20;
  // Buckets stand one behind the other.
  class ArenaOs final : public Os {
   public:
    void* metadata_allocate(std::size_t bytes) override {
      KEEL_CHECK(used + bytes <= kBytes, "the arena is full", used);
      return base + std::exchange(used, used + round_up(bytes, alignof(std::max_align_t)));
    }
    void metadata_free(void*) override {}
    std::byte* base = static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kBytes));
    std::size_t used = 0;
  };
  ArenaOs arena;
  {
    const ScopedOs scope(arena);
    Trace trace;
    std::vector<std::unique_ptr<Probe>> items;
    Ail ail;
    for (std::uint32_t i = 0; i < kBuckets; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(i + 1), {});
      ail.adopt(*bucket, *items.back());
      ail.let_go(*bucket);
    }
    {
      Ail::Walk walk(ail, Lsn(UINT64_MAX));
      for (std::uint32_t seen = 0; seen < kBuckets / 2; seen += Ail::kBatch) {
        const Ail::Batch batch = walk.hold_next();
        REQUIRE(batch.count == Ail::kBatch);
        for (LogItem* item : batch.items) {
          let_go(ail, *item, true);
        }
      }
      const auto ending = run_in_child([&] {
        (void)::mprotect(arena.base, round_down(arena.used / 4, kPageBytes), PROT_NONE);
        ::_exit(walk.hold_next().count == Ail::kBatch ? 0 : 1);
      });
      CHECK(ending.exit_code == 0);
    }
    for (const auto& item : items) {
      CHECK(forget(ail, *item));
    }
  }
  std::free(arena.base);
}

TEST_CASE("walks whose bucket goes while they stand there go on with the next that is left") {
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  Ail ail;
  for (std::uint32_t i = 0; i < 6 * Ail::kBatch; ++i) {  // two batches a bucket
    items.push_back(std::make_unique<Probe>(trace, i));
  }
  for (std::uint32_t i = 0; i < 3; ++i) {
    Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(i + 1), {});
    for (std::uint32_t k = 0; k < 2 * Ail::kBatch; ++k) {
      ail.adopt(*bucket, *items[i * 2 * Ail::kBatch + k]);
    }
    ail.let_go(*bucket);
  }
  const auto take = [&](Ail::Walk& walk) {
    const Ail::Batch batch = walk.hold_next();
    for (std::size_t i = 0; i < batch.count; ++i) {
      let_go(ail, *batch.items[i], true);
    }
    return batch;
  };
  Ail::Walk first(ail, Lsn(UINT64_MAX));
  Ail::Walk second(ail, Lsn(UINT64_MAX));
  Ail::Walk short_one(ail, Lsn(2));
  Ail::Walk ended(ail, Lsn(UINT64_MAX));
  CHECK(take(first).count == Ail::kBatch);
  CHECK(take(second).count == Ail::kBatch);
  CHECK(take(short_one).count == Ail::kBatch);
  while (!take(ended).is_last) {
  }
  for (std::size_t i = 0; i < 4 * Ail::kBatch; ++i) {  // their bucket, and the next
    CHECK(forget(ail, *items[i]));
  }
  CHECK(ail.tail().lsn == Lsn(3));  // walks hold no tail
  const Ail::Batch batch = take(first);
  REQUIRE(batch.count == Ail::kBatch);
  CHECK(batch.items[0] == items[4 * Ail::kBatch].get());
  CHECK_FALSE(batch.is_last);
  CHECK(take(short_one).count == 0);
  CHECK(take(second).count == Ail::kBatch);
  while (take_first(ail) != nullptr) {
  }
  CHECK(ail.tail().empty);
  for (Ail::Walk* walk : {&first, &second, &short_one, &ended}) {
    const Ail::Batch rest = take(*walk);
    CHECK(rest.count == 0);
    CHECK(rest.is_last);
  }
}

TEST_CASE("a walk does not pass over an item that is committed again into its bucket") {
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  Ail ail;
  Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(1), {});
  for (std::uint32_t i = 0; i < Ail::kBatch + 1; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    ail.adopt(*bucket, *items.back());
  }
  Ail::Walk walk(ail, Lsn(UINT64_MAX));
  CHECK(walk.hold_next().count == Ail::kBatch);
  LogVector vector{};
  vector.item = items.back().get();
  Bucket* joined = ail.publish(nullptr, Lsn(2), {});
  ail.enter(*joined, &vector, nullptr);
  ail.let_go(*joined);
  CHECK(walk.hold_next().count == 1);
  for (const auto& item : items) {
    let_go(ail, *item, true);
    CHECK(forget(ail, *item));
  }
  ail.let_go(*bucket);
  CHECK(ail.tail().empty);
}

// What the AIL does about an item that is wanted elsewhere: by a checkpoint, or by its owner.
#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "ail.h"
#include "probe.h"
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
  ~Tracked() { (void)ail.remove_first(); }
  Tracked(const Tracked&) = delete;
  Tracked& operator=(const Tracked&) = delete;

  [[nodiscard]] Ail::Batch walk() {
    AilCursor cursor;
    return ail.hold_next(cursor, Lsn(UINT64_MAX));
  }
  void wish_to_leave() { ItemAccess::state(item).fetch_or(ItemState::kReleaseWanted); }

  Trace trace;
  Probe item{trace, 1};
  Ail ail;
};

}  // namespace

TEST_CASE("an item that a checkpoint has is not forgotten, nor one that is not to leave") {
  Tracked tracked;
  ItemAccess::pin(tracked.item);
  tracked.wish_to_leave();
  CHECK_FALSE(tracked.ail.forget(tracked.item, false));
  CHECK_FALSE(tracked.ail.forget(tracked.item, true));
  CHECK(tracked.item.tracked());
  (void)ItemAccess::unpin(tracked.item, false);
  ItemAccess::state(tracked.item).fetch_and(~ItemState::kReleaseWanted);
  CHECK_FALSE(tracked.ail.forget(tracked.item, true));
  CHECK(tracked.item.tracked());
  tracked.wish_to_leave();
  CHECK(tracked.ail.forget(tracked.item, true));
  CHECK_FALSE(tracked.item.tracked());
  CHECK(tracked.ail.tail().empty);
}

TEST_CASE("a walk passes by what is pinned, and by what is about to leave") {
  Tracked tracked;
  ItemAccess::pin(tracked.item);
  const Ail::Batch pinned = tracked.walk();
  CHECK(pinned.count == 0);
  CHECK(pinned.pinned == 1);
  CHECK((ItemAccess::state(tracked.item) & ItemState::kHeld) == 0);
  (void)ItemAccess::unpin(tracked.item, false);
  tracked.wish_to_leave();
  const Ail::Batch leaving = tracked.walk();
  CHECK(leaving.count == 0);
  CHECK(leaving.pinned == 0);
  CHECK((ItemAccess::state(tracked.item) & ItemState::kHeld) == 0);
  CHECK(tracked.ail.forget(tracked.item, true));
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
  CHECK(ail.remove_first() == nullptr);
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
  CHECK(ail.remove_first() == &first);
  CHECK(ail.remove_first() == &second);
  CHECK(ail.remove_first() == nullptr);
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
    AilCursor cursor;
    const Ail::Batch batch = ail.hold_next(cursor, Lsn(UINT64_MAX));
    CHECK(batch.count == Ail::kBatch);
    CHECK_FALSE(batch.is_last);
    for (LogItem* item : batch.items) {
      (void)Ail::release_held(*item);
    }
    for (const auto& item : items) {
      CHECK(ail.forget(*item, false));
    }
    const Ail::Batch rest = ail.hold_next(cursor, Lsn(UINT64_MAX));
    REQUIRE(rest.count == 1);
    CHECK(rest.items[0] == &behind);
    CHECK(rest.is_last);
    (void)Ail::release_held(behind);
    CHECK(ail.forget(behind, false));
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
  CHECK(ItemAccess::unpin(item, false) == 0);
  ItemAccess::state(item).fetch_or(ItemState::kReleaseWanted);
  CHECK_FALSE(ItemAccess::try_pin(item));
  CHECK_FALSE(item.pinned());
  CHECK(trace.count(Call::kPin) == 1);
  ItemAccess::state(item) = 0;
}

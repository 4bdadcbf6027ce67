// What the AIL does about an item that is wanted elsewhere: by a checkpoint, or by its owner.
#include <doctest/doctest.h>

#include "ail.h"
#include "probe.h"

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

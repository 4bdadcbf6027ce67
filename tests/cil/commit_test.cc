// What a commit asks of its items and in which order, and which vector a snapshot goes to.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "keel/alloc/pool.h"
#include "log_vector.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

namespace {

// In whichever context it is; these tests have it in one at a time.
LogVector* active(LogItem& item) {
  LogVector* const even = ItemAccess::active(item, Sequence(0));
  return even != nullptr ? even : ItemAccess::active(item, Sequence(1));
}
const LogVector* shadow(LogItem& item) { return ItemAccess::shadow(item); }
bool tracked(LogItem& item) { return item.tracked(); }

// One item's regions in the log, by the order of checkpoints.
std::vector<std::vector<std::string>> regions_of(const Found& found, std::uint32_t type) {
  std::vector<std::vector<std::string>> all;
  for (const FoundCheckpoint& checkpoint : found) {
    for (const FoundItem& item : checkpoint.items) {
      if (item.type == type) {
        all.push_back(item.regions);
      }
    }
  }
  return all;
}

// Holds the tail, so that all later checkpoints are still there after a close.
void drop_anchor(Journal& journal, Probe& anchor, Trace& trace) {
  anchor.is_ordered = true;
  REQUIRE(journal.force(commit(journal, {&anchor})).ok());
  (void)trace.take();
}

}  // namespace

TEST_CASE(
    "a commit sizes all, then formats and pins each, then tells all, stable: committed, unpinned") {
  LogWorld world;
  Trace trace;
  Probe a(trace, 1), b(trace, 2);
  a.regions = {"one"};
  b.regions = {"two", "three"};
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&a, &b});
  CHECK(trace.last_value(Call::kCommitting) == sequence.value());
  CHECK(trace.take() == "size1 size2 format1 pin1 format2 pin2 committing1 committing2");
  CHECK(a.pinned());
  CHECK(journal->force(sequence).ok());
  CHECK_FALSE(a.pinned());
  CHECK_FALSE(b.pinned());
  CHECK(trace.last_value(Call::kCommitted) == 0);  // the first checkpoint's LSN
  CHECK(trace.take() == "committed1 committed2 unpin1 unpin2");
  finish(journal);
  const std::string released = trace.take();
  CHECK((released == "release1 release2" || released == "release2 release1"));
}

TEST_CASE("an item is pinned once for a checkpoint, however often it is committed to it") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1), anchor(trace, 9);
  item.regions = {"0"};
  auto journal = world.open();
  drop_anchor(*journal, anchor, trace);
  Sequence sequence{};
  for (int i = 0; i < 100; ++i) {
    item.regions = {std::to_string(i)};
    sequence = commit(*journal, {&item});
  }
  CHECK(trace.count(Call::kPin) == 1);
  CHECK(trace.count(Call::kFormat) == 100);
  CHECK(journal->force(sequence).ok());
  CHECK(trace.count(Call::kUnpin) == 1);
  CHECK(trace.count(Call::kCommitted) == 1);
  commit(*journal, {&item});
  CHECK(trace.count(Call::kPin) == 2);
  CHECK(journal->stats().coalesced.value() > 0);
  finish(journal);
  CHECK(trace.count(Call::kUnpin) == 2);
  const Found found = world.read();
  CHECK(regions_of(found, 17) == std::vector<std::vector<std::string>>{{"99"}, {"99"}});
}

TEST_CASE("one item twice in a transaction is one item") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  commit(*journal, {&item, &item, &item});
  CHECK(trace.take() == "size1 format1 pin1 committing1");
  finish(journal);
  CHECK(world.read() == Found{{1, {{17, {"x"}}}}});
}

TEST_CASE("an empty item is neither pinned nor written, but later it may be") {
  LogWorld world;
  Trace trace;
  Probe empty(trace, 1), full(trace, 2);
  full.regions = {"x"};
  auto journal = world.open();
  const Sequence alone = commit(*journal, {&empty});
  CHECK(trace.take() == "size1");
  CHECK_FALSE(empty.pinned());
  CHECK(shadow(empty) == nullptr);
  CHECK(alone == journal->stable_sequence());  // for whoever waits for that to reach it
  CHECK(journal->force(alone).ok());
  CHECK(journal->stats().checkpoints == 0);
  const Sequence both = commit(*journal, {&empty, &full});
  CHECK(both > alone);
  CHECK(trace.take() == "size1 size2 format2 pin2 committing2");
  CHECK(journal->force(both).ok());
  CHECK_FALSE(tracked(empty));
  CHECK(tracked(full));
  // What it had in the context stays when it turns empty.
  empty.regions = {"once"};
  commit(*journal, {&empty});
  empty.regions = {};
  commit(*journal, {&empty});
  finish(journal);
  CHECK(world.read() == Found{{1, {{18, {"x"}}}}, {2, {{17, {"once"}}}}});
}

TEST_CASE("a region of no bytes is a region") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"", "a", "", std::string(4096, 'b'), ""};
  auto journal = world.open();
  commit(*journal, {&item}, 5000);
  finish(journal);
  CHECK(world.read() == Found{{1, {{17, item.regions}}}});
}

TEST_CASE("an ordered item is tracked and pinned but never formatted or written") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.is_ordered = true;
  auto journal = world.open();
  const Sequence sequence = commit(*journal, {&item}, 0);
  CHECK(trace.take() == "size1 pin1 committing1");
  CHECK(item.pinned());
  CHECK(journal->force(sequence).ok());
  CHECK(trace.take() == "committed1 unpin1");
  CHECK(tracked(item));
  finish(journal);
  CHECK(world.read() == Found{{1, {}}});
  journal = world.open();
  CHECK(journal->force(commit(*journal, {&item}, 0)).ok());
  CHECK(tracked(item));
  CHECK(journal->release(item));
  CHECK_FALSE(tracked(item));
  finish(journal);
}

TEST_CASE("an ordered item that is logged later gets its vector and no second pin") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.is_ordered = true;
  auto journal = world.open();
  commit(*journal, {&item});
  item.is_ordered = false;
  item.regions = {std::string(9000, 'y')};
  commit(*journal, {&item}, 9000);
  CHECK(trace.take() == "size1 pin1 committing1 size1 format1 committing1");
  finish(journal);
  CHECK(world.read() == Found{{1, {{17, item.regions}}}});
}

TEST_CASE("a logged item that turns ordered keeps its vector, and later its place in the log") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"kept"};
  auto journal = world.open();
  commit(*journal, {&item});
  LogVector* const vector = active(item);
  item.is_ordered = true;
  commit(*journal, {&item});
  CHECK(active(item) == vector);
  CHECK(trace.take() == "size1 format1 pin1 committing1 size1 committing1");
  const Sequence sequence = commit(*journal, {&item});
  CHECK(journal->force(sequence).ok());
  // In the next context it is ordered from the start; what the log has of it is not home yet.
  commit(*journal, {&item});
  finish(journal);
  CHECK(world.read() == Found{{1, {{17, {"kept"}}}}, {2, {}}});
}

TEST_CASE("a snapshot that fits reuses the active vector, one that does not swaps in the shadow") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.home = [](Probe&) { return PushResult::kLocked; };  // so that no snapshot is kept
  Probe anchor(trace, 9);
  auto journal = world.open();
  drop_anchor(*journal, anchor, trace);
  const auto commit_bytes = [&](std::size_t bytes, char fill) {
    item.regions = {std::string(bytes, fill)};
    return commit(*journal, {&item}, bytes);
  };
  commit_bytes(100, 'a');
  LogVector* const first = active(item);
  CHECK(first != nullptr);
  CHECK(shadow(item) == nullptr);  // consumed by the context
  commit_bytes(90, 'b');           // fits: the shadow made for it stands by
  CHECK(active(item) == first);
  const LogVector* const second = shadow(item);
  CHECK(second != nullptr);
  commit_bytes(20000, 'c');  // fits neither: a larger shadow is made and swapped in
  LogVector* const third = active(item);
  CHECK(third != first);
  CHECK(third->capacity_bytes >= 20000);
  CHECK(shadow(item) == first);
  commit_bytes(60, 'd');  // shrinks: the large one stays active
  CHECK(active(item) == third);
  CHECK(shadow(item) == first);
  const Sequence closed = commit_bytes(70, 'e');
  CHECK(journal->force(closed).ok());
  CHECK(active(item) == nullptr);  // the checkpoint took it
  CHECK(shadow(item) == first);
  commit_bytes(80, 'f');  // the standby takes over without any allocation
  CHECK(active(item) == first);
  CHECK(shadow(item) == nullptr);
  commit_bytes(30000, 'g');
  CHECK(shadow(item) == first);
  finish(journal);
  CHECK(regions_of(world.read(), 17) ==
        std::vector<std::vector<std::string>>{{std::string(70, 'e')}, {std::string(30000, 'g')}});
}

TEST_CASE(
    "a context that closes between sizing and formatting takes the active vector, not the shadow") {
  LogWorld world;
  Trace trace;
  Probe first(trace, 1), second(trace, 2);
  Probe anchor(trace, 9);
  auto journal = world.open();
  drop_anchor(*journal, anchor, trace);
  for (const std::size_t bytes : {10U, 3000U, 10U, 50000U, 10U, 4096U}) {
    first.regions = {std::string(bytes, 'x')};
    second.regions = {"second"};
    commit(*journal, {&first}, bytes);
    LogVector* const before = active(first);
    REQUIRE(before != nullptr);
    // By now the first item has been prepared. A force in the middle of a commit must not wait for
    // it.
    second.during_size = [&] { CHECK(journal->force_all().ok()); };
    first.regions = {std::string(bytes, 'y')};
    const Sequence sequence = commit(*journal, {&first, &second}, bytes + 100);
    second.during_size = nullptr;
    CHECK(sequence == next(journal->stable_sequence()));
    CHECK(active(first) != nullptr);
    CHECK(journal->force(sequence).ok());
  }
  finish(journal);
  const auto all = regions_of(world.read(), 17);
  REQUIRE(all.size() == 12);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i][0][0] == (i % 2 == 0 ? 'x' : 'y'));
  }
}

TEST_CASE("an item stands in its checkpoint where it was committed last") {
  LogWorld world;
  Trace trace;
  Probe a(trace, 1), b(trace, 2), c(trace, 3);
  a.regions = b.regions = c.regions = {"x"};
  auto journal = world.open();
  commit(*journal, {&a});
  commit(*journal, {&b});
  commit(*journal, {&c, &a});
  finish(journal);
  // One transaction's items keep the order in which they were logged.
  CHECK(world.read() == Found{{1, {{18, {"x"}}, {19, {"x"}}, {17, {"x"}}}}});
}

TEST_CASE("the journal keeps nothing of an item's memory: each is given back with the item") {
  LogWorld world;
  auto pool = Pool::create({.capacity_bytes = 64U << 20, .background = false});
  REQUIRE(pool.ok());
  {
    Trace trace;
    auto journal = world.open({.pool = pool->get()});
    const Bytes idle = (*pool)->stats().live;
    {
      Probe item(trace, 1);
      for (const std::size_t bytes : {10U, 10000U, 10U, 100000U, 50U}) {
        item.regions = {std::string(bytes, 'x')};
        commit(*journal, {&item}, bytes);
        commit(*journal, {&item}, bytes);
        CHECK(journal->force_all().ok());
      }
      CHECK(journal->release(item));
    }
    // The push thread frees the vectors after it has woken the waiter: a later force waits for
    // that.
    Probe other(trace, 2);
    other.is_ordered = true;
    CHECK(journal->force(commit(*journal, {&other})).ok());
    CHECK(journal->close().ok());
    CHECK((*pool)->stats().live.value() <= idle.value() + 4096);
  }
  CHECK((*pool)->stats().live == Bytes(0));
}

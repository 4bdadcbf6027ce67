// Which bytes of an object its item logs, and that they are enough on top of what is home.
#include "keel/cil/object_item.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "item_home.h"
#include "log/format.h"
#include "support/death.h"

using namespace keel;
using namespace keel_test;

namespace {

// A journal whose tail an ordered item holds, so that every checkpoint stays to be looked at.
struct ObjectWorld {
  LogWorld world;
  Trace trace;
  Probe anchor{trace, 9};
  std::unique_ptr<Journal> journal = world.open();

  ObjectWorld() {
    anchor.is_ordered = true;
    log(anchor);
  }
  void log(LogItem& item, std::size_t bytes = 100000) {
    REQUIRE(journal->force(commit(*journal, {&item}, bytes)).ok());
    journal->audit();
  }
  // What the log holds, after a crash: an item of which nothing is tracked holds no tail at close.
  Found crash() {
    const ScopedOs scope(world.after_power_cut());
    Found found;
    REQUIRE(scan_log(kLogPath, collect_into(found)).ok());
    return found;
  }
  ItemHome crash_onto(ItemHome home) {
    const ScopedOs scope(world.after_power_cut());
    home.recover();
    return home;
  }
};

// An object that is home, and its item.
struct Object {
  explicit Object(std::string text) : bytes(std::move(text)), home(bytes) {
    item.attach(bytes_of(bytes));
  }
  void write(std::size_t offset, const std::string& text) {
    bytes.replace(offset, text.size(), text);
    item.attach(bytes_of(bytes));
    item.mark(offset, text.size());
  }
  void resize(std::size_t size) {
    bytes.resize(size, '+');
    item.attach(bytes_of(bytes));
  }
  [[nodiscard]] ItemHome at_home() const { return {{{7, home}}, {}}; }

  ObjectItem item{7};
  std::string bytes;
  const std::string home;
};

}  // namespace

TEST_CASE("of an object that is home only the marked range is logged") {
  ObjectWorld world;
  Object object(random_bytes(1, 10000));
  object.write(100, std::string(50, 'x'));
  world.log(object.item);
  CHECK(region_sizes(world.crash()) == "24 16 50");
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  CHECK(object.item.dirty_bytes() == 50);
  finish(world.journal);
}

TEST_CASE("a snapshot holds the ranges of all commits since clean(), and none of before") {
  ObjectWorld world;
  Object object(random_bytes(2, 10000));
  object.write(100, "first");
  world.log(object.item);
  object.write(5000, "second");
  world.log(object.item);
  CHECK(region_sizes(world.crash()) == "24 16 5 | 24 32 5 6");
  CHECK(world.journal->release(object.item));
  object.item.clean();
  CHECK(object.item.dirty_bytes() == 0);
  object.write(9000, "third");
  world.log(object.item);
  CHECK(region_sizes(world.crash()) == "24 16 5 | 24 32 5 6 | 24 16 5");
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  finish(world.journal);
}

TEST_CASE("clean() does not forget what a checkpoint holds that is not stable yet") {
  ObjectWorld world;
  Object object(random_bytes(3, 10000));
  object.write(100, "first");
  commit(*world.journal, {&object.item}, 10100);
  CHECK_FALSE(world.journal->release(object.item));
  object.item.clean();
  object.write(5000, "second");
  world.log(object.item);  // takes the first one's place in the checkpoint
  CHECK(region_sizes(world.crash()) == "24 32 5 6");
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  finish(world.journal);
}

TEST_CASE("a clean object, and a mark of no bytes, are logged not at all") {
  ObjectWorld world;
  Object object("home");
  object.item.mark(4, 0);
  commit(*world.journal, {&object.item});
  CHECK_FALSE(object.item.pinned());
  ObjectItem whole(8);
  const std::string bytes = "whole";
  whole.set(bytes_of(bytes));
  world.log(whole);
  CHECK(world.journal->release(whole));
  whole.clean();
  commit(*world.journal, {&whole});
  CHECK_FALSE(whole.pinned());
  whole.erase();
  world.log(whole);
  CHECK(world.journal->release(whole));
  whole.clean();
  commit(*world.journal, {&whole});
  CHECK_FALSE(whole.pinned());
  CHECK(region_sizes(world.crash()) == "24 5 | 24");
  world.journal->audit();
  finish(world.journal);
}

TEST_CASE("ranges that overlap, touch or nearly touch are logged as one") {
  ObjectWorld world;
  Object object(random_bytes(4, 10000));
  object.write(200, std::string(100, 'a'));
  object.write(250, std::string(100, 'b'));  // overlaps
  object.write(350, std::string(10, 'c'));   // touches
  object.write(190, std::string(10, 'd'));
  object.write(392, std::string(8, 'e'));  // 32 bytes further: as cheap as another range
  CHECK(object.item.dirty_bytes() == 210);
  object.write(433, "f");  // 33
  CHECK(object.item.dirty_bytes() == 211);
  object.write(410, "g");  // joins both
  CHECK(object.item.dirty_bytes() == 244);
  object.write(0, std::string(9, 'h'));
  world.log(object.item);
  CHECK(region_sizes(world.crash()) == "24 32 9 244");
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  finish(world.journal);
}

TEST_CASE("more ranges than an item tells apart join where they are nearest") {
  ObjectWorld world;
  Object object(random_bytes(5, 10000));
  for (std::size_t i = 0; i < ObjectItem::kMostRanges; ++i) {
    object.write(9900 - i * 500, "x");
  }
  CHECK(object.item.dirty_bytes() == 16);
  object.write(2000, "y");  // 400 bytes before the lowest
  CHECK(object.item.dirty_bytes() == 15 + 401);
  object.write(50, "z");  // the nearest are 499 apart
  CHECK(object.item.dirty_bytes() == 17 + 400 + 499);
  world.log(object.item);
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  finish(world.journal);
}

TEST_CASE("what is marked as a whole is logged as a whole") {
  ObjectWorld world;
  Object object("0123456789");
  object.write(0, "abcde");
  object.write(5, "fghij");
  world.log(object.item);
  CHECK(region_sizes(world.crash()) == "24 10");
  CHECK(world.crash_onto({}).objects[7] == "abcdefghij");  // needs nothing at home
  finish(world.journal);
}

TEST_CASE("an object that shrinks is cut, one that grows has its new end logged") {
  ObjectWorld world;
  Object object(random_bytes(6, 1000));
  object.write(100, "kept");
  object.write(900, "cut off");
  object.resize(500);
  CHECK(object.item.dirty_bytes() == 4);
  world.log(object.item);
  CHECK(region_sizes(world.crash()) == "24 16 4");
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  object.resize(800);
  CHECK(object.item.dirty_bytes() == 304);
  world.log(object.item);
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  object.resize(102);  // through the range
  CHECK(object.item.dirty_bytes() == 2);
  world.log(object.item);
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  object.resize(0);
  world.log(object.item);
  CHECK(world.crash_onto(object.at_home()).objects[7].empty());
  finish(world.journal);
}

TEST_CASE("a new size alone is logged, without a byte") {
  ObjectWorld world;
  Object object(random_bytes(7, 1000));
  object.resize(10);
  world.log(object.item);
  CHECK(region_sizes(world.crash()) == "24");
  CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
  finish(world.journal);
}

TEST_CASE("an erased object that comes back is logged whole, cleaned or not") {
  for (const bool cleaned : {false, true}) {
    ObjectWorld world;
    Object object("home");
    object.item.erase();
    world.log(object.item);
    CHECK(world.crash_onto(object.at_home()).objects.empty());
    if (cleaned) {
      CHECK(world.journal->release(object.item));
      object.item.clean();
    }
    object.bytes = "again";
    object.item.attach(bytes_of(object.bytes));
    world.log(object.item);
    CHECK(region_sizes(world.crash()) == "24 | 24 5");
    CHECK(world.crash_onto(object.at_home()).objects[7] == "again");
    finish(world.journal);
  }
}

TEST_CASE("whatever is marked of an object, log_bytes() of its size is enough") {
  for (const std::size_t step : std::initializer_list<std::size_t>{1, 33, 200, 4097, 19990}) {
    ObjectWorld world;
    Object object(random_bytes(step, 20000));
    for (std::size_t at = 0; at + step < 20000; at += step + 33) {
      object.write(at, std::string(step, 'x'));
    }
    world.log(object.item, ObjectItem::log_bytes(object.bytes.size()));
    CHECK((world.crash_onto(object.at_home()).objects[7] == object.bytes));
    finish(world.journal);
  }
}

TEST_CASE("a mark beyond the object's end aborts") {
  const std::string bytes = "0123456789";
  for (const auto& [offset, length] :
       {std::pair<std::size_t, std::size_t>{11, 0}, {3, 8}, {1, SIZE_MAX}}) {
    const Ending ending = run_in_child([&, at = offset, size = length] {
      ObjectItem item(1);
      item.attach(bytes_of(bytes));
      item.mark(at, size);
    });
    CHECK(ending.aborted_with("mark() beyond the object's end"));
  }
}

TEST_CASE("objects are written in part by several threads, each under its own lock") {
  constexpr int kThreads = 4;
  constexpr int kRounds = 200;
  ObjectWorld world;
  ItemHome home;
  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<ObjectItem>> items(kThreads);
  std::vector<std::string> bytes(kThreads, std::string(3000, '-'));
  for (int t = 0; t < kThreads; ++t) {
    const auto id = static_cast<std::uint64_t>(t);
    home.objects[id] = bytes[id];
    items[id] = std::make_unique<ObjectItem>(id);
    items[id]->attach(bytes_of(bytes[id]));
    threads.emplace_back([&, id] {
      std::uint64_t random = id + 1;
      for (int i = 0; i < kRounds; ++i) {
        auto transaction = world.journal->begin(ObjectItem::log_bytes(3000), 1);
        KEEL_CHECK(transaction.ok(), "begin");
        const std::size_t at = sim_random(random) % 2990;
        std::memset(bytes[id].data() + at, static_cast<int>('a' + i % 26), 10);
        items[id]->mark(at, 10);
        KEEL_CHECK(transaction->log(*items[id]).ok(), "log");
        KEEL_CHECK(transaction->commit().ok(), "commit");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  REQUIRE(world.journal->force_all().ok());
  world.journal->audit();
  const ItemHome recovered = world.crash_onto(home);
  for (std::uint64_t id = 0; id < kThreads; ++id) {
    CHECK(recovered.objects.at(id) == bytes[id]);
  }
  finish(world.journal);
}

TEST_CASE("an object item whose ranges are not sound is no object") {
  using format::ObjectHeader;
  const auto found = [](ObjectHeader header, std::vector<format::Range> table,
                        const std::vector<std::string>& pieces) {
    std::vector<RecoveredRegion> regions;
    regions.push_back({{}, std::as_bytes(std::span(&header, 1))});
    if (!table.empty()) {
      regions.push_back({{}, std::as_bytes(std::span(table))});
    }
    for (const std::string& piece : pieces) {
      regions.push_back({{}, bytes_of(piece)});
    }
    return RecoveredObject::from({format::kTypeObject, regions}).has_value();
  };
  CHECK(found({1, 10, 3, 2}, {{0, 3}, {3, 7}}, {"abc", "defghij"}));
  CHECK(found({1, 10, 3, 0}, {}, {}));
  CHECK_FALSE(found({1, 10, 3, 1}, {{0, 3}, {3, 7}}, {"abc", "defghij"}));  // count
  CHECK_FALSE(found({1, 10, 3, 2}, {{0, 3}}, {"abc", "defghij"}));          // table
  CHECK_FALSE(found({1, 10, 3, 0}, {{0, 3}}, {}));                          // stray table
  CHECK_FALSE(found({1, 10, 3, 1}, {{0, 4}}, {"abc"}));                     // length
  CHECK_FALSE(found({1, 10, 3, 1}, {{0, 0}}, {""}));                        // empty
  CHECK_FALSE(found({1, 10, 3, 2}, {{3, 7}, {0, 3}}, {"defghij", "abc"}));  // order
  CHECK_FALSE(found({1, 10, 3, 2}, {{0, 3}, {2, 7}}, {"abc", "defghij"}));  // overlap
  CHECK_FALSE(found({1, 9, 3, 2}, {{0, 3}, {3, 7}}, {"abc", "defghij"}));   // beyond the end
  CHECK_FALSE(found({1, 10, 3, 1}, {{UINT64_MAX, 3}}, {"abc"}));            // far beyond
  CHECK_FALSE(found({1, 10, 4, 1}, {{0, 3}}, {"abc"}));                     // operation
  std::string small(9, ' ');
  ObjectHeader header{1, 10, 3, 0};
  const RecoveredRegion region{{}, std::as_bytes(std::span(&header, 1))};
  const auto object = RecoveredObject::from({format::kTypeObject, {&region, 1}});
  REQUIRE(object);
  CHECK(object->apply_to(std::as_writable_bytes(std::span(small))).error().code ==
        Errc::kInvalidArgument);
}

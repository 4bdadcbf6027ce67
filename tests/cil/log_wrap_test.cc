// A small log that fills, frees and wraps.
#include <doctest/doctest.h>
#include <atomic>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/cil/object_item.h"
#include "probe.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a full log says who holds the tail, and its space is usable again after release()") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  Error full{};
  const auto fill = [&] {
    for (;;) {
      auto transaction = journal->begin(60000, 1);
      if (!transaction) {
        return transaction.error();
      }
      items.push_back(std::make_unique<Probe>(trace, 1));
      items.back()->regions = {std::string(60000, 'x')};
      REQUIRE(transaction->log(*items.back()).ok());
      REQUIRE(transaction->commit().ok());
    }
  };
  full = fill();
  CHECK(full.code == Errc::kLogFull);
  CHECK(full.value == journal->stats().tail.value());
  CHECK(items.size() > 10);
  CHECK(journal->force_all().ok());
  // Releasing one in the middle helps nobody; releasing the oldest does.
  // (A pass of the upkeep may have them just now, and lets go of them then.)
  (void)journal->release(*items[5]);
  CHECK(fill().code == Errc::kLogFull);
  for (std::size_t i = 0; i < 5; ++i) {
    (void)journal->release(*items[i]);
  }
  const std::size_t before = items.size();
  full = fill();
  CHECK(full.code == Errc::kLogFull);
  CHECK(full.value > 0);
  CHECK(items.size() > before);
  CHECK(journal->stats().log_used <= journal->info().data);
  finish(journal);
  CHECK(world.open()->recovery().end == LogEnd::kClean);
}

TEST_CASE("what is released in a log that was found full makes room, wherever it stands") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  const auto fill = [&] {
    const std::size_t before = items.size();
    for (;;) {
      auto transaction = journal->begin(20000, 1);
      if (!transaction) {
        CHECK(transaction.error().code == Errc::kLogFull);
        return items.size() - before;
      }
      items.push_back(std::make_unique<Probe>(trace, 1));
      items.back()->regions = {std::string(20000, 'x')};
      REQUIRE(transaction->log(*items.back()).ok());
      REQUIRE(transaction->commit().ok());
    }
  };
  REQUIRE(fill() > 10);
  // All that there is was logged again in vain.
  CHECK(fill() == 0);
  REQUIRE(journal->force_all().ok());
  for (std::size_t i = 0; i < items.size(); i += 2) {
    (void)journal->release(*items[i]);
  }
  CHECK(fill() > 2);
  finish(journal);
}

TEST_CASE("relogging the item at the tail moves the tail") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i < 8; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
  }
  auto journal = world.open();
  for (std::size_t round = 0; round < 300; ++round) {
    Probe& item = *items[round % items.size()];
    item.regions = {std::to_string(round) + std::string(30000, 'x')};
    REQUIRE(journal->force(commit(*journal, {&item}, 31000)).ok());
  }
  journal->audit();
  CHECK(journal->stats().written.value() > 8 * journal->info().data.value());
  finish(journal);
  std::map<std::uint32_t, std::string> newest;
  for (const FoundCheckpoint& checkpoint : world.read()) {
    for (const FoundItem& item : checkpoint.items) {
      newest[item.type] = item.regions[0];
    }
  }
  for (std::uint32_t i = 0; i < 8; ++i) {
    CHECK(newest[16 + i] == items[i]->regions[0]);
  }
}

namespace {

// At a quiet point: no transaction is open. (A pass of the upkeep may still have what it wanted to
// log again.)
void expect_nothing_reserved(const Journal& journal) {
  journal.audit();
  REQUIRE(soon([&] { return journal.stats().log_reserved == Bytes(0); }));
}

}  // namespace

TEST_CASE("a thousand laps, with a reopen now and then, deliver the newest state each time") {
  LogWorld world;
  std::uint64_t random = test_seed("laps", 11);
  constexpr std::size_t kObjects = 12;
  std::map<std::uint64_t, std::string> objects;
  std::uint64_t written = 0;
  const std::uint64_t goal = test_rounds(1'000, 20) * (1U << 20);
  while (written < goal) {
    std::map<std::uint64_t, std::string> found;
    auto opened = Journal::open(kLogPath, {}, [&](const RecoveredCheckpoint& checkpoint) -> Status {
      for (const RecoveredItem& item : checkpoint.items) {
        const auto object = RecoveredObject::from(item);
        REQUIRE(object);
        std::string bytes(object->bytes.size_bytes(), '\0');
        object->bytes.copy_to(bytes.data(), bytes.size());
        found[object->id] = bytes;
      }
      return {};
    });
    REQUIRE(opened.ok());
    REQUIRE(found == objects);
    auto& journal = *opened;
    CHECK(journal->recovery().end == LogEnd::kClean);
    std::vector<std::unique_ptr<ObjectItem>> items;
    for (std::uint64_t id = 0; id < kObjects; ++id) {
      items.push_back(std::make_unique<ObjectItem>(id));
    }
    // All that was recovered is logged again; then the old checkpoints may go.
    for (auto& [id, bytes] : objects) {
      items[id]->set(bytes.data(), bytes.size());
      commit(*journal, {items[id].get()}, ObjectItem::log_bytes(bytes.size()));
    }
    REQUIRE(journal->force_all().ok());
    expect_nothing_reserved(*journal);
    journal->release_recovered();
    journal->release_recovered();
    for (std::uint64_t i = 0; i < 300; ++i) {
      // Every object in turn, or a cold one would hold the tail.
      const std::uint64_t id = i % 2 == 0 ? i / 2 % kObjects : sim_random(random) % kObjects;
      objects[id] = random_bytes(random, 8 + sim_random(random) % 30000);
      items[id]->set(objects[id].data(), objects[id].size());
      const Sequence sequence =
          commit(*journal, {items[id].get()}, ObjectItem::log_bytes(objects[id].size()));
      if (sim_random(random) % 3 == 0) {
        REQUIRE(journal->force(sequence).ok());
        expect_nothing_reserved(*journal);
      }
    }
    expect_nothing_reserved(*journal);
    written += journal->stats().written.value();
    REQUIRE(journal->close().ok());
    journal.reset();
  }
}

TEST_CASE("what was recovered holds its space until release_recovered()") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  {
    auto journal = world.open();
    for (std::uint32_t i = 0; i < 12; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {std::string(60000, 'x')};
      REQUIRE(journal->force(commit(*journal, {items.back().get()}, 60000)).ok());
    }
    finish(journal);
  }
  auto journal = world.open();
  CHECK(world.found.size() == 12);
  CHECK(journal->stats().log_used.value() > 12 * 60000);
  Error error{};
  for (std::size_t i = 0; error.code != Errc::kLogFull; ++i) {
    REQUIRE(i < items.size());
    auto transaction = journal->begin(60000, 1);
    if (!transaction) {
      error = transaction.error();
      break;
    }
    REQUIRE(transaction->log(*items[i]).ok());
    REQUIRE(transaction->commit().ok());
  }
  CHECK(error.value == 0);
  journal->release_recovered();
  for (std::size_t i = 0; i < 6; ++i) {
    commit(*journal, {items[i].get()}, 60000);
  }
  finish(journal);
}

TEST_CASE("releasing an item wakes a thread that waits for the space it held") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  for (std::uint32_t i = 0; i < 15; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {std::string(60000, 'x')};
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, 60000)).ok());
  }
  auto transaction = journal->begin(1000, 1);
  REQUIRE(transaction.ok());
  bool granted = false;
  std::thread waiter([&] { granted = journal->begin(150000, 1).ok(); });
  let_others_run();
  for (std::size_t i = 0; i < 5; ++i) {
    (void)journal->release(*items[i]);  // False if it is being logged again at this moment.
  }
  waiter.join();
  CHECK(granted);
  CHECK(transaction->commit().ok());
  finish(journal);
}

TEST_CASE("releasing what was recovered wakes a thread that waits for space") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  {
    auto journal = world.open();
    for (std::uint32_t i = 0; i < 15; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {std::string(60000, 'x')};
      REQUIRE(journal->force(commit(*journal, {items.back().get()}, 60000)).ok());
    }
    finish(journal);
  }
  auto journal = world.open();
  // While a reservation is open a full log is not hopeless: the second one waits.
  auto transaction = journal->begin(1000, 1);
  REQUIRE(transaction.ok());
  bool granted = false;
  std::thread waiter([&] { granted = journal->begin(150000, 1).ok(); });
  let_others_run();
  journal->release_recovered();
  waiter.join();
  CHECK(granted);
  CHECK(transaction->commit().ok());
  finish(journal);
}

TEST_CASE("a log whose items live for ever is full once they were logged again all round it") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  const std::uint64_t data = journal->info().data.value();
  while (journal->stats().log_used.value() < data * 4 / 5) {
    items.push_back(std::make_unique<Probe>(trace, 1));
    items.back()->regions = {std::string(20'000, 'x')};
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, 21'000)).ok());
  }
  const auto written = [&, before = journal->stats().written.value()] {
    return journal->stats().written.value() - before;
  };
  std::atomic<bool> done{false};
  std::atomic<Errc> code{Errc::kSystem};
  std::thread waiter([&] {
    const auto transaction = journal->begin(200'000, 1);
    code = transaction ? Errc::kSystem : transaction.error().code;
    done = true;
  });
  while (!done && written() < 10 * data) {
    std::this_thread::yield();
  }
  CHECK(done);  // else they are written for as long as somebody waits
  CHECK(written() > 0);
  CHECK(written() <= 2 * data);
  for (const auto& item : items) {
    (void)journal->release(*item);
  }
  waiter.join();
  CHECK(code == Errc::kLogFull);
  finish(journal);
}

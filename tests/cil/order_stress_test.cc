// Transactions that depend on each other: what a log delivers stands in the order of commits.
//
// Threads change two objects at a time under their locks. Each object has a version, and each
// change writes down the versions of both. So in the log every change of one object is seen next
// to its partner, in the same checkpoint, and versions never go back.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "keel/cil/object_item.h"
#include "probe.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kObjects = 12;

struct Note {
  std::uint64_t version;  // of this object
  std::uint64_t order;    // of all changes, by the global count under both locks
  std::uint64_t partner;
  std::uint64_t partner_version;
};

struct Object {
  explicit Object(std::uint64_t id) : item(id) {}
  std::mutex mutex;
  ObjectItem item;
  std::uint64_t version = 0;
  std::string bytes;
};

using Objects = std::vector<std::unique_ptr<Object>>;

void write_down(Object& object, const Note& note, std::size_t padding) {
  object.bytes.assign(sizeof note + padding, 'p');
  std::memcpy(object.bytes.data(), &note, sizeof note);
  object.item.set(object.bytes.data(), object.bytes.size());
}

Sequence change(Journal& journal, Objects& objects, std::uint64_t& random,
                std::atomic<std::uint64_t>& order, std::size_t most_padding) {
  std::size_t a = sim_random(random) % kObjects;
  std::size_t b = (a + 1 + sim_random(random) % (kObjects - 1)) % kObjects;
  if (a > b) {
    std::swap(a, b);
  }
  auto transaction = journal.begin(2 * ObjectItem::log_bytes(sizeof(Note) + most_padding), 2);
  KEEL_CHECK(transaction.ok(), "begin");
  const std::lock_guard<std::mutex> first(objects[a]->mutex);
  const std::lock_guard<std::mutex> second(objects[b]->mutex);
  const std::uint64_t now = ++order;
  const std::uint64_t va = ++objects[a]->version;
  const std::uint64_t vb = ++objects[b]->version;
  write_down(*objects[a], {va, now, b, vb}, sim_random(random) % (most_padding + 1));
  write_down(*objects[b], {vb, now, a, va}, sim_random(random) % (most_padding + 1));
  KEEL_CHECK(transaction->log(objects[b]->item).ok(), "log");
  KEEL_CHECK(transaction->log(objects[a]->item).ok(), "log");
  const auto sequence = transaction->commit();
  KEEL_CHECK(sequence.ok(), "commit");
  return *sequence;
}

std::pair<std::uint64_t, Note> read_note(const FoundItem& item) {
  std::uint64_t id = 0;
  Note note{};
  REQUIRE(item.regions.size() == 2);
  std::memcpy(&id, item.regions[0].data(), sizeof id);
  std::memcpy(&note, item.regions[1].data(), sizeof note);
  return {id, note};
}

struct Placed {
  std::uint64_t id;
  Note note;
};

// Each stands where it was committed last: as far as changes had an object in common, in the order
// of the changes; in one change, as they were logged.
void check_places(const std::vector<Placed>& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::size_t j = i + 1; j < items.size(); ++j) {
      const auto& [a, first] = items[i];
      const auto& [b, second] = items[j];
      const bool common =
          a == second.partner || b == first.partner || first.partner == second.partner;
      if (common) {
        CHECK(first.order <= second.order);
        CHECK((first.order < second.order || a > b));
      }
    }
  }
}

void check_order(const Found& found) {
  std::array<Note, kObjects> newest{};
  const bool from_start = found.front().sequence == 1;
  for (const FoundCheckpoint& checkpoint : found) {
    std::vector<Placed> fresh;
    std::array<std::uint64_t, kObjects> before{};  // how often each stands in this checkpoint
    for (const FoundItem& item : checkpoint.items) {
      const auto [id, note] = read_note(item);
      REQUIRE(id < kObjects);
      CHECK(++before.at(id) == 1);
      // An item that the upkeep logged again has the version that it had.
      CHECK(note.version >= newest.at(id).version);
      // So has one that is first seen behind the tail, if its commit is no more.
      if (note.version > newest.at(id).version && (from_start || newest.at(id).version != 0)) {
        fresh.push_back({id, note});
      }
      newest.at(id) = note;
    }
    // Whole transactions: where a change is, the partner is as new; or it is not there yet, if the
    // change was logged again and the tail has passed where both stood.
    for (std::size_t id = 0; id < kObjects; ++id) {
      if (newest.at(id).version != 0 && newest.at(newest.at(id).partner).version != 0) {
        CHECK(newest.at(newest.at(id).partner).version >= newest.at(id).partner_version);
      }
    }
    check_places(fresh);
  }
}

void run(const JournalConfig& config, std::uint64_t log_bytes, std::size_t padding,
         std::uint64_t changes) {
  LogWorld world({.size = Bytes(log_bytes)});
  const std::uint64_t seed = test_seed("order", 5);
  Objects objects;
  for (std::uint64_t id = 0; id < kObjects; ++id) {
    objects.push_back(std::make_unique<Object>(id));
  }
  std::atomic<std::uint64_t> order{0};
  auto journal = world.open(config);
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::uint64_t random = seed * 100 + t;
      for (std::uint64_t i = 0; i < changes; ++i) {
        const Sequence sequence = change(*journal, objects, random, order, padding);
        if (sim_random(random) % 16 == 0) {
          KEEL_CHECK(journal->force(sequence).ok(), "force");
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  journal->audit();
  finish(journal);
  const Found found = world.read();
  check_order(found);
  std::array<std::uint64_t, kObjects> last{};
  for (const FoundCheckpoint& checkpoint : found) {
    for (const FoundItem& item : checkpoint.items) {
      const auto [id, note] = read_note(item);
      last.at(id) = note.version;
    }
  }
  for (std::size_t id = 0; id < kObjects; ++id) {
    CHECK(last.at(id) == objects[id]->version);
  }
}

}  // namespace

TEST_CASE("changes that depend on each other are delivered in their order, whole: small ones") {
  run({}, std::uint64_t{16} << 20, 300, test_rounds(1500, 150));
}

TEST_CASE(
    "changes that depend on each other are delivered in their order, whole: a log that wraps") {
  run({}, kMinLogBytes.value(), 5000, test_rounds(800, 60));
}

TEST_CASE(
    "changes that depend on each other are delivered in their order, whole: several in flight") {
  for (const unsigned depth : {1U, 4U, 8U}) {
    run({.push_threshold = Bytes(600'000), .depth = depth}, std::uint64_t{64} << 20, 100'000,
        test_rounds(40, 8));
  }
}

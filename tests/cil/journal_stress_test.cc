// Threads that commit, force, release, look and close: for ThreadSanitizer, and for lost wake-ups.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "keel/cil/object_item.h"
#include "probe.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

struct Object {
  explicit Object(std::uint64_t id) : item(id) {}
  std::mutex mutex;  // the client's object lock
  ObjectItem item;
  std::string bytes;
};

constexpr std::size_t kObjects = 16;
using Objects = std::vector<std::unique_ptr<Object>>;

// Commits a change of one or two objects, locked in order. False once the journal is shut down.
bool change(Journal& journal, Objects& objects, std::uint64_t& random, Sequence& sequence) {
  std::size_t a = sim_random(random) % objects.size();
  std::size_t b = sim_random(random) % objects.size();
  auto transaction = journal.begin(2 * ObjectItem::log_bytes(6000), 2);
  if (!transaction) {
    return transaction.error().code == Errc::kLogFull;
  }
  if (a > b) {
    std::swap(a, b);
  }
  const std::unique_lock<std::mutex> first(objects[a]->mutex);
  const std::unique_lock<std::mutex> second =
      a != b ? std::unique_lock<std::mutex>(objects[b]->mutex) : std::unique_lock<std::mutex>();
  for (const std::size_t i : {a, b}) {
    Object& object = *objects[i];
    object.bytes = random_bytes(random + i, 1 + sim_random(random) % 6000);
    object.item.set(object.bytes.data(), object.bytes.size());
    KEEL_CHECK(transaction->log(object.item).ok(), "log");
  }
  const auto committed = transaction->commit();
  if (committed) {
    sequence = *committed;
  }
  return committed.ok();
}

struct Crew {
  std::vector<std::thread> threads;
  std::atomic<bool> stop{false};

  template <class Act>
  void until_stopped(Act act) {
    threads.emplace_back([this, act]() mutable {
      while (!stop) {
        act();
        std::this_thread::yield();
      }
    });
  }
  void join() {
    for (std::thread& thread : threads) {
      thread.join();
    }
    threads.clear();
  }
};

// Runs committers beside forcers, releasers and readers. `rounds` changes per committer.
void run_crew(Journal& journal, Objects& objects, std::uint64_t seed, std::uint64_t rounds) {
  Crew side, committers;
  std::atomic<std::uint64_t> newest{0};
  for (std::uint64_t t = 0; t < 3; ++t) {
    committers.threads.emplace_back([&, t] {
      std::uint64_t random = seed * 10 + t;
      Sequence sequence{};
      for (std::uint64_t i = 0; i < rounds; ++i) {
        if (!change(journal, objects, random, sequence)) {
          return;
        }
        newest = std::max(newest.load(), sequence.value());
        if (sim_random(random) % 8 == 0 && !journal.force(sequence).ok()) {
          return;
        }
      }
    });
  }
  side.until_stopped([&] { (void)journal.force(Sequence(newest.load())); });
  side.until_stopped([&, random = seed]() mutable {
    Object& object = *objects[sim_random(random) % objects.size()];
    const std::lock_guard<std::mutex> lock(object.mutex);
    (void)journal.release(object.item);
  });
  side.until_stopped([&] {
    const JournalStats stats = journal.stats();
    KEEL_CHECK(stats.stable < stats.current, "stable", stats.stable.value());
    KEEL_CHECK(stats.log_used + stats.log_reserved <= journal.info().data, "used");
    (void)journal.stable_sequence();
    for (const auto& object : objects) {
      (void)object->item.pinned();
    }
  });
  side.until_stopped([&] { journal.release_recovered(); });
  committers.join();
  side.stop = true;
  side.join();
}

Objects make_objects() {
  Objects objects;
  for (std::uint64_t id = 0; id < kObjects; ++id) {
    objects.push_back(std::make_unique<Object>(id));
  }
  return objects;
}

using Contents = std::array<std::string, kObjects>;

// What a reopen would find of each; the journal must be gone.
Contents contents_of(LogWorld& world) {
  Contents found;
  for (const FoundCheckpoint& checkpoint : world.read()) {
    for (const FoundItem& item : checkpoint.items) {
      std::uint64_t id = 0;
      std::memcpy(&id, item.regions[0].data(), sizeof id);
      found.at(id) = item.regions.size() > 1 ? item.regions[1] : "";
    }
  }
  return found;
}

}  // namespace

TEST_CASE("threads that commit, force, release and look: each forced change is there at the end") {
  LogWorld world;
  const std::uint64_t seed = test_seed("stress", 41);
  for (std::uint64_t round = 0; round < 3; ++round) {
    Objects objects = make_objects();
    auto journal = world.open();
    run_crew(*journal, objects, seed + round, test_rounds(1500, 200));
    // The last of the crew may have released every one.
    Object& kept = *objects[round];
    kept.item.set(kept.bytes.data(), kept.bytes.size());
    commit(*journal, {&kept.item}, ObjectItem::log_bytes(kept.bytes.size()));
    REQUIRE(journal->force_all().ok());
    const SimContent killed = world.disk.image(kLogPath);
    Contents forced;  // of those that were not released
    for (std::size_t id = 0; id < kObjects; ++id) {
      forced[id] = objects[id]->item.tracked() ? objects[id]->bytes : "";
    }
    CHECK_FALSE(forced[round].empty());
    // So that none is missing at the end.
    for (const auto& object : objects) {
      object->item.set(object->bytes.data(), object->bytes.size());
      commit(*journal, {&object->item}, ObjectItem::log_bytes(object->bytes.size()));
    }
    journal->audit();
    finish(journal);
    const Contents closed = contents_of(world);
    world.disk.set_image(kLogPath, killed);
    const Contents found = contents_of(world);
    for (std::size_t id = 0; id < kObjects; ++id) {
      CHECK(closed[id] == objects[id]->bytes);
      CHECK((forced[id].empty() || found[id] == forced[id]));
    }
  }
}

TEST_CASE("a disk that fails in the middle of it all wakes everybody with the same error") {
  const std::uint64_t seed = test_seed("failing stress", 42);
  for (std::uint64_t round = 0; round < test_rounds(40, 6); ++round) {
    LogWorld world;
    Objects objects = make_objects();
    auto journal = world.open();
    world.disk.inject({.op = round % 2 == 0 ? SimOp::kWrite : SimOp::kFlush,
                       .nth = 1 + (seed + round * 7) % 60,
                       .for_good = round % 4 < 2});
    run_crew(*journal, objects, seed + round, 100000);
    const auto refused = journal->begin(100, 1);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == Errc::kIo);
    const Status forced = journal->force_all();
    REQUIRE_FALSE(forced.ok());
    CHECK(forced.error().code == Errc::kIo);
    CHECK_FALSE(journal->close().ok());
    for (const auto& object : objects) {
      CHECK_FALSE(object->item.pinned());
    }
  }
}

TEST_CASE("a context is taken apart before the one after the next gathers the same item") {
  constexpr std::uint32_t kItems = 20'000;
  constexpr std::uint32_t kAtOnce = 200;
  const std::uint64_t rounds = test_rounds(40, 3);
  LogWorld world({.size = Bytes(256U << 20)});
  Trace trace;
  Probe small(trace, 1), last(trace, 2);
  small.regions = {"x"};
  small.after = last.after = Tracking::kRelease;
  std::vector<std::unique_ptr<Probe>> items;
  for (std::uint32_t i = 0; i < kItems; ++i) {
    items.push_back(std::make_unique<Probe>(trace, 3));
    items.back()->regions = {std::string(40, 'x')};
    items.back()->after = Tracking::kRelease;
  }
  auto journal = world.open({.cil_memory = Bytes(256U << 20), .depth = 4});
  std::vector<std::string> expected;
  const auto commit_last = [&](const std::string& text) {
    expected.push_back(text);
    last.regions = {text};
    return commit(*journal, {&last});
  };
  for (std::uint64_t round = 0; round < rounds; ++round) {
    for (std::uint32_t i = 0; i < kItems; i += kAtOnce) {
      std::vector<LogItem*> some;
      for (std::uint32_t k = 0; k < kAtOnce; ++k) {
        some.push_back(items[i + k].get());
      }
      commit(*journal, some, kAtOnce * 100);
    }
    // So large that it is not written alone: the next may be closed beside it.
    const Sequence large = commit_last("in the large one");
    std::thread forcer([&] { CHECK(journal->force(large).ok()); });
    yield_until([&] { return journal->stats().current > large; });
    (void)journal->force(commit(*journal, {&small}), 1);  // a worker pushes it
    yield_until([&] { return journal->stats().current > next(large); });
    commit_last("after the next");
    forcer.join();
    REQUIRE(journal->force_all().ok());
    journal->audit();
  }
  const SimContent image = world.disk.image(kLogPath);
  finish(journal);
  world.disk.set_image(kLogPath, image);  // as a kill leaves it
  std::vector<std::string> found;
  for (const FoundCheckpoint& checkpoint : world.read()) {
    for (const FoundItem& item : checkpoint.items) {
      if (item.type == last.type()) {
        found.push_back(item.regions[0]);
      }
    }
  }
  CHECK(found == expected);
}

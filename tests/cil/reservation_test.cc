// Whatever becomes of transactions, what they reserved comes back to the byte, and the bounds hold.
//
// Threads begin transactions of all shapes over objects of their own and shared ones, on a log and
// with a memory so small that everybody waits all the time. At quiet points the journal's audit
// finds an owner for every byte that is granted.
#include <doctest/doctest.h>

#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "probe.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

enum class Home : std::uint8_t { kNone, kAtOnce, kLater, kReluctant, kDone };

// An item of random size. Its home is simulated: it says that it is there.
class Thing : public LogItem {
 public:
  Thing(Journal*& journal, Home kind) : LogItem(16), home(kind), journal_(journal) {}

  std::mutex mutex;  // the object lock
  std::size_t bytes = 0;
  std::size_t regions = 0;
  bool is_ordered = false;
  const Home home;
  std::atomic<bool> wants_home{false};  // kLater: for the thread that writes home
  std::atomic<int> refusals{0};

 protected:
  void size(ItemSize& size) const override {
    if (is_ordered) {
      size.ordered();
    }
    for (std::size_t i = 0; i < regions && !is_ordered; ++i) {
      size.region(bytes / regions);
    }
  }
  void format(ItemFormatter& formatter) const override {
    for (std::size_t i = 0; i < regions; ++i) {
      std::byte* place = formatter.reserve(bytes / regions);
      if (bytes / regions != 0) {
        place[0] = std::byte{1};
      }
    }
  }
  Tracking committed(Lsn) override {
    return home == Home::kDone ? Tracking::kRelease : Tracking::kTrack;
  }
  [[nodiscard]] bool has_home() const override {
    return home == Home::kAtOnce || home == Home::kLater || home == Home::kReluctant;
  }
  PushResult push() override {
    if (home == Home::kLater) {
      wants_home = true;
      return PushResult::kStarted;
    }
    if (home == Home::kReluctant && ++refusals % 4 != 0) {
      return PushResult::kLocked;
    }
    // As if under the object lock, which a journal's thread may not wait for.
    const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    if (!lock.owns_lock()) {
      return PushResult::kLocked;
    }
    (void)journal_->release(*this);
    return PushResult::kStarted;
  }

 private:
  Journal*& journal_;
};

using Things = std::vector<std::unique_ptr<Thing>>;

// One transaction of any shape.
void act(Journal& journal, Things& things, std::uint64_t& random) {
  const std::size_t most = 1 + sim_random(random) % (sim_random(random) % 8 == 0 ? 30000 : 3000);
  const auto count = static_cast<std::uint32_t>(1 + sim_random(random) % 3);
  auto begun = journal.begin(most, count);
  if (!begun) {
    KEEL_CHECK(begun.error().code == Errc::kLogFull, "begin");
    return;
  }
  const std::size_t first = sim_random(random) % things.size();
  std::vector<std::unique_lock<std::mutex>> locks;
  Transaction transaction = std::move(*begun);  // ends before the locks
  for (std::size_t i = 0; i < count && first + i < things.size(); ++i) {
    Thing& thing = *things[first + i];
    locks.emplace_back(thing.mutex);
    thing.bytes = sim_random(random) % 16 == 0 ? 4 * most : most / count;
    thing.regions = sim_random(random) % 10 == 0 ? 0 : 1 + sim_random(random) % 4;
    thing.is_ordered = sim_random(random) % 16 == 0;
    KEEL_CHECK(transaction.log(thing).ok(), "log");
  }
  const std::uint64_t fate = sim_random(random) % 16;
  if (fate == 0) {
    return;  // cancelled before
  }
  auto committed = transaction.commit();
  if (!committed) {
    KEEL_CHECK(committed.error().code == Errc::kReservationExceeded, "commit");
    for (std::size_t i = 0; i < locks.size() && fate < 8; ++i) {
      things[first + i]->bytes = 0;  // smaller; else it is cancelled now
      things[first + i]->regions = 1;
    }
    committed = fate < 8 ? transaction.commit() : committed;
    KEEL_CHECK(fate >= 8 || committed.ok(), "commit again");
  }
}

struct Shape {
  Home home;
  std::uint64_t memory_bytes;
  std::size_t things;
};

void go_home(Journal& journal, Things& things) {
  for (const auto& thing : things) {
    if (thing->wants_home.exchange(false)) {
      const std::lock_guard<std::mutex> lock(thing->mutex);
      (void)journal.release(*thing);
    }
  }
}

void run(const Shape& shape, std::uint64_t seed) {
  LogWorld world;
  Journal* at = nullptr;
  Things things;
  constexpr Home kMixed[] = {Home::kNone, Home::kAtOnce, Home::kLater, Home::kReluctant,
                             Home::kDone};
  for (std::size_t i = 0; i < shape.things; ++i) {
    const Home home = shape.home == Home::kNone && shape.things > 20 ? kMixed[i % 5] : shape.home;
    things.push_back(std::make_unique<Thing>(at, home));
  }
  auto journal =
      world.open({.cil_memory = Bytes(shape.memory_bytes), .depth = 1 + unsigned(seed % 4)});
  at = journal.get();
  for (std::uint64_t quiet = 0; quiet < test_rounds(8, 2); ++quiet) {
    std::vector<std::thread> threads;
    std::atomic<bool> stop{false};
    for (std::uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::uint64_t random = seed * 1000 + quiet * 10 + t;
        for (std::uint64_t i = 0; i < test_rounds(400, 60); ++i) {
          act(*journal, things, random);
          if (sim_random(random) % 32 == 0) {
            KEEL_CHECK(journal->force_all().ok(), "force");
          }
        }
      });
    }
    std::thread side([&] {
      while (!stop) {
        go_home(*journal, things);
        const JournalStats stats = journal->stats();  // checks the sums
        KEEL_CHECK(stats.memory.value() <= shape.memory_bytes, "memory");
        std::this_thread::yield();
      }
    });
    for (std::thread& thread : threads) {
      thread.join();
    }
    stop = true;
    side.join();
    REQUIRE(journal->force_all().ok());
    yield_until([&] { return journal->stats().in_flight == 0; });
    // A pass of the upkeep may still have what it wanted to log again.
    CHECK(soon([&] { return journal->stats().log_reserved == Bytes(0); }));
    journal->audit();
  }
  finish(journal);
  for (const auto& thing : things) {
    CHECK_FALSE(thing->pinned());
    CHECK_FALSE(thing->tracked());
  }
}

}  // namespace

TEST_CASE("every byte reserved comes back: items without a home, which are logged again") {
  const std::uint64_t seed = test_seed("homeless", 1);
  for (std::uint64_t i = 0; i < 3; ++i) {
    run({Home::kNone, 400'000, 12}, seed + i);
  }
}

TEST_CASE("every byte reserved comes back: items that go home at once, later, or reluctantly") {
  const std::uint64_t seed = test_seed("homes", 11);
  run({Home::kAtOnce, 400'000, 60}, seed);
  run({Home::kLater, 400'000, 60}, seed + 1);
  run({Home::kReluctant, 400'000, 60}, seed + 2);
}

TEST_CASE("every byte reserved comes back: items that are done when they are stable, and a mix") {
  const std::uint64_t seed = test_seed("mixed homes", 21);
  run({Home::kDone, 400'000, 60}, seed);
  run({Home::kNone, 400'000, 60}, seed + 1);
  run({Home::kNone, 2'000'000, 60}, seed + 2);
}

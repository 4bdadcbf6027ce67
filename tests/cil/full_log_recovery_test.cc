// Recovery of a log with next to no room left, whose tail an intent holds: whoever finds it can
// finish what was begun, and go on, however often that is interrupted.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "intent_world.h"
#include "item_home.h"
#include "keel/cil/intent_item.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

using Ids = std::set<std::uint64_t>;

Status try_commit(Journal& journal, LogItem& item, std::size_t bytes, std::uint32_t intents) {
  auto transaction = journal.begin(bytes, 1, intents);
  if (!transaction) {
    return transaction.error();
  }
  REQUIRE(transaction->log(item).ok());
  REQUIRE(transaction->commit().ok());
  REQUIRE(journal.force_all().ok());
  return {};
}

// A log as a kill leaves it: a few intents at its tail, and then items without a home, smaller and
// smaller, until not the least transaction finds room.
struct FullLog {
  explicit FullLog(std::uint64_t intents) {
    Trace trace;
    std::vector<std::unique_ptr<Intent>> begun;
    std::vector<std::unique_ptr<Probe>> items;
    auto journal = world.open();
    for (std::uint64_t id = 1; id <= intents; ++id) {
      begun.push_back(std::make_unique<Intent>(id));
      REQUIRE(try_commit(*journal, *begun.back(), IntentItem::log_bytes(100), 1).ok());
      open.insert(id);
    }
    for (std::size_t bytes = 60'000; bytes > 100; bytes /= 2) {
      Status status;
      while (status.ok()) {
        items.push_back(std::make_unique<Probe>(trace, 1));
        items.back()->regions = {std::string(bytes, 'x')};
        status = try_commit(*journal, *items.back(), bytes, 0);
      }
      REQUIRE(status.error().code == Errc::kLogFull);
    }
    killed = world.disk.snapshot();
    finish(journal);
  }

  LogWorld world;
  Ids open;
  SimSnapshot killed;
};

Ids ids_of_open(const Journal& journal) {
  const auto ids = open_intents(journal);
  return {ids.begin(), ids.end()};
}

std::unique_ptr<Journal> reopen() {
  auto journal = Journal::open(kLogPath, {}, kIgnore);
  if (!journal) {
    FAIL(journal.error().message());
  }
  return std::move(*journal);
}

void finish_intent(Journal& journal, IntentItem& intent, DoneItem& done) {
  auto transaction = journal.begin_done(intent);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(done).ok());
  const auto sequence = transaction->commit();
  REQUIRE(sequence.ok());
  REQUIRE(journal.force(*sequence).ok());
}

struct Moment {
  SimSnapshot disk;
  Ids surely_open;  // no done was begun
  Ids maybe_open;   // beside those: the done's force had not returned
};

// What happens to be in the log, and what is done about it, until a power cut.
class Life {
 public:
  Life(SimDisk& disk, std::uint64_t seed) : disk_(disk), random_(seed) {}

  // Finishes all that was begun, and then uses the log again.
  std::vector<Moment> run(const Ids& surely, const Ids& maybe, bool works_first) {
    surely_ = surely;
    maybe_ = maybe;
    disk_.on_io([this](const SimIo&) {
      const std::lock_guard lock(mutex_);
      moments_.push_back({disk_.snapshot(), surely_, maybe_});
    });
    auto journal = reopen();
    CHECK(journal->recovery().end != LogEnd::kDamaged);
    const Ids found = ids_of_open(*journal);
    CHECK(std::includes(found.begin(), found.end(), surely.begin(), surely.end()));
    Ids most = surely;
    most.insert(maybe.begin(), maybe.end());
    CHECK(std::includes(most.begin(), most.end(), found.begin(), found.end()));
    {
      const std::lock_guard lock(mutex_);
      surely_ = found;
      maybe_.clear();
    }
    if (works_first) {
      journal->release_recovered();
      work(*journal, 4);
    }
    for (IntentItem* intent : journal->recovered_intents()) {
      finish_one(*journal, *intent);
    }
    journal->release_recovered();
    work(*journal, 40);
    journal->audit();
    CHECK(journal->stats().log_reserved == Bytes(0));
    finish(journal);
    disk_.on_io(nullptr);
    return std::move(moments_);
  }

 private:
  void finish_one(Journal& journal, IntentItem& intent) {
    {
      const std::lock_guard lock(mutex_);
      surely_.erase(intent.id());
      maybe_.insert(intent.id());
    }
    DoneItem done(intent);
    finish_intent(journal, intent, done);
    const std::lock_guard lock(mutex_);
    maybe_.erase(intent.id());
  }

  // What an intent asks for takes log space of its own.
  void work(Journal& journal, int rounds) {
    Trace trace;
    Probe item(trace, 2);
    item.after = Tracking::kRelease;
    for (int i = 0; i < rounds; ++i) {
      item.regions = {std::string(8000 + sim_random(random_) % 20'000, 'w')};
      if (const Status status = try_commit(journal, item, item.regions[0].size(), 0); !status) {
        FAIL(status.error().message());
      }
    }
  }

  SimDisk& disk_;
  std::uint64_t random_;
  std::mutex mutex_;
  Ids surely_, maybe_;
  std::vector<Moment> moments_;
};

// Lives through what the crash left, and crashes that at a few of its moments, `depth` times over.
std::uint64_t crash(const Moment& moment, std::uint64_t seed, int depth, bool works_first) {
  SimDisk disk;
  disk.boot(moment.disk, seed);
  const ScopedOs scope(disk);
  CAPTURE(seed);
  CAPTURE(depth);
  Life life(disk, seed);
  const auto moments = life.run(moment.surely_open, moment.maybe_open, works_first);
  std::uint64_t lives = 1;
  std::uint64_t random = seed;
  for (int child = 0; depth > 1 && child < 4; ++child) {
    // Most of them while intents are open.
    const std::size_t range =
        child == 0 ? moments.size() : std::min<std::size_t>(24, moments.size());
    lives += crash(moments[sim_random(random) % range], sim_random(random), depth - 1, works_first);
  }
  return lives;
}

}  // namespace

TEST_CASE("a log full to the brim is recovered, and every intent finds the room for its done") {
  const FullLog full(5);
  SimDisk disk;
  disk.boot_with(full.killed, [](const SimSector&) { return SimFate::kKeep; });
  const ScopedOs scope(disk);
  auto journal = reopen();
  REQUIRE(ids_of_open(*journal) == full.open);
  CHECK(journal->begin(60'000, 1).error().code == Errc::kLogFull);
  for (IntentItem* intent : journal->recovered_intents()) {
    DoneItem done(*intent);
    finish_intent(*journal, *intent, done);
    journal->audit();
  }
  CHECK(journal->begin(60'000, 1).error().code == Errc::kLogFull);
  journal->release_recovered();
  CHECK(journal->begin(60'000, 1).ok());
  finish(journal);
}

TEST_CASE("recovery of a full log may crash, and again, and every life finishes what it finds") {
  const std::uint64_t seed = test_seed("full log", 1);
  const FullLog full(5);
  std::uint64_t lives = 0;
  for (std::uint64_t round = 0; round < test_rounds(4, 1); ++round) {
    lives += crash({full.killed, full.open, {}}, seed + round, 3, false);
  }
  MESSAGE("lives: " << lives);
}

TEST_CASE("an intent that was recovered does not keep its own work out of a full log") {
  const std::uint64_t seed = test_seed("full log, work first", 11);
  const FullLog full(5);
  for (std::uint64_t round = 0; round < test_rounds(4, 1); ++round) {
    crash({full.killed, full.open, {}}, seed + round, 3, true);
  }
}

// Partial writes and ranges of memory against a plain model.
//
// Random writes, erasures, forces and homecomings on a small simulated log. At some I/Os the disk
// is remembered, with what was home and what had been forced by then. Afterwards each of these
// moments is crashed, and what recovery lays over what was home must be, for every object and
// stretch of memory, exactly what the last recovered checkpoint left of it. Then the next life
// begins there.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "item_home.h"
#include "keel/cil/object_item.h"
#include "keel/cil/range_item.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kObjects = 6;
constexpr std::uint64_t kRanges = 3;
constexpr std::size_t kMostBytes = 20000;
constexpr int kSteps = 400;

struct Moment {
  SimSnapshot disk;
  ItemHome home;
  std::uint64_t forced;
};

class Life {
 public:
  Life(std::uint64_t seed, SimDisk& disk, ItemHome home)
      : random_(seed), disk_(disk), home_(std::move(home)), now_(home_) {}

  void run() {
    auto opened = Journal::open(kLogPath, {}, now_.handler());
    REQUIRE(opened.ok());
    journal_ = std::move(*opened);
    forced_ = journal_->recovery().last_sequence.value();
    states_.push_back({forced_, now_});
    make_items();
    disk_.on_io([this](const SimIo&) {
      // All of one moment, whichever thread does the I/O.
      const std::lock_guard lock(mutex_);
      if (sim_random(moment_random_) % 8 == 0) {
        moments_.push_back({disk_.snapshot(), home_, forced_});
      }
    });
    for (int i = 0; i < kSteps; ++i) {
      step();
    }
    disk_.on_io(nullptr);
    moments_.push_back({disk_.snapshot(), home_, forced_});
    REQUIRE(journal_->force_all().ok());
    finish(journal_);
  }

  // The state that the last recovered sequence must have left.
  void check(const Moment& moment, std::uint64_t crash_seed, SimDisk& after,
             ItemHome& found) const {
    after.boot(moment.disk, crash_seed);
    const ScopedOs scope(after);
    found = moment.home;
    const auto report = scan_log(kLogPath, found.handler());
    REQUIRE(report.ok());
    REQUIRE(report->end != LogEnd::kDamaged);
    const std::uint64_t last = std::max(report->last_sequence.value(), states_.front().sequence);
    REQUIRE(last >= moment.forced);
    const ItemHome* expected = nullptr;
    for (const State& state : states_) {
      expected = state.sequence <= last ? &state.content : expected;
    }
    REQUIRE(expected != nullptr);
    CHECK((found.objects == expected->objects));
    CHECK((found.memory == expected->memory));
  }

  [[nodiscard]] const std::vector<Moment>& moments() const { return moments_; }

 private:
  struct State {
    std::uint64_t sequence;
    ItemHome content;
  };
  struct Object {
    explicit Object(std::uint64_t id) : item(id) {}
    ObjectItem item;
    std::string bytes;
    bool exists = false;
    bool committed = false;  // by this life
  };
  struct Memory {
    std::string bytes;
    std::unique_ptr<RangeItem> item;
    bool committed = false;
  };

  std::size_t below(std::size_t limit) { return sim_random(random_) % limit; }

  void make_items() {
    for (std::uint64_t id = 0; id < kObjects; ++id) {
      Object& object = *(objects_[id] = std::make_unique<Object>(id));
      if (const auto at = now_.objects.find(id); at != now_.objects.end()) {
        object.bytes = at->second;
        object.exists = true;
        object.item.attach(bytes_of(object.bytes));
      }
    }
    for (std::uint64_t id = 0; id < kRanges; ++id) {
      Memory& memory = *(memories_[id] = std::make_unique<Memory>());
      memory.bytes = now_.memory[id];
      auto made = RangeItem::create(id, memory.bytes.data(), memory.bytes.size());
      REQUIRE(made.ok());
      memory.item = std::move(*made);
    }
  }

  void step() {
    const std::size_t draw = below(20);
    if (draw < 3) {
      force();
      journal_->audit();
    } else if (draw < 8) {
      homecoming(below(kObjects + kRanges));
    } else {
      commit_some();
    }
    if (below(100) == 0) {
      make_room();
    }
  }

  void force() {
    REQUIRE(journal_->force_all().ok());
    const std::lock_guard lock(mutex_);
    // Not the newest commit's: a transaction that changed nothing opens no checkpoint.
    forced_ = journal_->stable_sequence().value();
  }

  // What was recovered is home once all of it is: the items of it that this life has not committed.
  void make_room() {
    force();
    {
      const std::lock_guard lock(mutex_);
      home_ = now_;
    }
    journal_->release_recovered();
    for (std::size_t i = 0; i < kObjects + kRanges; ++i) {
      homecoming(i);
    }
  }

  void homecoming(std::size_t which) {
    if (which < kObjects) {
      Object& object = *objects_[which];
      if (!object.committed || object.item.pinned()) {
        object.item.clean();  // without effect, or true of one whose marks were never made
        return;
      }
      {
        const std::lock_guard lock(mutex_);
        object.exists ? void(home_.objects[which] = object.bytes)
                      : void(home_.objects.erase(which));
      }
      (void)journal_->release(object.item);
      object.item.clean();
      return;
    }
    Memory& memory = *memories_[which - kObjects];
    if (!memory.committed || memory.item->pinned()) {
      memory.item->clean();
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      home_.memory[which - kObjects] = memory.bytes;
    }
    (void)journal_->release(*memory.item);
    memory.item->clean();
  }

  Transaction begin(std::size_t bytes) {
    for (;;) {
      auto transaction = journal_->begin(bytes, 3);
      if (transaction) {
        return std::move(*transaction);
      }
      REQUIRE(transaction.error().code == Errc::kLogFull);
      make_room();
    }
  }

  void commit_some() {
    const std::size_t count = 1 + below(3);
    Transaction transaction = begin(count * ObjectItem::log_bytes(kMostBytes));
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t which = below(kObjects + kRanges);
      LogItem& item =
          which < kObjects ? change(*objects_[which]) : change(*memories_[which - kObjects]);
      REQUIRE(transaction.log(item).ok());
    }
    const auto sequence = transaction.commit();
    REQUIRE(sequence.ok());
    states_.push_back({sequence->value(), now_});
  }

  LogItem& change(Object& object) {
    object.committed = true;
    const std::size_t draw = below(16);
    if (!object.exists || draw == 0) {
      object.bytes = random_bytes(random_, below(kMostBytes));
      object.item.set(bytes_of(object.bytes));
      object.exists = true;
    } else if (draw == 1) {
      object.bytes.clear();
      object.item.erase();
      object.exists = false;
    } else {
      if (draw < 5) {
        object.bytes.resize(below(kMostBytes), static_cast<char>('a' + below(26)));
        object.item.attach(bytes_of(object.bytes));
      }
      write(object.bytes, object.item);
    }
    if (object.exists) {
      now_.objects[object.item.id()] = object.bytes;
    } else {
      now_.objects.erase(object.item.id());
    }
    return object.item;
  }

  LogItem& change(Memory& memory) {
    memory.committed = true;
    write(memory.bytes, *memory.item);
    now_.memory[memory.item->id()] = memory.bytes;
    return *memory.item;
  }

  template <class Item>
  void write(std::string& bytes, Item& item) {
    for (std::size_t count = below(4); count > 0 && !bytes.empty(); --count) {
      const std::size_t at = below(bytes.size());
      const std::size_t length =
          below(std::min<std::size_t>(bytes.size() - at, 1 + below(6000)) + 1);
      bytes.replace(at, length, random_bytes(random_ + count, length));
      item.mark(at, length);
    }
  }

  std::uint64_t random_;
  SimDisk& disk_;
  std::mutex mutex_;  // home_, forced_ and the moments
  ItemHome home_;     // stable, but for the log
  std::uint64_t forced_ = 0;
  std::uint64_t moment_random_ = 1;
  std::vector<Moment> moments_;
  ItemHome now_;
  std::vector<State> states_;
  std::array<std::unique_ptr<Object>, kObjects> objects_;
  std::array<std::unique_ptr<Memory>, kRanges> memories_;
  std::unique_ptr<Journal> journal_;
};

}  // namespace

TEST_CASE(
    "partial writes, ranges and erasures recover onto what is home, wherever the power goes") {
  const std::uint64_t seed = test_seed("items model", 1);
  std::uint64_t states = 0;
  for (std::uint64_t round = 0; round < test_rounds(4, 1); ++round) {
    LogWorld world;
    ItemHome home;
    for (std::uint64_t id = 0; id < kRanges; ++id) {
      home.memory[id] = random_bytes(id, kMostBytes - 77 * id);
    }
    std::vector<std::unique_ptr<SimDisk>> disks;  // each outlives what runs on it
    SimDisk* current = &world.disk;
    for (std::uint64_t depth = 0; depth < 3; ++depth) {
      const ScopedOs scope(*current);
      Life life(seed * 1000 + round * 10 + depth, *current, home);
      life.run();
      std::unique_ptr<SimDisk> after;
      for (const Moment& moment : life.moments()) {
        for (std::uint64_t crash = 1; crash <= 3; ++crash) {
          auto crashed = std::make_unique<SimDisk>();
          ItemHome found;
          life.check(moment, seed + crash, *crashed, found);
          ++states;
          if (&moment == &life.moments()[life.moments().size() / 2]) {
            after = std::move(crashed);
            home = moment.home;
          }
        }
      }
      current = disks.emplace_back(std::move(after)).get();
    }
  }
  (void)std::printf("items model: %llu crash states\n", static_cast<unsigned long long>(states));
}

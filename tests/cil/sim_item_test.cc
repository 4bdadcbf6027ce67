// Orders of two threads about one item that no callback can bring about: between two steps of a
// commit, a release or a completion. Every order where atomic operations are points (the preset
// `sim`), elsewhere those of locks.
#include <doctest/doctest.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "keel/base/check.h"
#include "keel/base/thread.h"
#include "keel/cil/intent_item.h"
#include "log_vector.h"
#include "probe.h"
#include "sim_start.h"
#include "support/bug_recorder.h"
#include "support/sim_scheduled_disk.h"
#include "support/sim_seeds.h"

#if defined(KEEL_DEBUG)

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBytes = 30'000;

template <class Until>
void turn_until(const Until& until) {
  while (!until()) {
    yield_thread();
  }
}

// A journal all of whose threads take turns by the seed, and with them the calling thread.
class SimJournal {
 public:
  explicit SimJournal(std::uint64_t seed)
      : beginning_(fresh_log(seed)),
        scheduler_({.seed = seed,
                    .switch_one_in = 2U << seed % 4,
                    .spurious_one_in = 0,
                    .try_one_in = 1,
                    .most_steps = 5'000'000}),
        disk_(scheduler_, {.seed = seed, .virtual_clock = true}, {}),
        scope_(
            (disk_.boot_with(beginning_, [](const SimSector&) { return SimFate::kKeep; }), disk_)) {
    scheduler_.set_name("KEEL_TEST_SEED=" + std::to_string(seed));
    pool_ = sim_pool(16);
    auto journal = Journal::open(
        kLogPath, {.pool = pool_.get(), .depth = 2, .stall_after_ns = UINT64_MAX}, kIgnore);
    KEEL_CHECK(journal.ok(), "open");
    journal_ = std::move(*journal);
  }

  [[nodiscard]] Journal* operator->() const { return journal_.get(); }

  Sequence commit(LogItem& item, std::size_t bytes = 1000) {
    auto transaction = journal_->begin(bytes, 1);
    KEEL_CHECK(transaction.ok() && transaction->log(item).ok(), "begin");
    const auto sequence = transaction->commit();
    KEEL_CHECK(sequence.ok(), "commit");
    return *sequence;
  }
  void force(Sequence sequence) { KEEL_CHECK(journal_->force(sequence).ok(), "force"); }

  // Until the upkeep looks at the oldest items after each checkpoint.
  void fill(Trace& trace) {
    while (journal_->stats().log_used.value() <= journal_->info().data.value() / 4 * 3) {
      others_.push_back(std::make_unique<Probe>(trace, 100));
      others_.back()->regions = {std::string(kBytes, 'x')};
      others_.back()->after = Tracking::kRelease;
      force(commit(*others_.back(), kBytes));
    }
  }

  void close() { KEEL_CHECK(journal_->close().ok(), "close"); }

 private:
  SimSnapshot beginning_;
  SimScheduler scheduler_;
  SimScheduledDisk disk_;
  ScopedOs scope_;
  std::unique_ptr<Pool> pool_;
  std::vector<std::unique_ptr<Probe>> others_;
  std::unique_ptr<Journal> journal_;
};

// An intent and its done in a page that nobody may touch any more once release() was called: who
// does ends the process.
class Life {
 public:
  class Fleeting final : public IntentItem {
   public:
    Fleeting(std::uint64_t id, Life& life) : IntentItem(id, {}), life_(life) {}
    DoneItem done{*this};

   private:
    void release(bool /*aborted*/) override {
      Life& life = life_;
      std::destroy_at(this);
      KEEL_CHECK(::mprotect(life.page_, kPageBytes, PROT_NONE) == 0, "mprotect");
      life.gone = true;
    }
    Life& life_;
  };

  explicit Life(std::uint64_t id)
      : page_(::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                     0)) {
    KEEL_CHECK(page_ != MAP_FAILED, "mmap");
    intent_ = ::new (page_) Fleeting(id, *this);
  }
  ~Life() { (void)::munmap(page_, kPageBytes); }
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  [[nodiscard]] Fleeting& intent() const { return *intent_; }
  [[nodiscard]] bool is_wanted_gone() const {
    return (ItemAccess::state(*intent_) & ItemState::kReleaseWanted) != 0;
  }
  std::atomic<bool> gone{false};

 private:
  void* const page_;
  Fleeting* intent_ = nullptr;
};

void finish_intent(SimJournal& journal, Life::Fleeting& intent) {
  auto transaction = journal->begin_done(intent);
  KEEL_CHECK(transaction.ok() && transaction->log(intent.done).ok(), "begin_done");
  const auto sequence = transaction->commit();
  KEEL_CHECK(sequence.ok(), "commit");
  journal.force(*sequence);
}

}  // namespace

TEST_CASE(
    "an intent that a walk holds when its done is stable is not touched once it is released") {
  constexpr std::size_t kIntents = 6;
  for_sim_seeds("fleeting intents", 60, [](std::uint64_t seed) {
    Trace trace;
    std::vector<std::unique_ptr<Life>> intents;
    std::atomic<bool> is_over{false};
    SimJournal journal(seed);
    Probe slow(trace, 1);  // before the intents in each walk
    slow.regions = {"x"};
    // While it is pushed home the walk holds the intents too: until one of them is to leave.
    slow.home = [&](Probe&) {
      turn_until([&] {
        return is_over || std::any_of(intents.begin(), intents.end(), [](const auto& intent) {
                 return !intent->gone && intent->is_wanted_gone();
               });
      });
      return PushResult::kLocked;
    };
    journal.force(journal.commit(slow));
    auto transaction = journal->begin(kIntents * IntentItem::log_bytes(0), kIntents, kIntents);
    REQUIRE(transaction.ok());
    for (std::size_t i = 0; i < kIntents; ++i) {
      intents.push_back(std::make_unique<Life>(i));
      REQUIRE(transaction->log(intents.back()->intent()).ok());
    }
    const auto begun = transaction->commit();
    REQUIRE(begun.ok());
    journal.force(*begun);
    journal.fill(trace);
    std::vector<Thread> threads;
    for (std::size_t t = 0; t < 2; ++t) {
      threads.emplace_back("finisher", [&, t] {
        for (std::size_t i = t; i < kIntents; i += 2) {
          finish_intent(journal, intents[i]->intent());
        }
      });
    }
    for (Thread& thread : threads) {
      thread.join();
    }
    is_over = true;
    for (const auto& intent : intents) {
      turn_until([&] { return intent->gone.load(); });
    }
    journal.close();
  });
}

namespace {

// Of its three checkpoints the second lets it go.
class Returning : public Probe {
 public:
  explicit Returning(Trace& trace) : Probe(trace, 1) { regions = {"x"}; }
  std::atomic<int> stable{0};  // checkpoints of it

 protected:
  Tracking committed(Lsn /*lsn*/) override {
    return ++stable == 2 ? Tracking::kRelease : Tracking::kTrack;
  }
};

// The third commit comes while the second checkpoint is completed.
void return_once(SimJournal& journal, Returning& item) {
  const Sequence second = journal.commit(item);
  auto transaction = journal->begin(1000, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(item).ok());
  Thread forcer("forcer", [&] { journal.force(second); });
  turn_until([&] { return item.stable == 2; });
  const auto third = transaction->commit();
  REQUIRE(third.ok());
  journal.force(*third);
  forcer.join();
  REQUIRE(item.stable == 3);
}

}  // namespace

TEST_CASE("a commit takes back what an earlier checkpoint says of its item at that moment") {
  constexpr std::size_t kItems = 6;
  for_sim_seeds("returning items", 60, [](std::uint64_t seed) {
    Trace trace;
    SimJournal journal(seed);
    std::atomic<bool> is_pushed{false};
    std::atomic<bool> is_over{false};
    Probe slow(trace, 2);
    slow.regions = {"x"};
    // While it is pushed home the walk holds the others too.
    slow.home = [&](Probe&) {
      is_pushed = true;
      turn_until([&] { return is_over.load(); });
      return PushResult::kLocked;
    };
    journal.force(journal.commit(slow));
    std::vector<std::unique_ptr<Returning>> items;
    Sequence first{};
    for (std::size_t i = 0; i < kItems; ++i) {
      items.push_back(std::make_unique<Returning>(trace));
      first = journal.commit(*items.back());
    }
    journal.force(first);
    journal.fill(trace);
    turn_until([&] { return is_pushed.load(); });
    for (const auto& item : items) {
      return_once(journal, *item);
    }
    is_over = true;
    CAPTURE(seed);
    for (const auto& item : items) {
      turn_until([&] { return (ItemAccess::state(*item) & ItemState::kHeld) == 0; });
      CHECK(item->tracked());
    }
    journal.close();
  });
}

namespace {

class Told : public Probe {
 public:
  Told(Trace& trace, std::atomic<bool>& told) : Probe(trace, 1), told_(told) {
    regions = {"x"};
    after = Tracking::kRelease;
  }

 protected:
  void release(bool /*aborted*/) override {
    told_ = true;
    yield_thread();
  }

 private:
  std::atomic<bool>& told_;
};

}  // namespace

TEST_CASE("an item destroyed while its last release() returns is no bug, whoever is first") {
  for_sim_seeds("told item", 60, [](std::uint64_t seed) {
    const BugRecorder bugs;
    Trace trace;
    std::atomic<bool> told{false};
    SimJournal journal(seed);
    auto item = std::make_unique<Told>(trace, told);
    Thread owner("owner", [&] {
      turn_until([&] { return told.load(); });
      item.reset();
    });
    journal.force(journal.commit(*item));
    owner.join();
    journal.close();
    CAPTURE(seed);
    CHECK(bugs.count() == 0);
  });
}

#endif

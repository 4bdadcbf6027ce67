// Memory runs out: the call fails, nothing has changed, and the log can still be forced.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "intents.h"
#include "keel/alloc/pool.h"
#include "log_vector.h"
#include "new_refusal.h"
#include "probe.h"
#include "support/run_again.h"

using namespace keel;
using namespace keel_test;

namespace {

// The simulated disk without memory for metadata from the n-th request on.
class DryDisk : public SimDisk {
 public:
  std::atomic<std::int64_t> left{INT64_MAX};
  std::atomic<std::int64_t> held{0};
  bool only_one = false;

  void* metadata_allocate(std::size_t bytes) override {
    const std::int64_t now = left.fetch_sub(1);
    if (only_one ? now == 0 : now <= 0) {
      return nullptr;
    }
    void* memory = SimDisk::metadata_allocate(bytes);
    held += memory != nullptr ? 1 : 0;
    return memory;
  }
  void metadata_free(void* memory) override {
    held -= memory != nullptr ? 1 : 0;
    SimDisk::metadata_free(memory);
  }
};

// Takes all that the pool has left, in pages at the end.
void drain(Pool& pool, std::vector<void*>& taken) {
  for (std::size_t bytes = 1U << 20; bytes >= 4096; bytes /= 2) {
    while (void* memory = pool.kvmalloc(bytes, AllocFlags::kNoWarn)) {
      taken.push_back(memory);
    }
  }
}

std::vector<void*> drain(Pool& pool) {
  std::vector<void*> taken;
  drain(pool, taken);
  return taken;
}

void give_back(Pool& pool, std::vector<void*>& taken) {
  for (void* memory : taken) {
    pool.kvfree(memory);
  }
  taken.clear();
}

}  // namespace

TEST_CASE(
    "a commit without memory for its snapshot changes nothing, may be tried again, and force "
    "works") {
  const MessageHook before = set_message_hook([](const char*) {});
  LogWorld world;
  auto pool = Pool::create({.capacity_bytes = 32U << 20, .background = false});
  REQUIRE(pool.ok());
  Trace trace;
  Probe early(trace, 1), small(trace, 2), large(trace, 3);
  auto journal = world.open({.pool = pool->get()});
  early.regions = {"early"};
  const Sequence sequence = commit(*journal, {&early});
  small.regions = {"small"};
  large.regions = {std::string(50000, 'x')};
  {
    auto transaction = journal->begin(60000, 2);
    REQUIRE(transaction.ok());
    std::vector<void*> taken = drain(**pool);
    // One page is left for the first item's snapshot, none for the second's.
    (*pool)->kvfree(taken.back());
    taken.pop_back();
    REQUIRE(transaction->log(small).ok());
    REQUIRE(transaction->log(large).ok());
    (void)trace.take();
    const JournalStats stats = journal->stats();
    for (int i = 0; i < 3; ++i) {
      const auto failed = transaction->commit();
      REQUIRE_FALSE(failed.ok());
      CHECK(failed.error().code == Errc::kNoMemory);
    }
    CHECK(trace.count(Call::kFormat) == 0);
    CHECK(trace.count(Call::kPin) == 0);
    CHECK_FALSE(small.pinned());
    CHECK_FALSE(large.pinned());
    // (Not log_used: the pool's shrinker may have the early item written meanwhile.)
    CHECK(journal->stats().transactions == stats.transactions);
    CHECK(journal->stats().log_reserved == stats.log_reserved);
    // Checkpoints need no memory.
    CHECK(journal->force(sequence).ok());
    give_back(**pool, taken);
    const auto committed = transaction->commit();
    REQUIRE(committed.ok());
    CHECK(*committed == next(sequence));
  }
  // And cancelled instead of tried again.
  {
    auto transaction = journal->begin(200000, 1);
    REQUIRE(transaction.ok());
    std::vector<void*> taken = drain(**pool);
    large.regions = {std::string(150000, 'y')};
    REQUIRE(transaction->log(large).ok());
    CHECK_FALSE(transaction->commit().ok());
    give_back(**pool, taken);
  }
  finish(journal);
  CHECK(world.read() ==
        Found{{1, {{17, {"early"}}}}, {2, {{18, {"small"}}, {19, {std::string(50000, 'x')}}}}});
  set_message_hook(before);
}

TEST_CASE("an item that a commit had no memory for can still be logged again from its snapshot") {
  const MessageHook before = set_message_hook([](const char*) {});
  for (const bool later_one_fails : {false, true}) {
    CAPTURE(later_one_fails);
    LogWorld world;
    auto pool = Pool::create({.capacity_bytes = 32U << 20, .background = false});
    REQUIRE(pool.ok());
    Trace trace;
    Probe item(trace, 1), later(trace, 2);
    std::vector<std::unique_ptr<Probe>> done;
    auto journal = world.open({.pool = pool->get()});
    item.regions = {"homeless"};
    REQUIRE(journal->force(commit(*journal, {&item})).ok());
    {
      auto transaction = journal->begin(100'000, 2);
      REQUIRE(transaction.ok());
      std::vector<void*> taken;
      // Once the commit has the first item's snapshot: what is not in use a shrinker may take.
      later.during_size = [&] { taken = taken.empty() ? drain(**pool) : taken; };
      item.regions = {later_one_fails ? std::string(3000, 'x') : "homeless"};
      later.regions = {std::string(50'000, 'y')};
      REQUIRE(transaction->log(item).ok());
      REQUIRE(transaction->log(later).ok());
      CHECK_FALSE(transaction->commit().ok());
      item.regions = {std::string(later_one_fails ? 3000 : 50'000, 'x')};
      const auto failed = transaction->commit();
      REQUIRE_FALSE(failed.ok());
      CHECK(failed.error().code == Errc::kNoMemory);
      give_back(**pool, taken);
    }
    journal->audit();
    // Twice round the log, past the item.
    const std::uint64_t end = 2 * journal->info().data.value();
    for (std::uint64_t bytes = 0; bytes < end; bytes += 60'000) {
      done.push_back(std::make_unique<Probe>(trace, 3));
      done.back()->regions = {std::string(60'000, 'z')};
      done.back()->after = Tracking::kRelease;
      REQUIRE(journal->force(commit(*journal, {done.back().get()}, 60'000)).ok());
    }
    journal->audit();
    finish(journal);
    const Found found = world.read();
    CHECK(std::any_of(found.begin(), found.end(), [](const FoundCheckpoint& checkpoint) {
      return checkpoint.items.front() == FoundItem{17, {"homeless"}};
    }));
  }
  set_message_hook(before);
}

TEST_CASE("whichever snapshot of a transaction finds no memory, it can be committed later") {
  const MessageHook before = set_message_hook([](const char*) {});
  LogWorld world;
  auto pool = Pool::create({.capacity_bytes = 32U << 20, .background = false});
  REQUIRE(pool.ok());
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open({.pool = pool->get()});
  Found expected;
  std::size_t refused = 0;
  for (std::size_t pages = 0;; ++pages) {
    REQUIRE(pages < 100);
    auto transaction = journal->begin(40'000, 5);
    REQUIRE(transaction.ok());
    std::vector<void*> taken = drain(**pool);
    REQUIRE(taken.size() > pages);
    for (std::size_t i = 0; i < pages; ++i) {
      (*pool)->kvfree(taken.back());
      taken.pop_back();
    }
    FoundCheckpoint& checkpoint = expected.emplace_back();
    const std::size_t first = items.size();
    for (std::uint32_t i = 0; i < 5; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {std::string(7'000, 'x')};
      checkpoint.items.push_back({16 + i, items.back()->regions});
      REQUIRE(transaction->log(*items.back()).ok());
    }
    auto committed = transaction->commit();
    const bool at_once = committed.ok();
    if (!at_once) {
      ++refused;
      CHECK(committed.error().code == Errc::kNoMemory);
      for (std::size_t i = first; i < items.size(); ++i) {
        CHECK_FALSE(items[i]->pinned());
      }
    }
    give_back(**pool, taken);
    if (!at_once) {
      committed = transaction->commit();
    }
    REQUIRE(committed.ok());
    REQUIRE(journal->force(*committed).ok());
    checkpoint.sequence = committed->value();
    journal->audit();
    CHECK(journal->stats().log_reserved == Bytes(0));
    if (at_once) {
      break;
    }
  }
  CHECK(refused > 0);
  finish(journal);
  CHECK(world.read() == expected);
  set_message_hook(before);
}

TEST_CASE("a journal gives a pool in want its snapshots without memory of its own") {
  const MessageHook before = set_message_hook([](const char*) {});
  LogWorld world({.size = Bytes(32U << 20)});
  auto pool = Pool::create({.capacity_bytes = 32U << 20, .background = false});
  REQUIRE(pool.ok());
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open({.pool = pool->get()});
  for (std::uint32_t i = 0; i < 20; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {std::string(50'000, 'x')};
    commit(*journal, {items.back().get()}, 50'000);
  }
  REQUIRE(journal->force_all().ok());  // now they stand by, to be logged again from
  const Bytes before_want = journal->stats().memory;
  std::vector<void*> taken;
  taken.reserve(10'000);
  {
    const NewRefusal refusal(0, true);
    drain(**pool, taken);
    CHECK(NewRefusal::refused() == 0);
  }
  CHECK(journal->stats().memory < before_want);
  give_back(**pool, taken);
  finish(journal);
  set_message_hook(before);
}

TEST_CASE("a pool in want takes what stands by before snapshots that the log may need") {
  const MessageHook before = set_message_hook([](const char*) {});
  LogWorld world({.size = Bytes(64U << 20)});
  auto pool = Pool::create({.capacity_bytes = 64U << 20});
  REQUIRE(pool.ok());
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open({.pool = pool->get()});
  for (std::uint32_t i = 0; i < 200; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    Probe& item = *items.back();
    item.regions = {std::string(50'000, 'x')};
    if (i >= 10) {
      item.home = [](Probe&) { return PushResult::kLocked; };
      // Twice, so that one vector is in the context and the other stands by.
      commit(*journal, {&item}, 50'000);
    }
    commit(*journal, {&item}, 50'000);
  }
  REQUIRE(journal->force_all().ok());
  const Bytes most = journal->stats().memory;
  std::vector<void*> taken;
  while (journal->stats().memory == most) {
    taken.push_back((*pool)->kvmalloc(64U << 10, AllocFlags::kNoWarn));
    REQUIRE(taken.back() != nullptr);
  }
  for (std::size_t i = 0; i < 10; ++i) {
    CHECK(ItemAccess::shadow(*items[i]) != nullptr);
  }
  give_back(**pool, taken);
  finish(journal);
  set_message_hook(before);
}

TEST_CASE("where no default pool can be made a log is neither made nor read, until one can") {
  if (std::getenv("KEEL_TEST_NO_POOL") == nullptr) {  // another case may have made it here
    CHECK(passes_with("KEEL_TEST_NO_POOL", "1", "where no default pool can be made*"));
    return;
  }
  class NoStores final : public SimDisk {
   public:
    int memfd_create(const char* name, unsigned flags) override {
      return none ? -ENOMEM : SimDisk::memfd_create(name, flags);
    }
    bool none = true;
  };
  NoStores disk;
  const ScopedOs scope(disk);
  const auto make = [] { return create_log(kLogPath, {.size = kMinLogBytes}); };
  CHECK(make().error().code == Errc::kNoMemory);
  CHECK_FALSE(disk.exists(kLogPath));
  disk.set_image(kLogPath, SimContent(kMinLogBytes.value()));
  CHECK(read_log_info(kLogPath).error().code == Errc::kNoMemory);
  CHECK(scan_log(kLogPath, kIgnore).error().code == Errc::kNoMemory);
  CHECK(Journal::open(kLogPath, {}, kIgnore).error().code == Errc::kNoMemory);
  CHECK(disk.unlink(kLogPath) == 0);
  disk.none = false;
  CHECK(make().ok());
  CHECK(read_log_info(kLogPath).ok());
}

TEST_CASE("open without memory in the pool is an error, and the log is untouched") {
  const MessageHook before = set_message_hook([](const char*) {});
  LogWorld world;
  const SimContent image = world.disk.image(kLogPath);
  bool opened = false;
  std::size_t refused = 0;
  for (std::size_t capacity = std::size_t{64} << 10; !opened; capacity += std::size_t{128} << 10) {
    REQUIRE(capacity < std::size_t{64} << 20);
    auto pool = Pool::create({.capacity_bytes = capacity, .background = false});
    REQUIRE(pool.ok());
    const auto journal = Journal::open(kLogPath, {.pool = pool->get()}, kIgnore);
    opened = journal.ok();
    if (!opened) {
      ++refused;
      CHECK(journal.error().code == Errc::kNoMemory);
      CHECK(world.disk.image(kLogPath) == image);
      CHECK((*pool)->stats().live == Bytes(0));
    }
  }
  CHECK(refused > 16);
  set_message_hook(before);
}

TEST_CASE(
    "whichever request for metadata fails, the journal goes on or says so, and leaks nothing") {
  for (const bool only_one : {true, false}) {
    bool clean = false;
    for (std::int64_t nth = 0; !clean; ++nth) {
      CAPTURE(nth);
      DryDisk disk;
      const ScopedOs scope(disk);
      disk.only_one = only_one;
      REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
      const std::int64_t held = disk.held;
      bool opened = false;
      std::uint64_t acknowledged = 0;
      {
        Trace trace;
        std::vector<std::unique_ptr<Probe>> items;
        disk.left = nth;
        auto journal = Journal::open(kLogPath, {}, kIgnore);
        if (!journal.ok()) {
          CHECK(journal.error().code == Errc::kNoMemory);
        }
        opened = journal.ok();
        for (std::uint32_t i = 0; opened && i < 4; ++i) {
          items.push_back(std::make_unique<Probe>(trace, i));
          items.back()->regions = {"x"};
          auto transaction = (*journal)->begin(100, 1);
          if (!transaction) {
            CHECK(transaction.error().code == Errc::kNoMemory);
            continue;
          }
          REQUIRE(transaction->log(*items.back()).ok());
          const auto sequence = transaction->commit();
          REQUIRE(sequence.ok());
          REQUIRE((*journal)->force(*sequence).ok());
          ++acknowledged;
          if (i == 1) {
            CHECK((*journal)->release(*items[0]));
          }
        }
        if (opened) {
          (*journal)->audit();
          CHECK((*journal)->close().ok());
        }
      }
      clean = disk.left > 0 || (only_one && disk.left >= 0);
      disk.left = INT64_MAX;
      CHECK(disk.held == held);
      std::size_t items = 0;
      const auto report = scan_log(kLogPath, [&](const RecoveredCheckpoint& checkpoint) {
        items += checkpoint.items.size();
        return Status{};
      });
      REQUIRE(report.ok());
      CHECK(report->end == LogEnd::kClean);
      CHECK(items + 1 >= acknowledged);
      REQUIRE(nth < 200);
    }
  }
}

TEST_CASE("a transaction that is too large is told so before memory is taken for its items") {
  DryDisk disk;
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  auto journal = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE(journal.ok());
  const auto most = static_cast<std::uint32_t>((*journal)->info().max_checkpoint.value());
  disk.left = 0;
  const auto transaction = (*journal)->begin(100, most / 20);
  REQUIRE_FALSE(transaction.ok());
  CHECK(transaction.error().code == Errc::kTooLarge);
  disk.left = INT64_MAX;
}

TEST_CASE("recovery without metadata is an error and works the next time") {
  DryDisk disk;
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  {
    auto journal = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE(journal.ok());
    for (std::uint32_t i = 0; i < 5; ++i) {
      items.push_back(std::make_unique<Probe>(trace, i));
      items.back()->regions = {"x", "y"};
      REQUIRE((*journal)->force(commit(**journal, {items.back().get()})).ok());
    }
  }
  for (std::int64_t nth = 0;; ++nth) {
    REQUIRE(nth < 100);
    disk.left = nth;
    std::size_t checkpoints = 0;
    const auto report = scan_log(kLogPath, [&](const RecoveredCheckpoint&) {
      ++checkpoints;
      return Status{};
    });
    disk.left = INT64_MAX;
    if (report.ok()) {
      CHECK(checkpoints == 5);
      break;
    }
    CHECK(report.error().code == Errc::kNoMemory);
  }
}

TEST_CASE(
    "an intent that is found goes without a snapshot if there is no memory, and is finished") {
  const MessageHook before = set_message_hook([](const char*) {});
  const std::string payload(20'000, 'p');
  // Draws a random number when the log is taken over: all that recovery needs is there by then.
  class Hooked : public SimDisk {
   public:
    std::function<void()> on_draw;
    std::uint64_t random64() override {
      if (on_draw) {
        on_draw();
      }
      return SimDisk::random64();
    }
  };
  for (const bool pool_is_dry : {true, false}) {
    CAPTURE(pool_is_dry);
    Hooked disk;
    const ScopedOs scope(disk);
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    IntentItem begun(5, std::as_bytes(std::span(payload)));
    {
      auto journal = Journal::open(kLogPath, {}, kIgnore);
      REQUIRE(journal.ok());
      {
        auto transaction = (*journal)->begin(IntentItem::log_bytes(payload.size()), 1, 1);
        REQUIRE(transaction.ok());
        REQUIRE(transaction->log(begun).ok());
        REQUIRE(transaction->commit().ok());
      }
      finish(*journal);
    }
    auto pool = Pool::create({.capacity_bytes = 32U << 20, .background = false});
    REQUIRE(pool.ok());
    std::vector<void*> taken;
    JournalConfig config;
    config.pool = pool->get();
    if (pool_is_dry) {
      disk.on_draw = [&] { taken = taken.empty() ? drain(**pool) : taken; };
    } else {
      config.cil_memory = Bytes(done_reservation(4096).memory_bytes);
    }
    auto opened = Journal::open(kLogPath, config, kIgnore);
    REQUIRE(opened.ok());
    auto journal = std::move(*opened);
    disk.on_draw = nullptr;
    REQUIRE(journal->recovered_intents().size() == 1);
    IntentItem& intent = *journal->recovered_intents()[0];
    CHECK(ItemAccess::shadow(intent) == nullptr);
    journal->audit();
    give_back(**pool, taken);
    DoneItem done(intent);
    {
      auto transaction = journal->begin_done(intent);
      REQUIRE(transaction.ok());
      REQUIRE(transaction->log(done).ok());
      REQUIRE(transaction->commit().ok());
    }
    REQUIRE(journal->force_all().ok());
    journal->release_recovered();
    CHECK_FALSE(intent.tracked());
    journal->audit();
    finish(journal);
  }
  set_message_hook(before);
}

TEST_CASE(
    "a pool in want whose journal fails when it is made to write gets what it can, and ends") {
  const MessageHook before = set_message_hook([](const char*) {});
  LogWorld world({.size = Bytes(32U << 20)});
  auto pool = Pool::create({.capacity_bytes = 32U << 20, .background = false});
  REQUIRE(pool.ok());
  {
    Trace trace;
    std::vector<std::unique_ptr<Probe>> items;
    auto journal = world.open({.pool = pool->get()});
    const auto add = [&](std::uint32_t id) {
      items.push_back(std::make_unique<Probe>(trace, id));
      items.back()->regions = {std::string(50'000, 'x')};
      commit(*journal, {items.back().get()}, 50'000);
    };
    for (std::uint32_t i = 0; i < 10; ++i) {
      add(i);
    }
    REQUIRE(journal->force_all().ok());  // these stand by
    for (std::uint32_t i = 10; i < 20; ++i) {
      add(i);
    }
    world.disk.inject({.op = SimOp::kWrite, .error = EREMOTEIO, .for_good = true});
    std::vector<void*> taken = drain(**pool);
    const Status forced = journal->force_all();
    REQUIRE_FALSE(forced.ok());
    CHECK(forced.error().sys_errno == EREMOTEIO);
    // A second time: there is no journal any more that could write.
    drain(**pool, taken);
    give_back(**pool, taken);
    CHECK_FALSE(journal->close().ok());
    CHECK(trace.count(Call::kReleaseAborted) == 20);
  }
  CHECK((*pool)->stats().live == Bytes(0));
  set_message_hook(before);
}

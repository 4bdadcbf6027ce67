// Followers: what they deliver against what recovery does, how far they hold the tail, and their
// end.
#include "keel/cil/follower.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/cil/intent_item.h"
#include "probe.h"
#include "support/death.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;

std::unique_ptr<Follower> follow(Journal& journal, const FollowConfig& config = {}) {
  auto follower = journal.follow(config);
  if (!follower) {
    FAIL(follower.error().message());
  }
  return std::move(*follower);
}

// Appends what is there; gives the error that ended it.
Error drain(Follower& follower, Found& found, std::uint64_t timeout_ns = 0) {
  for (;;) {
    const auto checkpoint = follower.next(timeout_ns);
    if (!checkpoint) {
      return checkpoint.error();
    }
    (void)collect_into(found)(**checkpoint);
  }
}

// One item, committed and forced, that leaves the log at once.
struct Writer {
  Writer() { item.after = Tracking::kRelease; }
  Sequence write(Journal& journal, std::size_t bytes, std::uint64_t seed) {
    item.regions = {random_bytes(seed, bytes)};
    const Sequence sequence = commit(journal, {&item}, bytes + 1000);
    REQUIRE(journal.force(sequence).ok());
    return sequence;
  }
  Trace trace;
  Probe item{trace, 1};
};

void expect_run(const Found& found, std::uint64_t first, std::uint64_t last) {
  REQUIRE(found.size() == last - first + 1);
  for (std::size_t i = 0; i < found.size(); ++i) {
    REQUIRE(found[i].sequence == first + i);
  }
}

}  // namespace

TEST_CASE("a follower hands over what recovery would, from the oldest or from a sequence") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);  // stays in the log, so that recovery finds all
  Probe holder(trace, 2);
  holder.regions = {"holds the tail"};
  auto journal = world.open();
  std::uint64_t random = test_seed("follower", 71);
  commit(*journal, {&holder});
  for (int i = 0; i < 12; ++i) {
    item.regions = {random_bytes(random, 1 + sim_random(random) % 20000), "tail", ""};
    const Sequence sequence = commit(*journal, {&item}, 25000);
    REQUIRE(journal->force(sequence).ok());
  }
  Found all, some, none;
  auto from_oldest = follow(*journal);
  CHECK(drain(*from_oldest, all).code == Errc::kTimeout);
  auto from_seven = follow(*journal, {.from = Sequence(7)});
  CHECK(from_seven->position() == Sequence(7));
  CHECK(drain(*from_seven, some).code == Errc::kTimeout);
  auto from_newest = follow(*journal, {.from = FollowConfig::kNewest});
  CHECK(drain(*from_newest, none).code == Errc::kTimeout);
  CHECK(none.empty());
  const SimContent image = world.disk.image(kLogPath);
  expect_run(all, 1, 12);
  CHECK(some == Found(all.begin() + 6, all.end()));
  const auto future = journal->follow({.from = next(journal->stats().current)});
  REQUIRE_FALSE(future.ok());
  CHECK(future.error().code == Errc::kFutureSequence);
  REQUIRE(journal->close().ok());
  from_oldest.reset();
  from_seven.reset();
  from_newest.reset();
  journal.reset();
  world.disk.set_image(kLogPath, image);  // as a kill leaves it
  CHECK(world.read() == all);
}

TEST_CASE("a follower from a sequence that is in flight gets it when it is stable") {
  LogWorld world;
  Writer writer;
  auto journal = world.open();
  writer.write(*journal, 100, 1);
  const Sequence current = journal->stats().current;
  auto follower = follow(*journal, {.from = current});
  CHECK(follower->position() == current);
  Found found;
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  CHECK(found.empty());
  CHECK(writer.write(*journal, 100, 2) == current);
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  expect_run(found, current.value(), current.value());
  follower.reset();
  finish(journal);
}

TEST_CASE("followers of a live journal see every checkpoint once, while the log wraps") {
  LogWorld world;
  auto journal = world.open();
  constexpr int kFollowers = 2;
  const std::uint64_t rounds = test_rounds(400, 60);
  std::atomic<bool> done{false};
  std::vector<Found> found(kFollowers);
  std::vector<Errc> endings(kFollowers, Errc::kSystem);
  std::vector<std::unique_ptr<Follower>> followers(kFollowers);
  std::vector<std::thread> threads;
  for (std::size_t f = 0; f < kFollowers; ++f) {
    followers[f] = follow(*journal, {.most_behind = journal->info().data});
    threads.emplace_back([&, f] {
      for (;;) {
        const bool last = done;
        const Error error = drain(*followers[f], found[f], kSecondNs / 1000);
        if (error.code != Errc::kTimeout || last) {
          endings[f] = error.code;
          return;
        }
      }
    });
  }
  std::vector<std::string> written;
  Writer writer;
  for (std::uint64_t i = 0; i < rounds; ++i) {
    writer.write(*journal, 1 + i * 797 % 30000, i);
    written.push_back(writer.item.regions[0]);
  }
#if !defined(KEEL_TEST_SANITIZED)  // where there are enough rounds
  CHECK(journal->stats().tail > Lsn(0) + journal->info().data);
#endif
  done = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (std::size_t f = 0; f < kFollowers; ++f) {
    // One may have been dropped while its thread did not run; then it has a gapless beginning.
    CHECK((endings[f] == Errc::kTimeout || endings[f] == Errc::kLagged));
    REQUIRE(found[f].size() <= written.size());
    for (std::size_t i = 0; i < found[f].size(); ++i) {
      REQUIRE(found[f][i].sequence == i + 1);
      REQUIRE(found[f][i].items[0].regions[0] == written[i]);
    }
    CHECK((endings[f] == Errc::kLagged || found[f].size() == written.size()));
  }
  followers.clear();
  finish(journal);
}

TEST_CASE("a follower holds the tail up to its limit, beyond it, it is dropped and says so") {
  LogWorld world;
  auto journal = world.open();
  const Bytes log = journal->info().data;
  const Bytes limit(log.value() / 4);
  Writer writer;
  writer.write(*journal, 5000, 0);
  auto slow = follow(*journal, {.most_behind = limit});
  Found found;
  Lsn start = journal->stats().tail;
  // Within the limit nothing is lost, however often the tail could move.
  std::uint64_t written = 1;
  while (written < 8) {
    writer.write(*journal, 5000, written++);
  }
  CHECK(drain(*slow, found).code == Errc::kTimeout);
  expect_run(found, 1, written);
  const std::uint64_t behind = written;
  // Twice round the log: it stays where it is, and the tail passes it.
  while (journal->stats().tail < start + log + log) {
    writer.write(*journal, 20000, written++);
  }
  const Error error = drain(*slow, found);
  CHECK(error.code == Errc::kLagged);
  CHECK(error.value == behind + 1);
  CHECK(drain(*slow, found).code == Errc::kLagged);
  CHECK(found.size() == behind);
  const auto gone = journal->follow({.from = Sequence(2)});
  REQUIRE_FALSE(gone.ok());
  CHECK(gone.error().code == Errc::kLagged);
  CHECK(gone.error().value == 2);
  slow.reset();
  finish(journal);
}

TEST_CASE("the tail stays at a follower until it goes on or goes away") {
  LogWorld world;
  auto journal = world.open({.cover_after_ns = 1'000'000});
  const Bytes log = journal->info().data;
  Writer writer;
  const auto tail_reaches = [&](Lsn lsn) {
    while (journal->stats().tail < lsn) {
      std::this_thread::yield();  // the cover moves it
    }
  };
  writer.write(*journal, 5000, 1);
  auto follower = follow(*journal, {.from = FollowConfig::kNewest});
  auto other = follow(*journal, {.from = FollowConfig::kNewest});
  tail_reaches(Lsn(1));
  const Lsn held = journal->stats().tail;
  Found found;
  std::uint64_t written = 0;
  while (written * 20000 < log.value() / 8) {
    writer.write(*journal, 20000, written++);
  }
  for (;;) {
    const JournalStats stats = journal->stats();
    if (journal->info().stable == stats.tail + stats.log_used) {
      break;  // the cover has recorded the head, after it looked whether the tail may move
    }
    std::this_thread::yield();
  }
  CHECK(journal->stats().tail == held);
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  CHECK(found.size() == written);
  CHECK(journal->stats().tail == held);  // for the other one
  other.reset();
  writer.write(*journal, 5000, 1);
  tail_reaches(held + Bytes(1));
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  CHECK(found.size() == written + 1);
  follower.reset();
  finish(journal);
}

TEST_CASE("a follower that stands still never fills the log for those who begin") {
  LogWorld world;
  auto journal = world.open();
  Writer writer;
  writer.write(*journal, 100, 1);
  auto follower = follow(*journal, {.most_behind = journal->info().data});
  for (std::uint64_t i = 0; i < 300; ++i) {
    writer.write(*journal, 30000, i);
  }
  Found found;
  CHECK(drain(*follower, found).code == Errc::kLagged);
  CHECK(found.empty());
  follower.reset();
  finish(journal);
}

TEST_CASE("a follower that asks for more than half of the log holds half of it") {
  LogWorld world;
  auto journal = world.open({.cover_after_ns = 1'000'000});
  const Bytes log = journal->info().data;
  Writer writer;
  writer.write(*journal, 5000, 1);
  auto follower = follow(*journal, {.most_behind = log});
  const Lsn start = journal->stats().tail;
  // Less than would have anybody wait for space: then it holds less.
  for (JournalStats stats; stats.tail + stats.log_used < start + Bytes(log.value() / 2 + 40'000);) {
    writer.write(*journal, 20'000, 1);
    stats = journal->stats();
  }
  while (journal->stats().tail == start) {
    std::this_thread::yield();  // the cover moves it
  }
  Found found;
  CHECK(drain(*follower, found).code == Errc::kLagged);
  follower.reset();
  finish(journal);
}

TEST_CASE("a follower that stands still keeps nobody from beginning beside an open transaction") {
  LogWorld world;
  auto journal = world.open();
  const std::uint64_t log_bytes = journal->info().data.value();
  const std::size_t eighth = log_bytes / 8 - 20'000;
  Writer writer;
  auto follower = follow(*journal, {.most_behind = Bytes(log_bytes)});
  while (journal->stats().log_used.value() < log_bytes / 2 - 60'000) {
    writer.write(*journal, 3000, 1);
    (void)writer.trace.take();
  }
  // What they hold for their dones, and may take to be logged again, is a part of the log's room.
  std::vector<std::unique_ptr<IntentItem>> intents;
  for (std::uint64_t id = 1; id <= 10; ++id) {
    intents.push_back(std::make_unique<IntentItem>(id, std::span<const std::byte>{}));
    auto transaction = journal->begin(IntentItem::log_bytes(0), 1, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(*intents.back()).ok());
    REQUIRE(transaction->commit().ok());
  }
  REQUIRE(journal->force_all().ok());
  auto open = std::make_unique<Result<Transaction>>(journal->begin(eighth, 1));
  REQUIRE(open->ok());
  const auto head = [&journal] {
    const JournalStats stats = journal->stats();
    return stats.tail + stats.log_used;
  };
  const Lsn before = head();
  std::atomic<bool> begun{false};
  std::thread waiter([&] {
    CHECK(journal->begin(eighth, 1).ok());
    begun = true;
  });
  CHECK(soon([&] { return begun.load(); }));
  // Not only once what is logged again has grown to half of the log.
  CHECK(head() < before + Bytes(30'000));
  open.reset();
  waiter.join();
  Found found;
  CHECK(drain(*follower, found).code == Errc::kLagged);
  follower.reset();
  finish(journal);
}

TEST_CASE("after close a follower hands over the rest, then the error, reopened it goes on") {
  LogWorld world;
  Writer writer;
  auto journal = world.open();
  auto follower = follow(*journal);
  for (std::uint64_t i = 0; i < 5; ++i) {
    writer.write(*journal, 3000, i);
  }
  REQUIRE(journal->close().ok());
  Found found;
  CHECK(drain(*follower, found, UINT64_MAX).code == Errc::kShutdown);
  expect_run(found, 1, 5);
  const Sequence last = previous(follower->position());
  follower.reset();
  journal.reset();
  journal = world.open();
  follower = follow(*journal, {.from = next(last)});
  writer.write(*journal, 3000, 9);
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  expect_run(found, 1, 6);
  follower.reset();
  finish(journal);
}

TEST_CASE(
    "a follower that is behind keeps no closed log from being empty, and still reads it all") {
  LogWorld world;
  Writer writer;
  auto journal = world.open();
  auto follower = follow(*journal);
  for (std::uint64_t i = 0; i < 5; ++i) {
    writer.write(*journal, 3000, i);
  }
  REQUIRE(journal->close().ok());
  Found found;
  CHECK(drain(*follower, found).code == Errc::kShutdown);
  expect_run(found, 1, 5);
  follower.reset();
  journal.reset();
  journal = world.open();
  CHECK(world.found.empty());
  finish(journal);
}

TEST_CASE("a follower loses nothing to a tail that was to pass it and could not be recorded") {
  class SlotlessDisk : public SimDisk {
   public:
    ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                     int flags) override {
      const bool fails = broken && offset == 4096;  // the first state slot
      return fails ? -EIO : SimDisk::pwritev2(fd, parts, count, offset, flags);
    }
    std::atomic<bool> broken{false};
  };
  SlotlessDisk disk;
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  Writer writer;
  auto opened = Journal::open(kLogPath, {.cover_after_ns = UINT64_MAX / 4}, kIgnore);
  REQUIRE(opened.ok());
  Journal& journal = **opened;
  const std::uint64_t log_bytes = journal.info().data.value();
  auto follower = follow(journal, {.most_behind = Bytes(log_bytes / 4)});
  // Far beyond what it may hold, but nobody has wanted that space yet; and the slots have kept up
  // with the head.
  std::uint64_t forced = 0;
  while (journal.stats().log_used.value() < log_bytes * 5 / 8) {
    writer.write(journal, 20000, forced++);
  }
  REQUIRE(journal.stats().tail == Lsn(0));
  disk.broken = true;
  const auto force_one = [&] {
    auto transaction = journal.begin(21000, 1);
    if (!transaction || !transaction->log(writer.item).ok()) {
      return false;
    }
    const auto sequence = transaction->commit();
    return sequence.ok() && journal.force(*sequence).ok();
  };
  while (force_one()) {
    ++forced;
  }
  Found found;
  CHECK(drain(*follower, found).code == Errc::kIo);
  CHECK(found.size() >= forced);
  if (!found.empty()) {
    expect_run(found, 1, found.size());
  }
  follower.reset();
  CHECK_FALSE(journal.close().ok());
}

TEST_CASE("a failed journal wakes its followers with the first error") {
  LogWorld world;
  Writer writer;
  auto journal = world.open();
  auto follower = follow(*journal);
  std::atomic<int> code{-1};
  std::thread waiter([&] {
    const auto checkpoint = follower->next();
    code = checkpoint ? -2 : static_cast<int>(checkpoint.error().code);
  });
  world.disk.inject({.op = SimOp::kWrite, .nth = 1, .for_good = true});
  writer.item.regions = {"x"};
  CHECK_FALSE(journal->force(commit(*journal, {&writer.item})).ok());
  waiter.join();
  CHECK(code == static_cast<int>(Errc::kIo));
  CHECK_FALSE(journal->follow({}).ok());
  follower.reset();
  CHECK_FALSE(journal->close().ok());
  journal.reset();
}

TEST_CASE("a read that fails is an error, and the next call reads again") {
  LogWorld world;
  Writer writer;
  auto journal = world.open();
  auto follower = follow(*journal);
  writer.write(*journal, 3000, 1);
  world.disk.inject({.op = SimOp::kRead, .nth = 1, .error = EIO});
  Found found;
  CHECK(drain(*follower, found).code == Errc::kIo);
  world.disk.clear_faults();
  CHECK(found.empty());
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  expect_run(found, 1, 1);
  follower.reset();
  finish(journal);
}

TEST_CASE("space that is written over while a follower reads it is not handed over") {
  LogWorld world;
  auto journal = world.open();
  const Bytes log = journal->info().data;
  Writer writer;
  writer.write(*journal, 30000, 1);
  auto follower = follow(*journal);
  // In the read, when the bytes are there and before the follower looks at them, the log goes round
  // once: what it has read is sound, but its place is lost.
  std::atomic<bool> armed{true};
  const Lsn start = journal->stats().tail;
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kRead && armed.exchange(false)) {
      for (std::uint64_t i = 0; journal->stats().tail < start + log; ++i) {
        writer.write(*journal, 20000, i);
      }
    }
  });
  Found found;
  CHECK(drain(*follower, found).code == Errc::kLagged);
  CHECK(found.empty());
  world.disk.on_io({});
  follower.reset();
  finish(journal);
}

TEST_CASE("in a forked child a follower hands over nothing, and the parent's goes on") {
  LogWorld world;
  Writer writer;
  auto journal = world.open();
  auto follower = follow(*journal);
  writer.write(*journal, 100, 1);
  const Ending ending = run_in_child([&] {
    const auto checkpoint = follower->next(0);
    const auto another = journal->follow({});
    const bool right = !checkpoint && checkpoint.error().code == Errc::kForked && !another &&
                       another.error().code == Errc::kForked;
    ::_exit(right ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  Found found;
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  expect_run(found, 1, 1);
  follower.reset();
  finish(journal);
}

TEST_CASE("a follower from a sequence behind one that is in flight passes that one by") {
  LogWorld world;
  Writer writer;
  Trace trace;
  Probe hung(trace, 2), wanted(trace, 3);
  hung.regions = {"hung"};
  wanted.regions = {"wanted"};
  Gate gate;
  auto journal = world.open();
  writer.write(*journal, 100, 1);
  const Sequence in_flight = commit(*journal, {&hung});
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite) {
      gate.pass();
    }
  });
  std::thread forcer([&] { CHECK(journal->force(in_flight).ok()); });
  gate.wait_for_arrival();
  const Sequence from = commit(*journal, {&wanted});
  CHECK(from == next(in_flight));
  auto follower = follow(*journal, {.from = from});
  CHECK(follower->position() == from);
  Found found;
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  gate.open();
  forcer.join();
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  CHECK(found.empty());
  REQUIRE(journal->force(from).ok());
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  expect_run(found, from.value(), from.value());
  CHECK(found[0].items == std::vector<FoundItem>{{19, {"wanted"}}});
  world.disk.on_io({});
  follower.reset();
  finish(journal);
}

TEST_CASE("a follower whose log has rotted says so, and reads again what was mended") {
  class DryDisk : public SimDisk {
   public:
    void* metadata_allocate(std::size_t bytes) override {
      return dry ? nullptr : SimDisk::metadata_allocate(bytes);
    }
    std::atomic<bool> dry{false};
  };
  DryDisk disk;
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  Writer writer;
  auto journal = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE(journal.ok());
  auto follower = follow(**journal);
  writer.write(**journal, 3000, 1);
  const std::uint64_t in_first_record = 2 * 4096 + 1000;
  disk.flip_bit(kLogPath, in_first_record, 3);
  Found found;
  for (int i = 0; i < 2; ++i) {
    const Error error = drain(*follower, found);
    CHECK(error.code == Errc::kDamaged);
    CHECK(error.value == 0);  // the LSN
  }
  disk.flip_bit(kLogPath, in_first_record, 3);
  disk.dry = true;  // a new reader takes memory
  CHECK(drain(*follower, found).code == Errc::kNoMemory);
  disk.dry = false;
  CHECK(found.empty());
  CHECK(drain(*follower, found).code == Errc::kTimeout);
  expect_run(found, 1, 1);
  follower.reset();
  finish(*journal);
}

// Intents after a crash or a close: those without a done are found again, have their room again,
// and hold the tail until they have one.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "intent_world.h"
#include "intents.h"
#include "keel/cil/intent_item.h"
#include "log/format.h"
#include "log/geometry.h"
#include "log/hash.h"
#include "probe.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("intents without a done are found again at open, and hold the tail until they have one") {
  LogWorld world;
  {
    auto journal = world.open();
    Intent done(4, kPayload), open(5, kPayload), empty(6, "");
    commit_intent(*journal, done);
    commit_intent(*journal, open);
    REQUIRE(journal->force(commit_intent(*journal, empty)).ok());
    REQUIRE(journal->force(commit_done(*journal, done, done.done)).ok());
    finish(journal);
    CHECK(open.released == 1);  // by the close
  }
  for (int i = 0; i < 2; ++i) {
    auto journal = world.open();
    CHECK(open_intents(*journal) == std::vector<std::uint64_t>{5, 6});
    journal->audit();
    journal->release_recovered();
    finish(journal);
  }
  auto journal = world.open();
  journal->release_recovered();
  for (IntentItem* intent : journal->recovered_intents()) {
    CHECK(std::string(reinterpret_cast<const char*>(intent->payload().data()),
                      intent->payload().size()) == (intent->id() == 5 ? kPayload : ""));
    DoneItem done(*intent);
    REQUIRE(journal->force(commit_done(*journal, *intent, done)).ok());
    CHECK_FALSE(intent->tracked());
  }
  journal->audit();
  finish(journal);
  journal = world.open();
  CHECK(open_intents(*journal).empty());
  finish(journal);
}

TEST_CASE("a journal of too little memory for the intents that it finds does not open") {
  LogWorld world;
  {
    std::vector<std::unique_ptr<Intent>> intents;
    auto journal = world.open();
    for (std::uint64_t id = 1; id <= 40; ++id) {
      intents.push_back(std::make_unique<Intent>(id, kPayload));
      commit_intent(*journal, *intents.back());
    }
    finish(journal);
  }
  JournalConfig config;
  config.cil_memory = Bytes(100'000);
  const auto journal = Journal::open(kLogPath, config, kIgnore);
  REQUIRE_FALSE(journal.ok());
  CHECK(journal.error().code == Errc::kTooLarge);
  auto enough = world.open();
  CHECK(open_intents(*enough).size() == 40);
  finish(enough);
}

TEST_CASE("a log whose checkpoints are too short for the done of an intent in it is none") {
  constexpr std::uint32_t kBlock = 4096;
  LogWorld world;
  {
    auto journal = world.open();
    Intent open(5, kPayload);
    REQUIRE(journal->force(commit_intent(*journal, open)).ok());
    finish(journal);
  }
  const auto open_with = [&](std::uint64_t max_checkpoint_bytes) {
    SimContent image = world.disk.image(kLogPath);
    auto superblock = decode_superblock(image.data(), image.size());
    REQUIRE(superblock.has_value());
    superblock->max_checkpoint_bytes = max_checkpoint_bytes;
    encode(*superblock, image.data());
    encode(*superblock, image.data() + image.size() - kBlock);
    world.disk.set_image(kLogPath, image);
    return Journal::open(kLogPath, {}, kIgnore);
  };
  {
    auto journal = open_with(4 * kBlock);
    REQUIRE(journal.ok());
    (*journal)->release_recovered();
    IntentItem* intent = (*journal)->recovered_intents()[0];
    auto transaction = (*journal)->begin_done(*intent);
    CHECK(transaction.ok());
  }
  const auto journal = open_with(2 * kBlock);
  REQUIRE_FALSE(journal.ok());
  CHECK(journal.error().code == Errc::kNotALog);
}

TEST_CASE("after a crash at any I/O exactly the intents are open whose done is not in the log") {
  struct State {
    std::uint64_t sequence;
    std::set<std::uint64_t> open;
  };
  struct Moment {
    SimSnapshot disk;
    std::uint64_t forced;
  };
  const std::uint64_t seed = test_seed("intents", 1);
  for (std::uint64_t round = 0; round < test_rounds(4, 1); ++round) {
    std::uint64_t random = seed * 100 + round;
    LogWorld world;
    auto journal = world.open();
    std::mutex mutex;
    std::uint64_t forced = 0;
    std::vector<Moment> moments;
    world.disk.on_io([&](const SimIo&) {
      const std::lock_guard lock(mutex);
      moments.push_back({world.disk.snapshot(), forced});
    });
    std::vector<std::unique_ptr<Intent>> all, open;
    std::vector<State> states{{0, {}}};
    std::set<std::uint64_t> ids;
    for (std::uint64_t i = 1; i <= 300; ++i) {
      const std::uint64_t draw = sim_random(random) % 10;
      if (draw == 0) {
        REQUIRE(journal->force_all().ok());
        const std::lock_guard lock(mutex);
        forced = states.back().sequence;
      } else if (open.size() > 30 || (draw < 6 && !open.empty())) {
        const std::size_t which = sim_random(random) % open.size();
        Intent& intent = *open[which];
        ids.erase(intent.id());
        states.push_back({commit_done(*journal, intent, intent.done).value(), ids});
        all.push_back(std::move(open[which]));
        open.erase(open.begin() + static_cast<std::ptrdiff_t>(which));
      } else {
        auto transaction = journal->begin(IntentItem::log_bytes(100), 1, 1);
        if (!transaction) {
          REQUIRE(transaction.error().code == Errc::kLogFull);
          continue;
        }
        open.push_back(std::make_unique<Intent>(i % 40 + 1000 * i, kPayload));
        REQUIRE(transaction->log(*open.back()).ok());
        ids.insert(open.back()->id());
        states.push_back({transaction->commit()->value(), ids});
      }
    }
    world.disk.on_io(nullptr);
    finish(journal);
    for (const Moment& moment : moments) {
      SimDisk after;
      after.boot(moment.disk, seed);
      const ScopedOs scope(after);
      auto opened = Journal::open(kLogPath, {}, kIgnore);
      REQUIRE(opened.ok());
      const std::uint64_t last = (*opened)->recovery().last_sequence.value();
      REQUIRE(last >= moment.forced);
      std::set<std::uint64_t> expected;
      for (const State& state : states) {
        expected = state.sequence <= last ? state.open : expected;
      }
      const auto found = open_intents(**opened);
      CHECK((std::set<std::uint64_t>(found.begin(), found.end()) == expected));
      (*opened)->audit();
      finish(*opened);
    }
  }
}

namespace {

// A log of one checkpoint with `count` open intents that no journal has let hold their room, and
// something large.
SimContent crowded_log(std::uint64_t count) {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> probes;
  std::vector<LogItem*> items;
  auto journal = world.open();
  for (std::uint64_t id = 1; id <= count; ++id) {
    const format::IntentHeader header{id, 0};
    probes.push_back(std::make_unique<Probe>(trace, 0));
    probes.back()->regions = {std::string(reinterpret_cast<const char*>(&header), sizeof header)};
    items.push_back(probes.back().get());
  }
  Probe large(trace, 1);
  large.regions = {std::string(40'000, 'x')};
  items.push_back(&large);
  REQUIRE(journal->force(commit(*journal, items, 60'000)).ok());
  SimContent image = world.disk.image(kLogPath);
  finish(journal);
  std::byte* record = image.data() + 2 * 4096;
  format::RecordHeader header;
  std::memcpy(&header, record, sizeof header);
  REQUIRE(header.record_count == 1);
  std::byte* at = record + sizeof header;
  for (std::uint64_t i = 0; i < count; ++i) {
    constexpr std::uint32_t kType = format::kTypeIntent;
    std::memcpy(at, &kType, sizeof kType);
    at += sizeof(format::ItemHeader) + sizeof(format::RegionHeader) + sizeof(format::IntentHeader);
  }
  header.record_hash = 0;
  std::memcpy(record, &header, sizeof header);
  header.record_hash =
      hash64(record, format::record_bytes(header.packed_bytes, header.bulk_blocks, 4096));
  std::memcpy(record, &header, sizeof header);
  return image;
}

}  // namespace

TEST_CASE("a log of more open intents than it has room for is damaged, and left as it is") {
  LogWorld world;
  const std::uint64_t room = done_reservation(4096).log_bytes;
  const std::uint64_t most = (kMinLogBytes.value() - 4 * 4096) / room;
  for (const std::uint64_t count : {most, most + 1}) {
    CAPTURE(count);
    const SimContent image = crowded_log(count);
    world.disk.set_image(kLogPath, image);
    const auto journal = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE_FALSE(journal.ok());
    CHECK(journal.error().code == Errc::kDamaged);
    CHECK(journal.error().message().find("more open intents") != std::string::npos);
    CHECK(world.disk.image(kLogPath) == image);
  }
  world.disk.set_image(kLogPath, crowded_log(most / 2));
  auto journal = world.open();
  CHECK(open_intents(*journal).size() == most / 2);
  finish(journal);
}

// Which chunks of a stretch of memory its item logs, and that they are enough on top of what is
// home.
#include "keel/cil/range_item.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "item_home.h"
#include "log/format.h"
#include "log_vector.h"
#include "support/death.h"
#include "support/fault_os.h"

using namespace keel;
using namespace keel_test;

namespace {

struct RangeWorld {
  LogWorld world{LogConfig{.size = Bytes(16 << 20)}};
  Trace trace;
  Probe anchor{trace, 9};
  std::unique_ptr<Journal> journal = world.open();

  RangeWorld() {
    anchor.is_ordered = true;
    log(anchor, 100);
  }
  void log(LogItem& item, std::size_t bytes) {
    REQUIRE(journal->force(commit(*journal, {&item}, bytes)).ok());
    journal->audit();
  }
  template <class Use>
  void after_crash(const Use& use) {
    const ScopedOs scope(world.after_power_cut());
    use();
  }
  std::string sizes() {
    Found found;
    after_crash([&] { REQUIRE(scan_log(kLogPath, collect_into(found)).ok()); });
    return region_sizes(found);
  }
  std::string onto(std::string home) {
    ItemHome all{{}, {{7, std::move(home)}}};
    after_crash([&] { all.recover(); });
    return all.memory[7];
  }
};

struct Memory {
  explicit Memory(std::size_t size, std::uint64_t seed = 1, std::uint64_t id = 7)
      : bytes(random_bytes(seed, size)), home(bytes) {
    auto made = RangeItem::create(id, bytes.data(), bytes.size());
    REQUIRE(made.ok());
    item = std::move(*made);
  }
  void write(std::size_t offset, std::size_t length, char value = '#') {
    std::memset(bytes.data() + offset, value, length);
    item->mark(offset, length);
  }
  [[nodiscard]] std::size_t most() const { return RangeItem::log_bytes(bytes.size()); }

  std::string bytes;
  const std::string home;
  std::unique_ptr<RangeItem> item;
};

}  // namespace

TEST_CASE("only chunks with a marked byte are logged, neighbours as one") {
  RangeWorld world;
  Memory memory(10000);
  memory.write(130, 2);    // chunk 1
  memory.write(383, 2);    // chunks 2 and 3
  memory.write(640, 128);  // chunk 5
  memory.write(9000, 0);   // none
  CHECK(memory.item->dirty_bytes() == 4 * 128);
  world.log(*memory.item, memory.most());
  CHECK(world.sizes() == "24 32 384 128");
  CHECK((world.onto(memory.home) == memory.bytes));
  finish(world.journal);
}

TEST_CASE("the last chunk ends where the memory ends") {
  for (const std::size_t size : {std::size_t{1}, std::size_t{127}, std::size_t{128},
                                 std::size_t{129}, std::size_t{8192}, std::size_t{8193}}) {
    RangeWorld world;
    Memory memory(size);
    memory.write(size - 1, 1);
    const std::size_t last = size - (size - 1) / 128 * 128;
    CHECK(memory.item->length_bytes() == size);
    CHECK(memory.item->dirty_bytes() == last);
    world.log(*memory.item, memory.most());
    CHECK(world.sizes() == "24 16 " + std::to_string(last));
    CHECK((world.onto(memory.home) == memory.bytes));
    finish(world.journal);
  }
}

TEST_CASE("a dirty run of a block and more is one large region, whatever words its bits are in") {
  RangeWorld world;
  Memory memory(1 << 20);
  memory.write(0, 1 << 20);
  CHECK(memory.item->dirty_bytes() == std::size_t{1} << 20);
  world.log(*memory.item, memory.most());
  CHECK(world.sizes() == "24 16 1048576");
  const LogVector* snapshot = ItemAccess::shadow(*memory.item);
  REQUIRE(snapshot != nullptr);
  CHECK(snapshot->bulk_blocks == 256);
  CHECK((world.onto(memory.home) == memory.bytes));
  finish(world.journal);
}

TEST_CASE("a snapshot of a range rises with every mark until clean(), and falls after it") {
  RangeWorld world;
  Memory memory(100000);
  memory.write(0, 100);
  world.log(*memory.item, memory.most());
  memory.write(50000, 20000);
  world.log(*memory.item, memory.most());
  CHECK(world.journal->release(*memory.item));
  memory.item->clean();
  CHECK(memory.item->dirty_bytes() == 0);
  memory.write(99999, 1);
  world.log(*memory.item, memory.most());
  CHECK(world.sizes() == "24 16 128 | 24 32 128 20096 | 24 16 32");
  CHECK((world.onto(memory.home) == memory.bytes));
  finish(world.journal);
}

TEST_CASE("clean() of a pinned range forgets nothing") {
  RangeWorld world;
  Memory memory(100000);
  memory.write(0, 100);
  commit(*world.journal, {memory.item.get()}, memory.most());
  memory.item->clean();
  memory.write(99999, 1);
  world.log(*memory.item, memory.most());
  CHECK(world.sizes() == "24 32 128 32");
  CHECK((world.onto(memory.home) == memory.bytes));
  finish(world.journal);
}

TEST_CASE("a clean range and one of no bytes are logged not at all") {
  RangeWorld world;
  Memory memory(1000), nothing(0);
  nothing.item->mark(0, 0);
  commit(*world.journal, {memory.item.get(), nothing.item.get()});
  CHECK_FALSE(memory.item->pinned());
  CHECK_FALSE(nothing.item->pinned());
  CHECK(world.sizes().empty());
  finish(world.journal);
}

TEST_CASE("every other chunk marked, or all of them: log_bytes() of the length is enough") {
  for (const std::size_t size : std::initializer_list<std::size_t>{1000, 4096, 70000, 300001}) {
    for (const std::size_t step : std::initializer_list<std::size_t>{128, 256, 384, 1280}) {
      RangeWorld world;
      Memory memory(size, step);
      for (std::size_t at = 0; at < size; at += step) {
        memory.write(at, 1);
      }
      world.log(*memory.item, memory.most());
      CHECK((world.onto(memory.home) == memory.bytes));
      finish(world.journal);
    }
  }
}

TEST_CASE(
    "the longest range there can be is journalled where it was marked, a longer one refused") {
  RangeWorld world;
  Memory memory(RangeItem::kMostBytes);
  memory.write(RangeItem::kMostBytes - 1, 1);
  memory.write(RangeItem::kMostBytes / 2 - 1, 2);
  world.log(*memory.item, RangeItem::log_bytes(3 * 128, 2));
  CHECK(world.sizes() == "24 32 256 128");
  CHECK((world.onto(memory.home) == memory.bytes));
  CHECK(RangeItem::create(1, memory.bytes.data(), RangeItem::kMostBytes + 1).error().code ==
        Errc::kTooLarge);
  finish(world.journal);
}

TEST_CASE("a range item whose bitmap finds no memory is an error") {
  class NoMemory : public Os {
   public:
    void* metadata_allocate(std::size_t bytes) override {
      return bytes == 16384 ? nullptr : Os::metadata_allocate(bytes);
    }
  };
  NoMemory os;
  const ScopedOs scope(os);
  const auto made = RangeItem::create(1, nullptr, RangeItem::kMostBytes);
  CHECK(made.error().code == Errc::kNoMemory);
}

TEST_CASE("a mark beyond the range's end aborts") {
  const Ending ending = run_in_child([] {
    Memory memory(1000);
    memory.item->mark(990, 11);
  });
  CHECK(ending.aborted_with("mark() beyond the range's end"));
}

TEST_CASE("ranges are marked and committed by several threads, each under its own lock") {
  RangeWorld world;
  std::vector<std::unique_ptr<Memory>> memories;
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    memories.push_back(std::make_unique<Memory>(5000, t + 1, t));
  }
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::uint64_t random = t + 1;
      for (int i = 0; i < 200; ++i) {
        Memory& memory = *memories[t];
        auto transaction = world.journal->begin(memory.most(), 1);
        KEEL_CHECK(transaction.ok(), "begin");
        memory.write(sim_random(random) % 4990, 10, static_cast<char>('a' + i % 26));
        KEEL_CHECK(transaction->log(*memory.item).ok(), "log");
        KEEL_CHECK(transaction->commit().ok(), "commit");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  REQUIRE(world.journal->force_all().ok());
  world.journal->audit();
  ItemHome home;
  for (std::uint64_t t = 0; t < 4; ++t) {
    home.memory[t] = memories[t]->home;
  }
  world.after_crash([&] { home.recover(); });
  for (std::uint64_t t = 0; t < 4; ++t) {
    CHECK((home.memory[t] == memories[t]->bytes));
  }
  finish(world.journal);
}

TEST_CASE("a range item whose form is not sound is no range") {
  const auto found = [](format::RangeHeader header, std::vector<format::Range> table,
                        const std::string& piece) {
    std::vector<RecoveredRegion> regions{{{}, std::as_bytes(std::span(&header, 1))}};
    regions.push_back({{}, std::as_bytes(std::span(table))});
    regions.push_back({{}, bytes_of(piece)});
    return RecoveredRange::from({format::kTypeRange, regions}).has_value();
  };
  CHECK(found({1, 10, 1}, {{7, 3}}, "abc"));
  CHECK_FALSE(found({1, 9, 1}, {{7, 3}}, "abc"));
  CHECK_FALSE(found({1, 10, 2}, {{7, 3}}, "abc"));
  CHECK_FALSE(found({1, 10, 0}, {{7, 3}}, "abc"));
  format::RangeHeader none{1, 10, 0};
  const RecoveredRegion region{{}, std::as_bytes(std::span(&none, 1))};
  CHECK_FALSE(RecoveredRange::from({format::kTypeRange, {&region, 1}}).has_value());
}

TEST_CASE("a range item that is not attached has nothing to clean, without memory none is made") {
  RangeItem item(3);
  item.clean();
  CHECK_FALSE(item.pinned());
  std::string memory(1000, 'm');
  FaultOs os;
  const ScopedOs scope(os);
  for (std::uint64_t nth = 1; nth <= 2; ++nth) {  // the item, and its bitmap
    os.fail_nth(nth, mask_of(OsCall::kMetadata));
    const auto made = RangeItem::create(4, memory.data(), memory.size());
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == Errc::kNoMemory);
  }
  CHECK(RangeItem::create(4, memory.data(), memory.size()).ok());
}

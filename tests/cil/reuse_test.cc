// Items that live longer than a journal, and calls that meet a journal's end.

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "keel/alloc/pool.h"
#include "log/geometry.h"
#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

// An empty log of this block size, as another machine may have made it.
void put_log(SimDisk& disk, std::uint32_t block_bytes) {
  format::Superblock superblock{};
  superblock.block_bytes = block_bytes;
  superblock.data_bytes = format::kMinDataBlocks * block_bytes;
  superblock.file_bytes = (format::kMinDataBlocks + 4) * block_bytes;
  superblock.max_checkpoint_bytes = superblock.data_bytes / 4;
  format::StateSlot state{};
  state.generation = 1;
  state.incarnation = 1;
  state.flags = format::kStateClean;
  const Geometry geometry = geometry_of(superblock);
  SimContent image(superblock.file_bytes);
  for (int copy = 0; copy < 2; ++copy) {
    encode(superblock, image.data() + geometry.superblock_offset(copy));
    encode(state, image.data() + geometry.state_offset(copy));
  }
  disk.set_image(kLogPath, image);
}

}  // namespace

TEST_CASE("an item goes on in a journal of another pool") {
  LogWorld world;
  auto first = Pool::create({.capacity_bytes = 32U << 20});
  auto second = Pool::create({.capacity_bytes = 32U << 20});
  REQUIRE(first.ok());
  REQUIRE(second.ok());
  Trace trace;
  Probe item(trace, 1);
  {
    auto journal = world.open({.pool = first->get()});
    for (const std::size_t bytes : {100U, 200U, 9000U}) {
      item.regions = {std::string(bytes, 'x')};
      commit(*journal, {&item}, 20000);
    }
    finish(journal);
  }
  auto journal = world.open({.pool = second->get()});
  item.regions = {std::string(20000, 'y')};
  commit(*journal, {&item}, 20000);
  item.regions = {std::string(100, 'z')};
  commit(*journal, {&item}, 20000);
  journal->audit();
  finish(journal);
}

TEST_CASE("an item goes on in a journal of another block size") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  {
    auto journal = world.open();
    for (int i = 0; i < 2; ++i) {  // twice, so that a shadow stays
      item.regions = {std::string(9000, 'x')};
      commit(*journal, {&item}, 20000);
    }
    finish(journal);
  }
  put_log(world.disk, 16384);
  {
    auto journal = world.open();
    REQUIRE(journal->info().block_bytes == 16384);
    commit(*journal, {&item}, 20000);
    journal->audit();
    finish(journal);
  }
  CHECK(world.read() == Found{{1, {{17, {std::string(9000, 'x')}}}}});
}

TEST_CASE("a journal that a failed write shut down passes its audit") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = world.open();
  commit(*journal, {&item});
  world.disk.inject({.op = SimOp::kWrite, .nth = 1, .error = EIO, .for_good = true});
  CHECK_FALSE(journal->force_all().ok());
  journal->audit();
  CHECK_FALSE(journal->close().ok());
}

TEST_CASE("a journal that is shut down with a newer context passes its audit") {
  LogWorld world;
  Trace trace;
  Probe item(trace, 1), late(trace, 2);
  item.regions = {"x"};
  late.regions = {"y"};
  auto journal = world.open();
  commit(*journal, {&item});
  std::atomic<bool> once{false};
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kWrite && !once.exchange(true)) {
      std::thread([&] { commit(*journal, {&late}); }).join();
    }
  });
  world.disk.inject({.op = SimOp::kWrite, .nth = 1, .error = EIO, .for_good = true});
  CHECK_FALSE(journal->force_all().ok());
  CHECK(once);
  while (late.pinned()) {
    std::this_thread::yield();
  }
  journal->audit();
  CHECK_FALSE(journal->close().ok());
}

TEST_CASE("begin() is refused from the moment that close() begins, also if the tail then moves") {
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  Probe small(trace, 100);
  small.regions = {"x"};
  auto journal = world.open();
  constexpr std::size_t kBytes = 60000;
  for (std::uint32_t i = 0; i < 14; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    items.back()->regions = {std::string(kBytes, 'x')};
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, kBytes)).ok());
  }
  commit(*journal, {&small});
  std::atomic<bool> closing{false};
  std::atomic<bool> go_on{false};
  world.disk.on_io([&](const SimIo& io) {
    if (io.op == SimOp::kFlush && !closing.exchange(true)) {
      while (!go_on) {
        std::this_thread::yield();
      }
    }
  });
  std::thread closer([&] { CHECK(journal->close().ok()); });
  while (!closing) {
    std::this_thread::yield();
  }
  std::atomic<bool> began{false};
  std::thread late([&] {
    began = true;
    auto transaction = journal->begin(3 * kBytes, 1);  // room for it comes with the tail
    REQUIRE_FALSE(transaction.ok());
    CHECK(transaction.error().code == Errc::kShutdown);
  });
  while (!began) {
    std::this_thread::yield();
  }
  let_others_run();
  for (const auto& item : items) {
    CHECK(journal->release(*item));
  }
  go_on = true;
  late.join();
  closer.join();
}

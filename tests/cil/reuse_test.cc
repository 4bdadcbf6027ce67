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

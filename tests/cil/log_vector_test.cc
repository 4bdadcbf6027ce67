#include "log_vector.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "keel/alloc/pool.h"
#include "log/format.h"
#include "probe.h"
#include "support/death.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint32_t kBlock = 4096;

struct Freer {
  void operator()(LogVector* vector) const { default_pool().kvfree(vector); }
};
using Vector = std::unique_ptr<LogVector, Freer>;

Vector vector_for(const ItemSize& size) {
  return Vector(allocate_log_vector(default_pool(), layout_of(size), kBlock));
}

// The packed stream of an item with these regions, region i all bytes of value i + 1.
std::string packed_stream(std::uint32_t type, const std::vector<std::size_t>& lengths) {
  std::string stream;
  const auto header = [&stream](std::uint32_t first, std::uint32_t second) {
    stream.append(reinterpret_cast<const char*>(&first), sizeof first);
    stream.append(reinterpret_cast<const char*>(&second), sizeof second);
  };
  if (!lengths.empty()) {
    header(type, static_cast<std::uint32_t>(lengths.size()));
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const auto rest = static_cast<std::uint32_t>(lengths[i] % kBlock);
    header(static_cast<std::uint32_t>(lengths[i] / kBlock), rest);
    stream.append(rest, static_cast<char>(i + 1));
    stream.append(round_up(rest, 8) - rest, '\0');
  }
  return stream;
}

// Writes the regions and checks that each stands where it may, with its bytes.
void check_snapshot(LogVector& vector, const ItemSize& size,
                    const std::vector<std::size_t>& lengths) {
  constexpr std::uint32_t kType = 77;
  SnapshotWriter writer(vector, layout_of(size));
  std::vector<const std::byte*> large_places;
  std::vector<std::size_t> large_numbers;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    std::byte* place = writer.region(lengths[i]);
    CHECK(reinterpret_cast<std::uintptr_t>(place) % (lengths[i] >= kBlock ? 4096 : 8) == 0);
    if (lengths[i] != 0) {
      std::memset(place, static_cast<int>(i + 1), lengths[i]);
    }
    if (lengths[i] >= kBlock) {
      large_places.push_back(place);
      large_numbers.push_back(i);
    }
  }
  writer.finish(kType);
  const auto* begin = reinterpret_cast<const std::byte*>(&vector);
  const std::string stream = packed_stream(kType, lengths);
  REQUIRE(vector.packed_bytes == stream.size());
  CHECK(std::memcmp(vector.packed(), stream.data(), stream.size()) == 0);
  LargeRegions large(vector);
  const std::byte* end = vector.packed() + vector.packed_bytes;
  for (std::size_t i = 0; i < large_places.size(); ++i) {
    const std::size_t bytes = lengths[large_numbers[i]];
    REQUIRE(large.next());
    CHECK(large.data() == large_places[i]);
    CHECK(large.blocks() == bytes / kBlock);
    CHECK(large.rest_bytes() == bytes % kBlock);
    CHECK(large.data() >= end);
    end = large.data() + bytes;
    for (std::size_t at = 0; at < bytes; ++at) {
      REQUIRE(large.data()[at] == static_cast<std::byte>(large_numbers[i] + 1));
    }
  }
  CHECK_FALSE(large.next());
  CHECK(end <= begin + vector.capacity_bytes);
}

ItemSize size_of(const std::vector<std::size_t>& lengths) {
  ItemSize size(kBlock);
  for (const std::size_t bytes : lengths) {
    size.region(bytes);
  }
  return size;
}

}  // namespace

TEST_CASE("a region below a block is packed, one of a block and more keeps its blocks apart") {
  struct Row {
    std::size_t bytes;
    std::uint64_t packed, bulk;
    std::size_t large;
  };
  for (const Row& row :
       {Row{0, 16, 0, 0}, Row{1, 24, 0, 0}, Row{8, 24, 0, 0}, Row{4095, 16 + 4096, 0, 0},
        Row{4096, 16, 1, 4096}, Row{4097, 24, 1, 8192}, Row{3U << 20, 16, 768, 3U << 20}}) {
    CAPTURE(row.bytes);
    const ItemSize size = size_of({row.bytes});
    CHECK(size.packed_bytes() == row.packed);
    CHECK(size.bulk_blocks() == row.bulk);
    CHECK(size.large_bytes() == row.large);
    CHECK(size.region_count() == 1);
    CHECK_FALSE(size.empty());
    CHECK_FALSE(size.is_ordered());
    const Vector vector = vector_for(size);
    REQUIRE(vector != nullptr);
    CHECK(vector->capacity_bytes >= log_vector_bytes(layout_of(size)));
    check_snapshot(*vector, size, {row.bytes});
    CHECK(vector->bulk_blocks == row.bulk);
  }
}

TEST_CASE("an item that adds nothing is empty, an ordered one is not") {
  ItemSize size(kBlock);
  CHECK(size.empty());
  CHECK(size.packed_bytes() == 0);
  size.ordered();
  CHECK_FALSE(size.empty());
  CHECK(size.is_ordered());
  CHECK(size.packed_bytes() == 0);
}

TEST_CASE("regions of all kinds share one vector without touching each other") {
  std::uint64_t random = test_seed("log vector", 5);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::size_t> lengths(1 + sim_random(random) % 40);
    for (std::size_t& bytes : lengths) {
      const std::uint64_t draw = sim_random(random);
      const std::size_t kinds[] = {0, draw % 64, draw % 4096, 4095, 4096, 4097, draw % 20000};
      bytes = kinds[draw / 65536 % 7];
    }
    const ItemSize size = size_of(lengths);
    const Vector vector = vector_for(size);
    check_snapshot(*vector, size, lengths);
    CHECK(vector->packed_bytes == size.packed_bytes());
    CHECK(vector->bulk_blocks == size.bulk_blocks());
  }
}

TEST_CASE(
    "a vector is laid out anew for a smaller snapshot, and fewer regions than sized are fine") {
  const ItemSize larger = size_of({100, 10000, 200});
  const Vector vector = vector_for(larger);
  check_snapshot(*vector, larger, {100, 10000, 200});
  check_snapshot(*vector, size_of({5000, 10, 0, 0}), {5000, 10});
  CHECK(vector->packed_bytes == 8 + 8 + 904 + 8 + 16);
  CHECK(vector->bulk_blocks == 1);
}

TEST_CASE("a region may turn out shorter than sized on its side of a block") {
  const ItemSize size = size_of({12000, 100, 4000});
  const Vector vector = vector_for(size);
  check_snapshot(*vector, size, {4097, 7, 0});
  CHECK(vector->bulk_blocks == 1);
  CHECK(vector->packed_bytes == 8 + (8 + 8) + (8 + 8) + 8);
}

TEST_CASE("more regions or bytes than sized abort") {
  const auto more = [](const std::vector<std::size_t>& sized,
                       const std::vector<std::size_t>& done) {
    return run_in_child([&] {
      auto pool = Pool::create({.capacity_bytes = 4U << 20});  // a child has not its parent's
      const SnapshotLayout layout = layout_of(size_of(sized));
      LogVector* vector = allocate_log_vector(**pool, layout, kBlock);
      SnapshotWriter writer(*vector, layout);
      for (const std::size_t bytes : done) {
        (void)writer.region(bytes);
      }
    });
  };
  CHECK(more({100}, {100}).exit_code == 0);
  CHECK(more({100}, {100, 0}).aborted_with("more regions than sized"));
  CHECK(more({100}, {105}).aborted_with("more bytes than sized"));
  CHECK(more({100}, {4096}).aborted_with("more bytes than sized"));
  CHECK(more({4096}, {8192}).aborted_with("more bytes than sized"));
  // The other side of a block: there is no room for it among the small ones.
  CHECK(more({4096}, {100}).aborted_with("more bytes than sized"));
  CHECK(more({8192, 8192}, {8192, 8193}).aborted_with("more bytes than sized"));
  // One whole block less makes a rest, for which there is no room.
  CHECK(more({8192}, {8191}).aborted_with("more bytes than sized"));
  CHECK(more({8200}, {8192}).exit_code == 0);
}

TEST_CASE("a client that writes beyond a region is stopped before it spoils the checkpoint") {
  const auto write = [](std::size_t bytes) {
    return run_in_child([bytes] {
      auto pool = Pool::create({.capacity_bytes = 4U << 20});
      const SnapshotLayout layout = layout_of(size_of({16, 16}));
      LogVector* vector = allocate_log_vector(**pool, layout, kBlock);
      SnapshotWriter writer(*vector, layout);
      std::byte* place = writer.region(16);
      (void)writer.region(16);
      std::memset(place, 1, bytes);
      writer.finish(16);
    });
  };
  CHECK(write(16).exit_code == 0);
  CHECK(write(24).aborted_with("beyond the end of a region"));
}

TEST_CASE(
    "two checkpoints joined take a block more than both apart at most, and less never takes more") {
  std::uint64_t random = test_seed("shape", 6);
  using format::checkpoint_shape;
  const auto draw_length = [&random](std::uint64_t near) {
    const std::uint64_t draw = sim_random(random);
    switch (draw % 4) {
      case 0: return draw / 8 % (near * 5);
      case 1: return near * (draw / 8 % 5) + 8 * (draw / 64 % 3);
      case 2: return near * (1 + draw / 8 % 4) - 8 * (draw / 64 % 3);
      default: return draw / 8 % 40;
    }
  };
  bool one_more = false;
  for (int i = 0; i < 200000; ++i) {
    const std::uint32_t block = 4096U << (sim_random(random) % 5);
    const std::uint64_t full_bulk = format::kMaxRecordBulkBytes / block;
    const std::uint64_t packed_a = draw_length(format::kMaxRecordPackedBytes) / 8 * 8;
    const std::uint64_t packed_b = draw_length(format::kMaxRecordPackedBytes) / 8 * 8;
    const std::uint64_t bulk_a = draw_length(full_bulk);
    const std::uint64_t bulk_b = draw_length(full_bulk);
    const auto a = checkpoint_shape(packed_a, bulk_a, block);
    const auto b = checkpoint_shape(packed_b, bulk_b, block);
    const auto sum = checkpoint_shape(packed_a + packed_b, bulk_a + bulk_b, block);
    CAPTURE(packed_a);
    CAPTURE(packed_b);
    CAPTURE(bulk_a);
    CAPTURE(bulk_b);
    CAPTURE(block);
    REQUIRE(sum.bytes <= a.bytes + b.bytes + block);
    one_more = one_more || sum.bytes > a.bytes + b.bytes;
    REQUIRE(sum.bytes >= a.bytes);
    REQUIRE(sum.bytes % block == 0);
  }
  CHECK(one_more);  // the bound is tight
}

TEST_CASE("the shape of a checkpoint is what its records add up to") {
  std::uint64_t random = test_seed("records", 7);
  for (int i = 0; i < 20000; ++i) {
    const std::uint32_t block = 4096U << (sim_random(random) % 5);
    std::uint64_t packed = sim_random(random) % 300000;
    std::uint64_t bulk = sim_random(random) % (5 * format::kMaxRecordBulkBytes / block);
    const auto shape = format::checkpoint_shape(packed, bulk, block);
    std::uint64_t bytes = 0;
    for (std::uint64_t record = 0; record < shape.records; ++record) {
      const auto packed_now = std::min(packed, format::kMaxRecordPackedBytes);
      const auto bulk_now = std::min(bulk, format::kMaxRecordBulkBytes / block);
      bytes += format::record_bytes(packed_now, bulk_now, block);
      packed -= packed_now;
      bulk -= bulk_now;
    }
    REQUIRE(packed == 0);
    REQUIRE(bulk == 0);
    REQUIRE(bytes == shape.bytes);
  }
}

TEST_CASE("a snapshot that is given back stays, whatever a cancelled commit has left meanwhile") {
  ItemSize size(kBlock);
  size.region(100);
  const auto vector = [&size](bool is_snapshot) {
    LogVector* made = allocate_log_vector(default_pool(), layout_of(size), kBlock);
    REQUIRE(made != nullptr);
    made->is_snapshot = is_snapshot;
    return made;
  };
  Trace trace;
  Probe item(trace, 1);
  Vector snapshot(vector(true));
  Vector scratch(vector(false));
  // Nothing came meanwhile.
  CHECK(ItemAccess::return_shadow(item, snapshot.get()) == nullptr);
  CHECK(ItemAccess::claim_shadow(item) == snapshot.get());
  // A commit that found no shadow, and was cancelled, has left what it had made.
  REQUIRE(ItemAccess::put_shadow(item, scratch.get()));
  CHECK(ItemAccess::return_shadow(item, snapshot.get()) == scratch.get());
  CHECK(ItemAccess::shadow(item) == snapshot.get());
  // What is no snapshot takes nobody's place.
  CHECK(ItemAccess::return_shadow(item, scratch.get()) == scratch.get());
  CHECK(ItemAccess::claim_shadow(item) == snapshot.get());
}

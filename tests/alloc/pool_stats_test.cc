// A pool's statistics: they add up, and their texts can be read by machines.
#include "keel/alloc/pool_stats.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "counters.h"
#include "cpu_pin.h"
#include "keel/base/percpu.h"
#include "pool_support.h"
#include "support/fault_os.h"
#include "support/seeded.h"

using namespace keel;
using namespace keel_test;

namespace {

// A pool that has used all that it counts.
std::unique_ptr<Pool> used_pool(bool hardened, std::vector<void*>& held) {
  const Messages messages;
  auto pool =
      make_pool({.capacity_bytes = 8 * kMiB, .window_bytes = 64 * kMiB, .hardened = hardened});
  for (int round = 0; round < 3; ++round) {
    auto pages = fragment(*pool);
    held.push_back(pool->kvmalloc(20 * kPage, AllocFlags::kNoWarn, "mapped"));
    free_all(*pool, pages);
    pool->kvfree(pool->kvmalloc(5 * kMiB));
  }
  held.push_back(pool->kvmalloc(3 * kPage, AllocFlags::kKernel, "contiguous"));
  pool->kvfree(pool->kvmalloc(9 * kPage));
  return pool;
}

}  // namespace

TEST_CASE("live, idle, quarantined and free memory are all that is populated, at every step") {
  Seeded random("pool stats");
  for (const bool hardened : {false, true}) {
    const auto pool = make_pool({.capacity_bytes = 16 * kMiB,
                                 .window_bytes = 64 * kMiB,
                                 .hardened = hardened,
                                 .quarantine_bytes = 2 * kMiB});
    std::vector<void*> buffers;
    std::uint64_t freed = 0;
    for (int i = 0; i < 2'000; ++i) {
      const bool large = random.one_in(20);
      if (!buffers.empty() && random.one_in(2)) {
        pool->kvfree(buffers.back());
        buffers.pop_back();
        ++freed;
      } else if (void* made = pool->kvmalloc(kPage + random(large ? 5 * kMiB : 60'000),
                                             AllocFlags::kNoWarn)) {
        buffers.push_back(made);
      }
      const PoolStats stats = pool->stats();
      check_adds_up(stats);
      REQUIRE(stats.frees >= freed);  // A restarted sequence counts twice.
      if (i % 100 == 0) {
        std::uint64_t held = 0;
        std::array<OwnerBytes, 4> owners;
        for (std::size_t k = pool->holders(owners); k-- > 0;) {
          held += owners[k].held.value();
        }
        REQUIRE(stats.live == Bytes(held));
        std::uint64_t in_blocks = 0;
        for (std::size_t order = 0; order < stats.free_blocks.size(); ++order) {
          in_blocks += stats.free_blocks[order] * (kPage << order);
        }
        REQUIRE(stats.free == Bytes(in_blocks));
      }
    }
    free_all(*pool, buffers);
    CHECK(pool->stats().live == Bytes(0));
  }
}

TEST_CASE("every allocation is counted once, by what served it") {
  const Pinned here;  // Idle buffers lie on the stack of the CPU that freed them.
  const auto pool = make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
  std::vector<void*> buffers;
  for (int i = 0; i < 100; ++i) {
    buffers.push_back(pool->kvmalloc(3 * kPage));
  }
  free_all(*pool, buffers);
  for (int i = 0; i < 100; ++i) {
    buffers.push_back(pool->kvmalloc(3 * kPage));
  }
  buffers.push_back(pool->kvmalloc(5 * kMiB));
  const PoolStats stats = pool->stats();
  const std::uint64_t served = stats.cache_hits + stats.cache_refills +
                               stats.contiguous_allocations + stats.vmalloc_allocations;
  CHECK(served >= 201);
  CHECK(served <= 205);  // A restarted sequence counts twice.
  CHECK(stats.contiguous_allocations <= 110);
  CHECK(stats.vmalloc_allocations == 1);
  CHECK(stats.frees >= 100);
  CHECK(stats.frees <= 104);
  std::uint64_t slow = 0;
  for (const std::uint64_t bucket : stats.slow_allocation_ns) {
    slow += bucket;
  }
  CHECK(slow >= 1);  // Those that made system calls.
  CHECK(slow <= stats.contiguous_allocations + stats.vmalloc_allocations);
  free_all(*pool, buffers);
}

TEST_CASE("a pool's facts are its config, and no huge pages where the kernel does not tell") {
  FaultOs os;
  const ScopedOs scope(os);
  const auto pool = make_pool({.capacity_bytes = 8 * kMiB, .window_bytes = 64 * kMiB});
  const PoolFacts facts = pool->facts();
  CHECK(facts.config.capacity_bytes == 8 * kMiB);
  CHECK(facts.cpus == possible_cpus());
  CHECK(facts.huge <= Bytes(8 * kMiB));
  os.fail_from(1, mask_of(OsCall::kOpen), EACCES);
  CHECK(pool->facts().huge == Bytes(0));
  CHECK(os.fired());
}

TEST_CASE("times are counted by powers of two, and those past the last with the last") {
  Histogram histogram;
  for (const std::uint64_t ns :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{5}, std::uint64_t{7}, std::uint64_t{8},
        std::uint64_t{1} << 38, std::uint64_t{1} << 39, UINT64_MAX}) {
    histogram.add(ns);
  }
  CHECK(histogram.bucket(0) == 1);
  CHECK(histogram.bucket(1) == 1);
  CHECK(histogram.bucket(3) == 2);
  CHECK(histogram.bucket(4) == 1);
  CHECK(histogram.bucket(Histogram::kBuckets - 1) == 3);
}

TEST_CASE("owners that hold most come first, and idle memory is nobody's") {
  const auto pool = make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
  void* some = pool->kvmalloc(3 * kPage, AllocFlags::kKernel, "some");
  void* most = pool->kvmalloc(6 * kMiB, AllocFlags::kKernel, "most");
  pool->kvfree(pool->kvmalloc(8 * kPage, AllocFlags::kKernel, "idle"));
  std::array<OwnerBytes, 8> owners;
  REQUIRE(pool->holders(owners) == 2);
  CHECK(owners[0].owner == doctest::String("most"));
  CHECK(owners[0].held == Bytes(6 * kMiB));
  CHECK(owners[1].owner == doctest::String("some"));
  CHECK(owners[1].held == Bytes(3 * kPage));
  CHECK(pool->holders(std::span(owners).first(1)) == 1);
  CHECK(pool->holders({}) == 0);
  pool->kvfree(some);
  pool->kvfree(most);
  CHECK(pool->holders(owners) == 0);
}

TEST_CASE("one owner's text at two addresses is one owner of buffers") {
  static const char kOnce[] = "same";
  static const char kTwice[] = "same";
  const auto pool = make_pool({.capacity_bytes = 16 * kMiB, .window_bytes = 64 * kMiB});
  void* once = pool->kvmalloc(2 * kPage, AllocFlags::kKernel, kOnce);
  void* twice = pool->kvmalloc(6 * kMiB, AllocFlags::kKernel, kTwice);
  std::array<OwnerBytes, 8> owners;
  REQUIRE(pool->holders(owners) == 1);
  CHECK(owners[0].owner == doctest::String("same"));
  CHECK(owners[0].held == Bytes(6 * kMiB + 2 * kPage));
  pool->kvfree(once);
  pool->kvfree(twice);
}

TEST_CASE("metadata counts what small objects and mappings need beside them") {
  const auto pool = make_pool({.capacity_bytes = 64 * kMiB, .window_bytes = 256 * kMiB});
  REQUIRE(pool->reserve(Bytes(40 * kMiB)).ok());
  const Bytes before = pool->stats().metadata;
  std::vector<void*> objects;
  while (pool->stats().small < Bytes(20 * kMiB)) {
    for (int i = 0; i < 1000; ++i) {
      objects.push_back(pool->kvmalloc(1024));
    }
  }
  const Bytes with_objects = pool->stats().metadata;
  CHECK(with_objects - before >= Bytes(20 * kMiB / kPage * 516));
  free_all(*pool, objects);
  CHECK(pool->trim() != Bytes(0));
  const Bytes after = pool->stats().metadata;  // The marks stay, the frames' records are fewer.
  CHECK(after >= before - Bytes(40 * kMiB / kPage * 32) + Bytes(20 * kMiB / kPage * 516));
  void* mapped = pool->kvmalloc(10 * kMiB);
  REQUIRE(mapped != nullptr);
  CHECK(pool->stats().metadata - after >= Bytes(10 * kMiB / kPage * (32 + 24)));
  pool->kvfree(mapped);
}

TEST_CASE("the JSON text is one object on one line, with the numbers of the struct") {
  for (const bool hardened : {false, true}) {
    std::vector<void*> held;
    const auto pool = used_pool(hardened, held);
    const PoolStats stats = pool->stats();
    const std::string text = to_json(stats);
    CHECK(text.find('\n') == std::string::npos);
    const auto json = nlohmann::json::parse(text, nullptr, false);
    REQUIRE(json.is_object());
    CHECK(json["live_bytes"] == stats.live.value());
    CHECK(json["cached_bytes"] == stats.cached.value());
    CHECK(json["quarantined_bytes"] == stats.quarantined.value());
    CHECK(json["free_bytes"] == stats.free.value());
    CHECK(json["populated_bytes"] == stats.populated.value());
    CHECK(json["capacity_bytes"] == 8 * kMiB);
    CHECK(json["frees"] == stats.frees);
    CHECK(json["vmalloc_allocations"] == stats.vmalloc_allocations);
    CHECK(json["free_blocks"].size() == stats.free_blocks.size());
    CHECK(json["slow_allocation_ns"].size() == stats.slow_allocation_ns.size());
    REQUIRE(json["classes"].size() == stats.classes.size());
    for (std::size_t c = 0; c < stats.classes.size(); ++c) {
      CHECK(json["classes"][c]["bytes"] == stats.classes[c].size.value());
      CHECK(json["classes"][c]["idle"] == stats.classes[c].idle);
    }
    free_all(*pool, held);
  }
}

namespace {

bool is_metric(const std::string& name) {
  return name.starts_with("keel_pool_") &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos;
}
bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

TEST_CASE("the Prometheus text has help, type and value of each metric, each once") {
  std::vector<void*> held;
  const auto pool = used_pool(false, held);
  const PoolStats stats = pool->stats();
  std::map<std::string, std::string> types;
  std::map<std::string, std::string> values;
  std::string helped;
  const std::string text = to_prometheus(stats);
  CHECK(text.back() == '\n');
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    CAPTURE(line);
    std::istringstream words(line);
    std::string first;
    std::string second;
    std::string third;
    std::string fourth;
    words >> first >> second >> third >> fourth;
    if (first != "#") {
      const std::string name = first.substr(0, first.find('{'));
      CHECK(name == helped);
      CHECK((name == first || first.ends_with("\"}")));
      CHECK((is_number(second) && third.empty()));
      CHECK(values.emplace(first, second).second);
    } else if (second == "HELP") {
      CHECK((is_metric(third) && !fourth.empty()));
      CHECK(types.count(third) == 0);
      helped = third;
    } else {
      CHECK(second == "TYPE");
      CHECK(third == helped);
      CHECK((fourth == "counter" || fourth == "gauge"));
      types[third] = fourth;
    }
  }
  for (const auto& type : types) {  // No binding: CAPTURE makes a lambda, which may not take one.
    const auto& name = type.first;
    CAPTURE(name);
    CHECK((type.second == "counter") == (name.size() > 6 && name.ends_with("_total")));
  }
  CHECK(values["keel_pool_live_bytes"] == std::to_string(stats.live.value()));
  CHECK(values["keel_pool_frees_total"] == std::to_string(stats.frees));
  CHECK(values["keel_pool_free_blocks{order=\"0\"}"] == std::to_string(stats.free_blocks[0]));
  free_all(*pool, held);
}

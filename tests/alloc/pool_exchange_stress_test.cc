// Two to 32 threads allocate, swap buffers and free those of others, while the pool's thread runs
// and everything that may be called meanwhile is.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <optional>
#include <thread>

#include "keel/base/scopes.h"
#include "pool_support.h"
#include "support/seeded.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

// What a buffer holds at its beginning; the last byte of each page repeats the mark.
struct Header {
  std::size_t size;
  std::uint64_t mark;
};

struct Board {
  std::unique_ptr<Pool> pool;
  std::array<std::atomic<void*>, 64> slots{};
  std::atomic<unsigned> wrong{0};
  std::atomic<unsigned> working{0};
  std::atomic<std::uint64_t> allocated{0};
  std::atomic<std::uint64_t> freed{0};
};

template <class Act>
void for_each_last_byte(unsigned char* buffer, std::size_t size, Act act) {
  for (std::size_t at = kPage - 1; at < size; at += kPage) {
    act(buffer[at]);
  }
}

void fill_in(void* buffer, std::size_t size, std::uint64_t mark) {
  *static_cast<Header*>(buffer) = {size, mark};
  for_each_last_byte(static_cast<unsigned char*>(buffer), size,
                     [&](unsigned char& byte) { byte = static_cast<unsigned char>(mark); });
}

void check_and_free(Board& board, void* buffer) {
  if (buffer == nullptr) {
    return;
  }
  const Header header = *static_cast<Header*>(buffer);
  for_each_last_byte(static_cast<unsigned char*>(buffer), header.size, [&](unsigned char byte) {
    board.wrong += byte != static_cast<unsigned char>(header.mark) ? 1 : 0;
  });
  if (header.mark % 4 == 0) {
    board.pool->kvfree_sized(buffer, header.size);
  } else {
    board.pool->kvfree(buffer);
  }
  ++board.freed;
}

AllocFlags some_flags(std::uint64_t draw) {
  constexpr std::array kSome{AllocFlags::kKernel, AllocFlags::kNoFs,   AllocFlags::kNoWait,
                             AllocFlags::kZero,   AllocFlags::kKernel, AllocFlags::kRetryMayfail};
  return kSome[draw % kSome.size()] | AllocFlags::kNoWarn;
}

std::size_t some_size(std::mt19937_64& random) {
  const std::uint64_t kind = random() % 32;
  const std::size_t most = kind == 0 ? 5 * kMiB : kind < 4 ? kMiB / 2 : kMiB / 16;
  return sizeof(Header) + random() % most;
}

void work(Board& board, std::uint64_t seed, std::uint64_t steps) {
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < steps; ++i) {
    const std::size_t size = some_size(random);
    const AllocFlags flags = some_flags(random());
    const std::optional<NoReclaimScope> scope =
        random() % 8 == 0 ? std::optional<NoReclaimScope>(std::in_place) : std::nullopt;
    const char* owner = random() % 2 == 0 ? "even" : "odd";
    void* buffer = board.pool->kvmalloc(size, flags, owner);
    std::atomic<void*>& slot = board.slots[random() % board.slots.size()];
    if (buffer == nullptr) {
      check_and_free(board, slot.exchange(nullptr));
      continue;
    }
    ++board.allocated;
    if (has(flags, AllocFlags::kZero)) {
      for_each_last_byte(static_cast<unsigned char*>(buffer), size,
                         [&](unsigned char byte) { board.wrong += byte != 0 ? 1 : 0; });
    }
    fill_in(buffer, size, random());
    check_and_free(board, slot.exchange(buffer));
  }
  --board.working;
}

// All that may be called beside.
void disturb(Board& board) {
  Pool& pool = *board.pool;
  std::array<OwnerBytes, 8> owners;
  for (unsigned turn = 0; board.working != 0; ++turn) {
    switch (turn % 7) {
      case 0: pool.purge(); break;
      case 1: pool.trim(); break;
      case 2: board.wrong += pool.stats().populated > pool.stats().capacity ? 1 : 0; break;
      case 3: (void)pool.holders(owners); break;
      case 4: (void)pool.reserve(Bytes(kMiB)).ok(); break;
      case 5: (void)to_json(pool.stats()); break;
      default: check_and_free(board, board.slots[turn % board.slots.size()].exchange(nullptr));
    }
    std::this_thread::yield();
  }
}

void run(unsigned threads, PoolConfig config, bool limited) {
  CAPTURE(threads);
  Seeded seeded("pool exchange stress");
  auto made = Pool::create(config);
  REQUIRE(made.ok());
  Board board;
  board.pool = std::move(*made);
  if (limited) {
    REQUIRE(board.pool->set_limit("odd", Bytes(4 * kMiB)).ok());
  }
  FunctionShrinker shrinker([&](Bytes) {
    void* buffer = board.slots[board.freed % board.slots.size()].exchange(nullptr);
    const Bytes size(buffer != nullptr ? static_cast<Header*>(buffer)->size : 0);
    check_and_free(board, buffer);
    return size;
  });
  REQUIRE(board.pool->add_shrinker(shrinker).ok());
  board.working = threads;
  const std::uint64_t steps = test_rounds(40'000, 6'000) / threads;
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t) {
    workers.emplace_back(
        [&board, steps, seed = seeded(~std::uint64_t{0})] { work(board, seed, steps); });
  }
  disturb(board);
  for (std::thread& worker : workers) {
    worker.join();
  }
  board.pool->remove_shrinker(shrinker);
  for (std::atomic<void*>& slot : board.slots) {
    check_and_free(board, slot.exchange(nullptr));
  }
  CHECK(board.wrong == 0);
  CHECK(board.allocated == board.freed);
  CHECK(all_is_free(*board.pool));
  board.pool->audit();
}

constexpr PoolConfig kTight{
    .capacity_bytes = 24 * kMiB, .window_bytes = 64 * kMiB, .max_mappings = 3'000};

}  // namespace

TEST_CASE("buffers change hands among 2 to 32 threads and keep what they hold") {
  for (const unsigned threads : {2U, 4U, 8U, 16U, 32U}) {
    run(threads, kTight, false);
  }
}

TEST_CASE("buffers change hands among threads whose owners have limits") { run(4, kTight, true); }

TEST_CASE("buffers change hands among threads of a hardened pool") {
  PoolConfig config = kTight;
  config.hardened = true;
  config.quarantine_bytes = 4 * kMiB;
  run(4, config, false);
}

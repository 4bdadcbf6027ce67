// A CPU that is stopped again and again while a thread works on its stacks: who takes an item away
// is the only one who has it.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>

#include "cpu_pin.h"
#include "cpu_stacks.h"
#include "support/skip_case.h"
#include "support/test_seed.h"

using namespace keel;
using Engine = CpuStacks::Engine;

namespace {

constexpr unsigned kClass = 7;
constexpr unsigned kItems = 8;

// Where items are: on the stack, or with one of the two threads.
struct Board {
  CpuStacks stacks;
  std::array<std::atomic<bool>, kItems> on_stack{};
  std::array<std::atomic<std::uint32_t>, kItems> given_back{};  // plus one; 0: none
  std::atomic<unsigned> wrong{0};
  std::atomic<bool> done{false};

  void note_taken(std::uint32_t item) { wrong += on_stack[item].exchange(false) ? 0 : 1; }
};

void push_and_pop(Board& board, unsigned cpu) {
  keel_test::pin_to(cpu);
  while (!board.done) {
    const std::uint32_t item = board.stacks.pop(kClass);
    if (item != CpuStacks::kNone) {
      board.note_taken(item);
      board.on_stack[item] = true;
      while (!board.stacks.push(kClass, item)) {
      }
      continue;
    }
    for (auto& slot : board.given_back) {
      if (const std::uint32_t back = slot.exchange(0); back != 0) {
        board.on_stack[back - 1] = true;
        while (!board.stacks.push(kClass, back - 1)) {
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("an item taken from a stopped CPU is had by nobody else, with either engine") {
  const auto cpus = keel_test::allowed_cpus();
  if (cpus.size() < 2) {
    keel_test::skip_case("takes two CPUs");
    return;
  }
  const std::uint64_t rounds = keel_test::test_rounds(400'000, 5'000);
  for (const Engine engine : {Engine::kBest, Engine::kLocked}) {
    CAPTURE(static_cast<int>(engine));
    Board board;
    REQUIRE(board.stacks.open(engine).ok());
    board.stacks.set_limit(cpus[1], kClass, CpuStacks::kDepth);
    for (std::uint32_t item = 0; item < kItems; ++item) {
      board.given_back[item] = item + 1;
    }
    std::thread worker([&] { push_and_pop(board, cpus[1]); });
    const keel_test::Pinned here(cpus[0]);
    for (std::uint64_t i = 0; i < rounds; ++i) {
      std::uint32_t item = 0;
      {
        CpuStacks::Stopped stopped(board.stacks, cpus[1]);
        item = stopped.take_oldest(kClass);
      }
      if (item != CpuStacks::kNone) {
        board.note_taken(item);
        board.given_back[item] = item + 1;
      }
    }
    board.done = true;
    worker.join();
    CHECK(board.wrong == 0);
  }
}

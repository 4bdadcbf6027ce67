#include "cil.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "support/test_seed.h"

using namespace keel;

// Else a force of what was committed to it could take it for an empty one, and not wait.
TEST_CASE("a context to which something was committed never looks empty, while it is closed") {
  Cil cil(Sequence(1), 1);
  std::atomic<std::uint64_t> opened{0};
  std::atomic<bool> done{false};
  std::thread pushes([&] {
    const std::uint64_t rounds = keel_test::test_rounds(2'000'000, 200'000);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      cil.lock_exclusive();
      const Sequence sequence = cil.sequence();
      CHECK_UNARY(cil.open());
      opened.store(sequence.value(), std::memory_order_release);
      (void)cil.switch_context();
      cil.unlock_exclusive();
    }
    done = true;
  });
  std::uint64_t looked_empty = 0;
  std::uint64_t backwards = 0;
  while (!done) {
    const std::uint64_t sequence = opened.load(std::memory_order_acquire);
    const Cil::Current current = cil.current();
    looked_empty += current.sequence == Sequence(sequence) && !current.is_open ? 1U : 0U;
    backwards += current.sequence < Sequence(sequence) ? 1U : 0U;
  }
  pushes.join();
  CHECK(looked_empty == 0);
  CHECK(backwards == 0);
}

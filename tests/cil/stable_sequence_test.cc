#include "stable_sequence.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

using namespace keel;

TEST_CASE("each waiter wakes when its own sequence is stable") {
  StableSequence stable(Sequence(3));
  CHECK(stable.now() == Sequence(3));
  CHECK(stable.wait(Sequence(0)).ok());
  CHECK(stable.wait(Sequence(3)).ok());
  std::array<std::atomic<bool>, 5> woken{};
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < woken.size(); ++i) {
    threads.emplace_back([&, i] {
      CHECK(stable.wait(Sequence(4 + i)).ok());
      CHECK(stable.now() >= Sequence(4 + i));
      woken[i] = true;
    });
  }
  stable.advance(Sequence(5));
  threads[0].join();
  threads[1].join();
  for (std::size_t i = 2; i < woken.size(); ++i) {
    CHECK_FALSE(woken[i]);
  }
  stable.advance(Sequence(100));
  for (std::size_t i = 2; i < woken.size(); ++i) {
    threads[i].join();
  }
}

TEST_CASE("the first error is kept; what was stable before it stays stable") {
  StableSequence stable(Sequence(0));
  CHECK(stable.status().ok());
  CHECK_FALSE(stable.failed());
  std::vector<std::thread> threads;
  std::atomic<int> errors{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const Status status = stable.wait(Sequence(2));
      errors += !status.ok() && status.error().value == 1 ? 1 : 0;
    });
  }
  stable.advance(Sequence(1));
  stable.fail({Errc::kIo, EIO, "first", 1});
  stable.fail({Errc::kShutdown, 0, "second", 2});
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(errors == 4);
  CHECK(stable.failed());
  CHECK(stable.wait(Sequence(1)).ok());
  const Status status = stable.status();
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().value == 1);
}

// CpuStacks on one CPU, with restartable sequences and with locks.
#include "cpu_stacks.h"

#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>

#include "cpu_pin.h"
#include "support/death.h"
#include "support/fault_os.h"
#include "support/run_again.h"
#include "support/skip_case.h"

using namespace keel;
using keel_test::Pinned;
using Engine = CpuStacks::Engine;

namespace {

constexpr unsigned kClass = 5;
constexpr std::array kEngines{Engine::kBest, Engine::kLocked};

// Runs `act(stacks, cpu)` with each engine, on stacks whose class kClass has room for `limit`.
template <class Act>
void with_each_engine(unsigned limit, Act act) {
  const Pinned here;
  for (const Engine engine : kEngines) {
    CAPTURE(static_cast<int>(engine));
    CpuStacks stacks;
    REQUIRE(stacks.open(engine).ok());
    CHECK((engine != Engine::kLocked || !stacks.uses_rseq()));
    stacks.set_limit(here.cpu(), kClass, limit);
    act(stacks, here.cpu());
  }
}

}  // namespace

TEST_CASE("a CPU's stack gives the last item first and takes no more than its limit") {
  with_each_engine(4, [](CpuStacks& stacks, unsigned cpu) {
    CHECK(stacks.pop(kClass) == CpuStacks::kNone);
    for (std::uint32_t item = 0; item < 4; ++item) {
      CHECK(stacks.push(kClass, item));
      CHECK(stacks.count(cpu, kClass) == item + 1);
    }
    CHECK(!stacks.push(kClass, 99));
    CHECK(stacks.count(cpu, kClass) == 4);
    for (std::uint32_t item = 4; item-- > 0;) {
      CHECK(stacks.pop(kClass) == item);
    }
    CHECK(stacks.pop(kClass) == CpuStacks::kNone);
  });
}

TEST_CASE("a new CPU stack takes nothing, and one of full depth takes all that it can") {
  with_each_engine(0, [](CpuStacks& stacks, unsigned cpu) {
    CHECK(!stacks.push(kClass, 1));
    stacks.set_limit(cpu, kClass, CpuStacks::kDepth);
    CHECK(stacks.limit(cpu, kClass) == CpuStacks::kDepth);
    for (std::uint32_t item = 0; item < CpuStacks::kDepth; ++item) {
      CHECK(stacks.push(kClass, item));
    }
    CHECK(!stacks.push(kClass, 99));
  });
}

TEST_CASE("the classes of a CPU do not mix, the first and the last among them") {
  with_each_engine(1, [](CpuStacks& stacks, unsigned cpu) {
    for (unsigned c = 0; c < kSizeClasses; ++c) {
      stacks.set_limit(cpu, c, CpuStacks::kDepth);
      for (unsigned i = 0; i < CpuStacks::kDepth; ++i) {
        CHECK(stacks.push(c, c * 100 + i));
      }
    }
    for (unsigned c = 0; c < kSizeClasses; ++c) {
      for (unsigned i = CpuStacks::kDepth; i-- > 0;) {
        CHECK(stacks.pop(c) == c * 100 + i);
      }
      CHECK(stacks.pop(c) == CpuStacks::kNone);
    }
  });
}

TEST_CASE("a lowered limit holds pushes off and leaves what is there") {
  with_each_engine(3, [](CpuStacks& stacks, unsigned cpu) {
    for (const std::uint32_t item : {7U, 8U, 9U}) {
      CHECK(stacks.push(kClass, item));
    }
    stacks.set_limit(cpu, kClass, 1);
    CHECK(!stacks.push(kClass, 10));
    CHECK(stacks.pop(kClass) == 9);
    CHECK(!stacks.push(kClass, 10));
    CHECK(stacks.pop(kClass) == 8);
    CHECK(!stacks.push(kClass, 10));
    CHECK(stacks.pop(kClass) == 7);
    CHECK(stacks.push(kClass, 10));
  });
}

TEST_CASE("a stopped CPU refuses pushes and pops, and gives its oldest items away") {
  with_each_engine(8, [](CpuStacks& stacks, unsigned cpu) {
    for (std::uint32_t item = 0; item < 5; ++item) {
      CHECK(stacks.push(kClass, item));
    }
    {
      CpuStacks::Stopped stopped(stacks, cpu);
      CHECK(!stacks.push(kClass, 99));
      CHECK(stacks.pop(kClass) == CpuStacks::kNone);
      CHECK(stopped.count(kClass) == 5);
      CHECK(stopped.at(kClass, 0) == 0);
      CHECK(stopped.at(kClass, 4) == 4);
      CHECK(stopped.take_oldest(kClass) == 0);
      CHECK(stopped.take_oldest(kClass) == 1);
      CHECK(stopped.take_oldest(kClass + 1) == CpuStacks::kNone);
    }
    CHECK(stacks.push(kClass, 5));
    for (const std::uint32_t item : {5U, 4U, 3U, 2U}) {
      CHECK(stacks.pop(kClass) == item);
    }
    CpuStacks::Stopped stopped(stacks, cpu);
    CHECK(stopped.take_oldest(kClass) == CpuStacks::kNone);
  });
}

TEST_CASE("stopping one CPU leaves the others at work") {
  const auto cpus = keel_test::allowed_cpus();
  if (cpus.size() < 2) {
    keel_test::skip_case("takes two CPUs");
    return;
  }
  for (const Engine engine : kEngines) {
    CpuStacks stacks;
    REQUIRE(stacks.open(engine).ok());
    stacks.set_limit(cpus[1], kClass, 2);
    const CpuStacks::Stopped stopped(stacks, cpus[0]);
    const Pinned there(cpus[1]);
    CHECK(stacks.push(kClass, 3));
    CHECK(stacks.pop(kClass) == 3);
  }
}

TEST_CASE("each CPU has stacks of its own") {
  const auto cpus = keel_test::allowed_cpus();
  if (cpus.size() < 2) {
    keel_test::skip_case("takes two CPUs");
    return;
  }
  for (const Engine engine : kEngines) {
    CpuStacks stacks;
    REQUIRE(stacks.open(engine).ok());
    for (const unsigned cpu : {cpus[0], cpus[1]}) {
      const Pinned here(cpu);
      stacks.set_limit(cpu, kClass, 1);
      CHECK(stacks.push(kClass, cpu + 10));
    }
    std::thread([&] {
      keel_test::pin_to(cpus[1]);
      CHECK(stacks.pop(kClass) == cpus[1] + 10);
      keel_test::pin_to(cpus[0]);
      CHECK(stacks.pop(kClass) == cpus[0] + 10);
    }).join();
  }
}

TEST_CASE("what goes through a CPU's stack is counted, and what is refused is not") {
  with_each_engine(2, [](CpuStacks& stacks, unsigned cpu) {
    const bool exact = !stacks.uses_rseq();  // A restart counts twice.
    for (int round = 0; round < 10; ++round) {
      CHECK(stacks.push(kClass, 1));
      CHECK(stacks.push(kClass, 2));
      CHECK(!stacks.push(kClass, 3));
      CHECK(stacks.pop(kClass) == 2);
      CHECK(stacks.pop(kClass) == 1);
      CHECK(stacks.pop(kClass) == CpuStacks::kNone);
    }
    CHECK(stacks.pops(kClass) >= 20);
    CHECK(stacks.pushes(kClass) >= 20);
    CHECK(stacks.pops(kClass) <= (exact ? 20 : 25));
    CHECK(stacks.pushes(kClass) <= (exact ? 20 : 25));
    CHECK(stacks.uses(cpu, kClass) == stacks.pops(kClass) + stacks.pushes(kClass));
    CHECK(stacks.uses(cpu, kClass + 1) == 0);
  });
}

TEST_CASE("a limit beyond a stack's depth is a broken invariant") {
  CpuStacks stacks;
  REQUIRE(stacks.open().ok());
  const auto ending =
      keel_test::run_in_child([&] { stacks.set_limit(0, 0, CpuStacks::kDepth + 1); });
  CHECK(ending.aborted_with("limit of a CPU cache"));
}

TEST_CASE("stacks that cannot be mapped are an error and leak nothing") {
  keel_test::FaultOs os;
  const ScopedOs scope(os);
  {
    CpuStacks stacks;
    os.fail_nth(1);
    CHECK(!stacks.open().ok());
  }
  CHECK(os.holds_nothing());
}

TEST_CASE("without restartable sequences a pool's CPU stacks have locks") {
  CHECK(keel_test::passes_with("GLIBC_TUNABLES", "glibc.pthread.rseq=0",
                               "a CPU's stack gives the last item first*"));
}

TEST_CASE("where the kernel does not let threads leave their sequences there are locks") {
  class NoBarrierOs final : public Os {
   public:
    int membarrier(int /*command*/, unsigned /*flags*/, int /*cpu*/) override { return -EPERM; }
  };
  NoBarrierOs os;
  const ScopedOs scope(os);
  const Pinned here;
  CpuStacks stacks;
  REQUIRE(stacks.open(Engine::kBest).ok());
  CHECK_FALSE(stacks.uses_rseq());
  stacks.set_limit(here.cpu(), kClass, 1);
  CHECK(stacks.push(kClass, 7));
  CHECK(stacks.pop(kClass) == 7);
}

#if KEEL_CPU_STACKS_RSEQ
TEST_CASE("a thread whose sequences are not registered makes stacks that have locks") {
  std::thread([] {
    if (__rseq_size == 0) {
      keel_test::skip_case("no thread's sequences are registered");
      return;
    }
    // As for glibc's own registration: the size and the signature must be the same.
    constexpr unsigned kBytes = 32;
    constexpr int kUnregister = 1;
    if (::syscall(SYS_rseq, rseq_stack::area(), kBytes, kUnregister, RSEQ_SIG) != 0) {
      keel_test::skip_case("registered with another size");
      return;
    }
    CpuStacks stacks;
    REQUIRE(stacks.open(Engine::kBest).ok());
    CHECK_FALSE(stacks.uses_rseq());
  }).join();
}
#endif

#include "keel/base/percpu.h"

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "support/run_again.h"
#include "support/skip_case.h"

#if defined(__GLIBC__) && __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

using keel::PerCpu;

namespace {

struct Counter {
  std::atomic<std::uint64_t> value{0};
};

class NoMemoryOs final : public keel::Os {
 public:
  void* metadata_allocate(std::size_t) override { return nullptr; }
};

}  // namespace

TEST_CASE("the current CPU is the kernel's, and below the number of possible ones") {
  CHECK(keel::possible_cpus() >= 1);
  for (int i = 0; i < 1000; ++i) {
    CHECK(keel::current_cpu() < keel::possible_cpus());
  }
  cpu_set_t allowed;
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  for (unsigned cpu = 0; cpu < keel::possible_cpus(); ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) {
      continue;
    }
    std::thread([cpu] {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      if (::sched_setaffinity(0, sizeof one, &one) == 0) {
        CHECK(keel::current_cpu() == cpu);
      }
    }).join();
  }
}

TEST_CASE("the current CPU is the kernel's where threads have no rseq area, too") {
  CHECK(keel_test::passes_with("GLIBC_TUNABLES", "glibc.pthread.rseq=0",
                               "the current CPU is the kernel's*ones"));
}

#if defined(__GLIBC__) && __has_include(<sys/rseq.h>)
TEST_CASE("the current CPU is the kernel's in a thread that has given up its rseq area, too") {
  std::string why;
  std::thread([&why] {
    // As for glibc's own registration: the size and the signature must be the same.
    constexpr unsigned kBytes = 32;
    constexpr int kUnregister = 1;
    char* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    if (__rseq_size == 0 || ::syscall(SYS_rseq, area, kBytes, kUnregister, RSEQ_SIG) != 0) {
      why = "it has none, or one of another size";
      return;
    }
    cpu_set_t allowed;
    REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    for (unsigned cpu = 0; cpu < keel::possible_cpus(); ++cpu) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      if (CPU_ISSET(cpu, &allowed) && ::sched_setaffinity(0, sizeof one, &one) == 0) {
        CHECK(keel::current_cpu() == cpu);
      }
    }
  }).join();
  if (!why.empty()) {
    keel_test::skip_case(why);
  }
}
#endif

TEST_CASE("slots start empty, on cache line pairs of their own") {
  PerCpu<Counter> counters;
  REQUIRE(counters.ok());
  for (unsigned cpu = 0; cpu < counters.size(); ++cpu) {
    CHECK(counters.of(cpu).value == 0);
    const auto address = reinterpret_cast<std::uintptr_t>(&counters.of(cpu));
    CHECK(address % keel::kCacheLinePairBytes == 0);
    if (cpu > 0) {
      const auto before = reinterpret_cast<std::uintptr_t>(&counters.of(cpu - 1));
      CHECK(address - before >= keel::kCacheLinePairBytes);
    }
  }
}

TEST_CASE("nothing that threads count in their slots is lost") {
  PerCpu<Counter> counters;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&counters] {
      for (int n = 0; n < 5000; ++n) {
        // Relaxed: join() orders the sum below after all of them.
        counters.local().value.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::uint64_t sum = 0;
  for (unsigned cpu = 0; cpu < counters.size(); ++cpu) {
    sum += counters.of(cpu).value;
  }
  CHECK(sum == 20000);
}

TEST_CASE("without memory for its slots a per-CPU value says so") {
  NoMemoryOs none;
  const keel::ScopedOs scope(none);
  const PerCpu<Counter> counters;
  CHECK_FALSE(counters.ok());
}

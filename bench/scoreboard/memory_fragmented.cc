// memory.fragmented.*: does an allocation cost more than the copy that it is made for?
//
// A pool of 256 MiB of which nine tenths are taken and no free run is longer than 4 pages. 64 KiB
// are allocated and freed; CPU time of the thread, user and kernel.
//
//   warm     what was just freed is asked for again, untouched, against a copy of 64 KiB from one
//            place to another, both in the caches (at most 1/20)
//   cold     after trim(), 256 buffers one after the other, all touched, all freed, and the purge
// of
//            what they leave behind, a buffer; against mmap + touch + munmap (at most 1/3)
//   mayfail  the same with retry_mayfail against the default; reported

#include <cstring>
#include <memory>
#include <vector>

#include "keel/base/check.h"
#include "keel/measure/fragmented_pool.h"
#include "keel/measure/process.h"
#include "scoreboard/family.h"
#include "support/clock.h"
#include "support/cpu_time.h"
#include "support/fresh_mmap.h"

namespace keel::bench {
namespace {

constexpr std::size_t kBytes = std::size_t{64} << 10;
constexpr std::size_t kRunPages = 4;
constexpr std::size_t kPeriodPages = 40;
constexpr std::size_t kColdBuffers = 256;

std::uint64_t least_ns_of(const Setting& setting) { return setting.smoke ? 200'000 : 20'000'000; }

double warm_us(Pool& pool, std::uint64_t least_ns) {
  return cpu_ns_each(least_ns, [&pool] { pool.kvfree(pool.kvmalloc(kBytes)); }) / 1000;
}

double cold_us(Pool& pool, AllocFlags flags, std::size_t rounds) {
  std::vector<void*> buffers(kColdBuffers);
  std::uint64_t total_ns = 0;
  for (std::size_t round = 0; round < rounds; ++round) {
    (void)pool.trim();
    const std::uint64_t start_ns = thread_cpu_ns();
    for (void*& buffer : buffers) {
      buffer = pool.kvmalloc(kBytes, flags);
      KEEL_CHECK(buffer != nullptr, "a scattered buffer");
      touch_pages(buffer, kBytes);
    }
    for (void* buffer : buffers) {
      pool.kvfree(buffer);
    }
    pool.purge();
    total_ns += thread_cpu_ns() - start_ns;
  }
  return static_cast<double>(total_ns) / static_cast<double>(rounds * kColdBuffers) / 1000;
}

double copy_us(std::uint64_t least_ns) {
  const std::vector<char> from(kBytes, 'x');
  std::vector<char> to(kBytes);
  return cpu_ns_each(least_ns,
                     [&] {
                       std::memcpy(to.data(), from.data(), kBytes);
                       clobber_memory();
                     }) /
         1000;
}

Result<Study> prepare(const Setting& setting) {
  const std::shared_ptr<Pool> pool = make_fragmented_pool(kRunPages, kPeriodPages);
  const std::uint64_t least_ns = least_ns_of(setting);
  const std::size_t rounds = setting.smoke ? 1 : 4;
  Study study;
  study.ours = [=]() -> Result<Figures> {
    const ScopedPin pin(0);
    return Figures{{"warm", warm_us(*pool, least_ns)},
                   {"cold", cold_us(*pool, AllocFlags::kKernel, rounds)},
                   {"mayfail", cold_us(*pool, AllocFlags::kRetryMayfail, rounds)}};
  };
  study.peers = {
      {"copy of 64 KiB",
       [=]() -> Result<Figures> {
         const ScopedPin pin(0);
         return Figures{{"warm", copy_us(least_ns)}};
       }},
      {"fresh mmap",
       [=]() -> Result<Figures> {
         const ScopedPin pin(0);
         return Figures{{"cold", cpu_ns_each(least_ns, [] { use_fresh_memory(kBytes); }) / 1000}};
       }},
      {"the default", [=]() -> Result<Figures> {
         const ScopedPin pin(0);
         return Figures{{"mayfail", cold_us(*pool, AllocFlags::kKernel, rounds)}};
       }}};
  study.rounds = 5;
  return study;
}

const FamilyRegistration kFragmented{
    {{figure_row("memory.fragmented.warm", "warm", "us", Goal::kRatioAtMost, 1.0 / 20,
                 "64 KiB again and again in a fragmented pool: CPU time, against a copy of them"),
      figure_row("memory.fragmented.cold", "cold", "us", Goal::kRatioAtMost, 1.0 / 3,
                 "64 KiB never asked for before, touched: CPU time, against fresh memory"),
      figure_row("memory.fragmented.mayfail", "mayfail", "us", Goal::kReported, 0,
                 "the same with retry_mayfail, against the default")},
     prepare}};

}  // namespace
}  // namespace keel::bench

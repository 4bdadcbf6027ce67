#include "mem/workload.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "interrupt.h"
#include "keel/base/units.h"

namespace keel::tools {
namespace {

Pool* the_pool = nullptr;

Json or_null(bool known, double value) { return known ? Json(value) : Json(); }

}  // namespace

const BufferSource& malloc_source() {
  static constexpr BufferSource kSource{"malloc",
                                        [](std::size_t bytes) { return std::malloc(bytes); },
                                        [](void* buffer) { std::free(buffer); }};
  return kSource;
}

const BufferSource& pool_source(const PoolConfig& config) {
  static constexpr BufferSource kSource{
      "keel", [](std::size_t bytes) { return the_pool->kvmalloc(bytes, AllocFlags::kNoWarn); },
      [](void* buffer) { the_pool->kvfree(buffer); }};
  auto pool = Pool::create(config);
  require(pool, "mem bench");
  the_pool = std::move(*pool).release();
  return kSource;
}

void need(const void* buffer, std::size_t bytes) {
  if (buffer == nullptr) [[unlikely]] {
    std::fprintf(stderr, "keel: mem bench: no memory for a buffer of %zu bytes\n", bytes);
    std::_Exit(kWorldFailed);
  }
}

void write_pages(void* buffer, std::size_t bytes, std::size_t bytes_each) {
  for (std::size_t at = 0; at < bytes; at += kPageBytes) {
    __builtin_memset(static_cast<std::byte*>(buffer) + at, 0x5a, bytes_each);
  }
  asm volatile("" : : "r"(buffer) : "memory");  // All of it counts as read here.
}

std::uint64_t thread_faults() {
  struct rusage usage {};
  ::getrusage(RUSAGE_THREAD, &usage);
  return static_cast<std::uint64_t>(usage.ru_minflt);
}

void Acts::merge(const Acts& other) {
  ticks.merge(other.ticks);
  faults += other.faults;
  seconds = std::max(seconds, other.seconds);
}

Json row_of(const char* workload, const std::string& what, const char* source, const Acts& acts) {
  const bool any = acts.ticks.count() != 0 && acts.seconds > 0;
  const auto count = static_cast<double>(acts.ticks.count());
  const double ns = bench::ns_per_tick();
  // A quantile is the middle of a bucket, which the largest may lie below.
  const auto quantile = [&acts, ns](double q) {
    return std::min(acts.ticks.quantile(q), acts.ticks.max()) * ns;
  };
  return {{"workload", workload},
          {"case", what},
          {"source", source},
          {"operations", acts.ticks.count()},
          {"seconds", acts.seconds},
          {"rate_per_s", or_null(any, count / acts.seconds)},
          {"p50_ns", or_null(any, quantile(0.5))},
          {"p99_ns", or_null(any, quantile(0.99))},
          {"p999_ns", or_null(any, quantile(0.999))},
          {"max_ns", or_null(any, acts.ticks.max() * ns)},
          {"faults_per_operation", or_null(any, static_cast<double>(acts.faults) / count)}};
}

Deadline::Deadline(double seconds)
    : end_ns_(bench::monotonic_ns() + static_cast<std::uint64_t>(seconds * 1e9)) {}

bool Deadline::passed() const { return Interrupt::came() || bench::monotonic_ns() >= end_ns_; }

}  // namespace keel::tools

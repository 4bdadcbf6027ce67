#include "keel/base/percpu.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>

#include "keel/base/thread_scheduler.h"

#if defined(__GLIBC__) && __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#define KEEL_HAVE_RSEQ 1
#else
#define KEEL_HAVE_RSEQ 0
#endif

namespace keel {
namespace {

unsigned count_possible_cpus() {
  const long count = ::sysconf(_SC_NPROCESSORS_CONF);
#if defined(KEEL_DEBUG)
  // So that a small machine's debug builds run what machines of more CPUs do, and a simulation runs
  // the same on all of up to four. Where there are more, a seed is another world than there.
  constexpr long kFewest = 4;
#else
  constexpr long kFewest = 1;
#endif
  return static_cast<unsigned>(std::max(count, kFewest));
}

unsigned slow_current_cpu() {
  const int cpu = ::sched_getcpu();
  return cpu < 0 ? 0 : static_cast<unsigned>(cpu);
}

// rseq's cpu_id is written by the kernel; negative (as unsigned: huge) until it is registered.
unsigned raw_current_cpu() {
#if KEEL_HAVE_RSEQ
  if (__rseq_size != 0) {
    const auto* area = reinterpret_cast<const volatile struct rseq*>(
        static_cast<const char*>(__builtin_thread_pointer()) + __rseq_offset);
    const unsigned cpu = area->cpu_id;
    if (cpu < possible_cpus()) {
      return cpu;
    }
  }
#endif
  return slow_current_cpu();
}

}  // namespace

unsigned possible_cpus() {
  static const unsigned count = count_possible_cpus();
  return count;
}

unsigned current_cpu() {
  if (ThreadScheduler* scheduler = thread_scheduler(); scheduler != nullptr) {
    return scheduler->current_cpu();
  }
  // A sparse numbering (hot-plugged CPUs) folds into the slots: correctness never needs the id.
  const unsigned cpu = raw_current_cpu();
  const unsigned count = possible_cpus();
  return cpu < count ? cpu : cpu % count;
}

}  // namespace keel

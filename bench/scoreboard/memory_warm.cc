// memory.warm: what does a warm area save, of the work of fresh memory?
//
// 64 KiB from a pool in which no two free frames are neighbours, so that every buffer is mapped
// (vmalloc only), allocated, touched and freed again and again, one thread; against mmap, touch,
// munmap of as much. Thousand operations a second (at least 300x).

#include <memory>

#include "keel/base/check.h"
#include "keel/measure/fragmented_pool.h"
#include "keel/measure/process.h"
#include "scoreboard/row.h"
#include "support/cpu_time.h"
#include "support/fresh_mmap.h"

namespace keel::bench {
namespace {

constexpr std::size_t kBytes = std::size_t{64} << 10;

// One thread that never sleeps: its CPU time is its time, without what others take of the CPU.
template <class Act>
Result<double> rate_of(const Setting& setting, const Act& act) {
  const ScopedPin pin(0);
  return 1e6 / cpu_ns_each(setting.smoke ? 200'000 : 50'000'000, act);
}

Result<Comparison> prepare(const Setting& setting) {
  const std::shared_ptr<Pool> pool = make_fragmented_pool(1, 4);
  void* buffer = pool->kvmalloc(kBytes);
  KEEL_CHECK(buffer != nullptr && !pool->is_contiguous(buffer), "a mapped buffer");
  pool->kvfree(buffer);
  return Comparison{
      [=] {
        return rate_of(setting, [&] {
          void* mapped = pool->kvmalloc(kBytes);
          touch_pages(mapped, kBytes);
          pool->kvfree(mapped);
        });
      },
      {{"fresh mmap", [=] { return rate_of(setting, [] { use_fresh_memory(kBytes); }); }}}};
}

const RowRegistration kWarm{{"memory.warm", "k/s",
                             "64 KiB mapped and warm, touched, against mmap + touch + munmap",
                             Goal::kRatioAtLeast, 300, prepare}};

}  // namespace
}  // namespace keel::bench

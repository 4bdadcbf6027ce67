// memory.cold.mix_*: in how large pieces do the frames of a scattered buffer come?
//
// A page allocator of 256 MiB, nine tenths of it in use by runs of 4 KiB to 1 MiB (log-uniform, a
// random one replaced 50,000 times), then 1 MiB is gathered, 16 times over. memory.cold says what a
// piece of a size costs.
//
//   mix_4k   share of the gathered frames that come alone: the exception, at most 5 %
//   mix_64k  share that comes in runs below 64 KiB; reported

#include <cmath>
#include <memory>
#include <vector>

#include "keel/alloc/page_allocator.h"
#include "keel/base/check.h"
#include "scoreboard/family.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

constexpr Pages kCapacity{65536};
constexpr Pages kGathered{256};
constexpr int kGathers = 16;

struct Run {
  Pfn first;
  Pages pages;
};

class Churn {
 public:
  explicit Churn(PageAllocator& allocator) : allocator_(allocator) {}

  void replace(int times) {
    const Pages most(kCapacity.value() / 10 * 9);
    for (int i = 0; i < times; ++i) {
      const double u = static_cast<double>(next_random(random_) >> 11) * 0x1p-53;
      const Pages pages(static_cast<std::uint64_t>(std::pow(256, u)));
      while (held_ + pages > most) {
        free_random();
      }
      if (const auto first = allocator_.allocate(pages, "churn")) {
        runs_.push_back({*first, pages});
        held_ += pages;
      }
    }
  }

 private:
  void free_random() {
    Run& run = runs_[next_random(random_) % runs_.size()];
    allocator_.free(run.first);
    held_ -= run.pages;
    run = runs_.back();
    runs_.pop_back();
  }

  PageAllocator& allocator_;
  std::vector<Run> runs_;
  Pages held_{};
  std::uint64_t random_ = 88172645463325252;
};

Figures mix_of(PageAllocator& allocator) {
  double alone = 0, below_64k = 0, all = 0;
  for (int i = 0; i < kGathers; ++i) {
    const auto chain = allocator.gather(kGathered, "mix");
    KEEL_CHECK(chain.has_value(), "gather scattered frames");
    ChainSource source(allocator, *chain);
    for (FrameRun run; source.next(run);) {
      const auto pages = static_cast<double>(run.count.value());
      all += pages;
      alone += run.count == Pages(1) ? pages : 0;
      below_64k += run.count < Pages(16) ? pages : 0;
    }
  }
  return {{"mix_4k", alone / all}, {"mix_64k", below_64k / all}};
}

Result<Study> prepare(const Setting& setting) {
  Study study;
  study.rounds = 1;
  study.ours = [times = setting.smoke ? 2'000 : 50'000]() -> Result<Figures> {
    auto allocator = PageAllocator::create(kCapacity);
    if (!allocator) {
      return allocator.error();
    }
    const FrameRun whole{Pfn(0), kCapacity};
    if (auto status = (*allocator)->prepare(whole); !status) {
      return status.error();
    }
    (*allocator)->add(whole);
    Churn(**allocator).replace(times);
    return mix_of(**allocator);
  };
  return study;
}

const FamilyRegistration kMix{
    {{figure_row("memory.cold.mix_4k", "mix_4k", "x", Goal::kOursAtMost, 0.05,
                 "share of a scattered 1 MiB buffer's frames that come alone"),
      figure_row("memory.cold.mix_64k", "mix_64k", "x", Goal::kReported, 0,
                 "share that comes in runs below 64 KiB")},
     prepare}};

}  // namespace
}  // namespace keel::bench

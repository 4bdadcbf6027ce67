// Random requests against a plain array that says who owns each frame.
#include <doctest/doctest.h>

#include <bit>
#include <map>
#include <vector>

#include "keel/alloc/page_allocator.h"
#include "support/seeded.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;

namespace {

constexpr std::uint64_t kFrames = 3 * 1024;
constexpr std::uint64_t kChunk = 256;
constexpr std::uint64_t kSteps = 60'000;
constexpr std::uint64_t kAuditEveryStepUpTo = 10'000;
constexpr std::uint64_t kAuditEvery = 1'000;

enum class Owner : std::uint8_t { kAbsent, kFree, kTaken };

class Model {
 public:
  Model() : frames_(kFrames, Owner::kAbsent) {
    auto made = PageAllocator::create(Pages(kFrames));
    REQUIRE(made.ok());
    pages_ = std::move(*made);
  }

  void step(std::uint64_t number) {
    // Long stretches of growing and of shrinking, so that both full and empty are met.
    const std::uint64_t wish_to_free = (number / 2'000) % 2 == 0 ? 35 : 60;
    const std::uint64_t act = random_(100);
    if (act < 2) {
      add_or_remove();
    } else if (act < 2 + wish_to_free) {
      free_something();
    } else if (random_.one_in(5)) {
      gather();
    } else {
      allocate();
    }
  }

  void audit() {
    pages_->audit();
    std::uint64_t free = 0;
    for (const Owner owner : frames_) {
      free += owner == Owner::kFree ? 1 : 0;
    }
    REQUIRE(pages_->counts().free == Pages(free));
  }

  void finish() {
    while (!buffers_.empty() || !chains_.empty()) {
      free_something();
    }
    audit();
  }

 private:
  std::uint64_t random_size() {
    return random_.one_in(8) ? 1 + random_(1024) : 1 + random_(random_.one_in(2) ? 4 : 40);
  }

  void take(FrameRun run) {
    for (Pfn at = run.first; at < run.end(); at += Pages(1)) {
      REQUIRE(frames_[at.value()] == Owner::kFree);
      frames_[at.value()] = Owner::kTaken;
    }
  }

  void give_back(FrameRun run) {
    for (Pfn at = run.first; at < run.end(); at += Pages(1)) {
      REQUIRE(frames_[at.value()] == Owner::kTaken);
      frames_[at.value()] = Owner::kFree;
    }
  }

  // Some `count` neighbours are free.
  bool has_run_of(std::uint64_t count) const {
    std::uint64_t free = 0;
    for (std::uint64_t at = 0; at < kFrames && free < count; ++at) {
      free = frames_[at] == Owner::kFree ? free + 1 : 0;
    }
    return free >= count;
  }

  void allocate() {
    const std::uint64_t count = random_size();
    const auto run = pages_->allocate(Pages(count), "model");
    // The search for a fit is bounded: one that is hardly larger than the request may be missed.
    REQUIRE((run ? has_run_of(count) : !has_run_of(count + count / 8 + 1)));
    if (run) {
      take({*run, Pages(count)});
      buffers_.emplace(run->value(), count);
    }
  }

  void gather() {
    const std::uint64_t count = 1 + random_(random_.one_in(4) ? 2'000 : 100);
    const PageCounts before = pages_->counts();
    const auto chain = pages_->gather(Pages(count), "model");
    REQUIRE(chain.has_value() == (before.free >= Pages(count)));
    if (!chain) {
      return;
    }
    Pages gathered{};
    // The largest first, to an eighth; what fits into one run is from one.
    Pages last{};
    for_each_run(*chain, [&](FrameRun run) {
      REQUIRE((last == Pages(0) || run.count.value() <= last.value() + last.value() / 7 + 1));
      last = run.count;
      gathered += run.count;
      take(run);
    });
    REQUIRE(gathered == Pages(count));
    chains_.push_back(*chain);
  }

  template <class Act>
  void for_each_run(Pfn chain, Act act) {
    ChainSource source(*pages_, chain);
    FrameRun run;
    while (source.next(run)) {
      act(run);
    }
  }

  void free_something() {
    if (!chains_.empty() && (buffers_.empty() || random_.one_in(5))) {
      std::swap(chains_[random_(chains_.size())], chains_.back());
      for_each_run(chains_.back(), [&](FrameRun run) { give_back(run); });
      pages_->free_chain(chains_.back());
      chains_.pop_back();
    } else if (!buffers_.empty()) {
      auto chosen = buffers_.lower_bound(random_(kFrames));
      chosen = chosen == buffers_.end() ? buffers_.begin() : chosen;
      const FrameRun run{Pfn(chosen->first), Pages(chosen->second)};
      if (run.count > Pages(1)) {
        const FrameInfo inside =
            pages_->free(run.first + Pages(1 + random_(run.count.value() - 1)));
        REQUIRE(inside.use == FrameUse::kBody);
        REQUIRE(inside.run == run);
      }
      REQUIRE(pages_->free(run.first).run == run);
      REQUIRE(pages_->free(run.first).use == FrameUse::kFree);
      give_back(run);
      buffers_.erase(chosen);
    }
  }

  void add_or_remove() {
    const std::uint64_t first = random_(kFrames / kChunk) * kChunk;
    const FrameRun chunk{Pfn(first), Pages(kChunk)};
    const auto at = frames_.begin() + static_cast<std::ptrdiff_t>(first);
    const auto end = at + static_cast<std::ptrdiff_t>(kChunk);
    if (*at == Owner::kAbsent) {
      pages_->add(chunk);
      std::fill(at, end, Owner::kFree);
    } else if (random_.one_in(3)) {
      const bool all_free = std::all_of(at, end, [](Owner owner) { return owner == Owner::kFree; });
      REQUIRE(pages_->remove(chunk) == all_free);
      if (all_free) {
        std::fill(at, end, Owner::kAbsent);
      }
    }
  }

  keel_test::Seeded random_{"page allocator model"};
  std::unique_ptr<PageAllocator> pages_;
  std::vector<Owner> frames_;
  std::map<std::uint64_t, std::uint64_t> buffers_;
  std::vector<Pfn> chains_;
};

}  // namespace

TEST_CASE("a page allocator behaves like a plain array of frames") {
  Model model;
  const std::uint64_t steps = keel_test::test_rounds(kSteps, kSteps);
  for (std::uint64_t i = 0; i < steps; ++i) {
    model.step(i);
    if (i < kAuditEveryStepUpTo || i % kAuditEvery == 0) {
      model.audit();
    }
  }
  model.finish();
  keel_test::say_tried("page_allocator_model", steps);
}

// Millions of cheap random operations on a page allocator. The frames themselves are not looked at
// step by step, as in page_allocator_model_test.cc: each run is marked in a bit map when it is
// taken, so that a frame that is given out twice shows at once.
#include <doctest/doctest.h>

#include <array>
#include <vector>

#include "keel/alloc/page_allocator.h"
#include "support/seeded.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;

namespace {

constexpr std::uint64_t kChunk = 128;  // half a block of counts
constexpr std::uint64_t kChunks = 40;
constexpr std::uint64_t kFrames = kChunks * kChunk;

struct Run {
  Pfn first;
  bool chain;
};

class Churn {
 public:
  Churn() : taken_(kFrames, false), present_(kChunks, false) {
    auto made = PageAllocator::create(Pages(kFrames));
    REQUIRE(made.ok());
    pages_ = std::move(*made);
  }

  void step() {
    const std::uint64_t act = random_(256);
    const bool shrinking = ++steps_ / 20'000 % 2 == 1;
    if (act == 0) {
      add_or_remove();
    } else if (act == 1) {
      look();
    } else if (act < (shrinking ? 150U : 110U)) {
      free_some();
    } else if (act % 16 == 0) {
      gather();
    } else {
      allocate();
    }
  }

  void audit() const {
    pages_->audit();
    REQUIRE(pages_->counts().present == Pages(present_frames_));
    REQUIRE(pages_->counts().free == Pages(present_frames_ - taken_frames_));
    REQUIRE(pages_->free_hint() == Pages(present_frames_ - taken_frames_));
    REQUIRE(pages_->present_hint() == Pages(present_frames_));
    std::uint64_t marked = 0;
    for (const bool taken : taken_) {
      marked += taken ? 1 : 0;
    }
    REQUIRE(marked == taken_frames_);
    std::uint64_t in_blocks = 0;
    const auto blocks = pages_->buddyinfo();
    for (unsigned order = 0; order < blocks.size(); ++order) {
      in_blocks += blocks[order] << order;
    }
    REQUIRE(in_blocks == present_frames_ - taken_frames_);
  }

 private:
  void mark(Pfn first, std::uint64_t count, bool taken) {
    for (std::uint64_t at = first.value(); at < first.value() + count; ++at) {
      REQUIRE_UNARY(taken_[at] != taken);
      taken_[at] = taken;
    }
    taken_frames_ += taken ? count : -count;
  }

  template <class Act>
  void for_each_run(const Run& run, Act act) {
    if (!run.chain) {
      act(FrameRun{run.first, Pages(pages_->record(run.first).word().pages)});
      return;
    }
    ChainSource source(*pages_, run.first);
    for (FrameRun part; source.next(part);) {
      act(part);
    }
  }

  void allocate() {
    const std::uint64_t count = 1 + random_(random_.one_in(32) ? 300 : 6);
    const auto first = pages_->allocate(Pages(count), kOwners[random_(kOwners.size())]);
    if (first) {
      mark(*first, count, true);
      runs_.push_back({*first, false});
    } else {
      REQUIRE_UNARY((count > 1 || present_frames_ == taken_frames_));
    }
  }

  void gather() {
    const std::uint64_t count = 1 + random_(random_.one_in(16) ? 600 : 24);
    const auto chain = pages_->gather(Pages(count), kOwners[random_(kOwners.size())]);
    REQUIRE_UNARY(chain.has_value() == (count <= present_frames_ - taken_frames_));
    if (chain) {
      std::uint64_t gathered = 0;
      for_each_run({*chain, true}, [&](FrameRun part) {
        mark(part.first, part.count.value(), true);
        gathered += part.count.value();
      });
      REQUIRE_UNARY(gathered == count);
      runs_.push_back({*chain, true});
    }
  }

  // One, or several under one hold of the lock; idle ones among them.
  void free_some() {
    std::array<Pfn, 4> batch;
    const std::size_t count = std::min<std::size_t>(runs_.size(), random_.one_in(8) ? 4 : 1);
    for (std::size_t i = 0; i < count; ++i) {
      std::swap(runs_[random_(runs_.size())], runs_.back());
      const Run run = runs_.back();
      runs_.pop_back();
      for_each_run(run, [&](FrameRun part) { mark(part.first, part.count.value(), false); });
      if (random_.one_in(2)) {
        pages_->record(run.first).set_use(run.chain ? FrameUse::kCachedChain : FrameUse::kCached);
      }
      batch[i] = run.first;
    }
    REQUIRE(pages_->free_batch(std::span(batch).first(count)) == 0);
  }

  void add_or_remove() {
    const std::uint64_t chunk = random_(kChunks);
    const FrameRun run{Pfn(chunk * kChunk), Pages(kChunk)};
    if (!present_[chunk]) {
      pages_->add(run);
      present_[chunk] = true;
      present_frames_ += kChunk;
      return;
    }
    bool free = true;
    for (std::uint64_t at = run.first.value(); at < run.end().value() && free; ++at) {
      free = !taken_[at];
    }
    REQUIRE(pages_->remove(run) == free);
    if (free) {
      present_[chunk] = false;
      present_frames_ -= kChunk;
    }
    REQUIRE_UNARY(!(free && pages_->remove(run)));  // It is absent now.
  }

  void look() {
    const std::uint64_t frame = random_(kFrames);
    const FrameInfo info = pages_->find(Pfn(frame));
    const bool held = info.of != FrameUse::kFree && info.of != FrameUse::kAbsent;
    REQUIRE(held == taken_[frame]);
    REQUIRE((info.of == FrameUse::kAbsent) == !present_[frame / kChunk]);
    if (held) {
      REQUIRE(info.run.first.value() <= frame);
      REQUIRE(info.run.end().value() > frame);
      REQUIRE((info.use == FrameUse::kBody) == (info.run.first.value() != frame));
    }
  }

  static constexpr std::array<const char*, 3> kOwners{"a", "b", "c"};
  keel_test::Seeded random_{"page allocator churn"};
  std::unique_ptr<PageAllocator> pages_;
  std::vector<bool> taken_;
  std::vector<bool> present_;
  std::vector<Run> runs_;
  std::uint64_t taken_frames_ = 0;
  std::uint64_t present_frames_ = 0;
  std::uint64_t steps_ = 0;
};

}  // namespace

TEST_CASE("no frame of a page allocator is had twice or lost in millions of operations") {
  Churn churn;
  const std::uint64_t steps = keel_test::test_rounds(5'000'000, 200'000);
  for (std::uint64_t i = 0; i < steps; ++i) {
    churn.step();
    if (i < 10'000 ? i % 8 == 0 : i % 1'000 == 0) {
      churn.audit();
    }
  }
  churn.audit();
  keel_test::say_tried("page_allocator_churn", steps);
}

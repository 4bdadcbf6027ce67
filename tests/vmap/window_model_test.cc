// Random maps, unmaps, wrong unmaps, purges and failing system calls against a std::map of areas.
#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <vector>

#include "keel/vmap/frame_store.h"
#include "keel/vmap/window.h"
#include "support/bug_recorder.h"
#include "support/fault_os.h"
#include "support/seeded.h"
#include "support/test_seed.h"

using namespace keel;
using keel_test::FaultOs;
using keel_test::OsCall;

namespace {

constexpr std::uint64_t kFrames = 256;
constexpr std::uint64_t kWindowPages = 700;
constexpr std::uint64_t kAuditEveryStepUpTo = 10'000;
constexpr std::uint64_t kAuditEvery = 1'000;

struct Area {
  std::vector<Pfn> frames;
  bool guard = false;
};

// With real mappings the contents are compared too; with simulated ones only the bookkeeping.
class Model {
 public:
  Model(unsigned shards, bool simulated) : simulated_(simulated) {
    auto made_store = FrameStore::create(
        {.capacity_bytes = kFrames * kPageBytes, .chunk_bytes = kFrames * kPageBytes});
    REQUIRE(made_store.ok());
    store_ = std::move(*made_store);
    REQUIRE(store_->grow().ok());
    for (std::uint64_t i = 0; i < kFrames; ++i) {
      std::memcpy(store_->address_of(Pfn(i)), &i, sizeof i);
    }
    auto made_window = Window::create(*store_, {.bytes = kWindowPages * kPageBytes,
                                                .max_mappings = 300,
                                                .lazy_max = Pages(200),
                                                .shards = shards});
    REQUIRE(made_window.ok());
    window_ = std::move(*made_window);
    empty_mappings_ = window_->stats().mappings;
    if (simulated) {
      faults_.simulate_mappings();
    }
  }

  void step() {
    const std::uint64_t act = random_(100);
    if (act < 45) {
      map();
    } else if (act < 90) {
      unmap();
    } else if (act < 96) {
      unmap_wrongly();
    } else if (act < 98) {
      purge();
    } else {
      map_with_failing_calls();
    }
  }

  void audit() {
    window_->audit();
    std::uint64_t live = 0;
    for (const auto& [start, area] : areas_) {
      live += area.frames.size() + (area.guard ? 1 : 0);
    }
    REQUIRE(window_->stats().live == Pages(live));
    REQUIRE(window_->stats().lazy == window_->lazy_pages());
    compare_dump();
  }

  void finish() {
    while (!areas_.empty()) {
      unmap();
    }
    REQUIRE(window_->purge().ok());
    REQUIRE(window_->stats().free == Pages(kWindowPages));
    REQUIRE(window_->stats().mappings == empty_mappings_);
    audit();
  }

 private:
  std::vector<Pfn> random_frames() {
    std::vector<Pfn> frames;
    const std::uint64_t runs = 1 + random_(4);
    const std::uint64_t longest = random_.one_in(300) ? kFrames : random_.one_in(10) ? 60 : 8;
    for (std::uint64_t i = 0; i < runs; ++i) {
      const std::uint64_t first = longest == kFrames ? 0 : random_(kFrames);
      const std::uint64_t wanted = 1 + random_(longest);
      for (std::uint64_t j = first; j < first + wanted && j < kFrames; ++j) {
        frames.push_back(Pfn(j));
      }
    }
    return frames;
  }

  void map() {
    Area area{random_frames(), random_.one_in(3)};
    const auto mapped = window_->map(
        area.frames, {.owner = "model", .cookie = area.frames.size(), .guard = area.guard});
    if (mapped) {
      insert(static_cast<std::byte*>(*mapped), std::move(area));
    } else {
      check_refusal(mapped.error(), area);
    }
  }

  void insert(std::byte* start, Area area) {
    check_contents(start, area);
    const std::byte* end = end_of(start, area);
    const auto next = areas_.lower_bound(start);
    REQUIRE((next == areas_.end() || end <= next->first));
    if (next != areas_.begin()) {
      const auto before = std::prev(next);
      REQUIRE(end_of(before->first, before->second) <= start);
    }
    areas_.emplace(start, std::move(area));
  }

  // True if the window could not hold the area if it were empty.
  [[nodiscard]] static bool is_impossible(const WindowStats& stats, const Area& area) {
    std::uint64_t runs = 0;
    for (std::size_t i = 0; i < area.frames.size(); ++i) {
      runs += i == 0 || area.frames[i] != area.frames[i - 1] + Pages(1) ? 1U : 0U;
    }
    const std::uint64_t pages = area.frames.size() + (area.guard ? 1 : 0);
    return runs + 1 > stats.max_mappings || pages > (stats.free + stats.live + stats.lazy).value();
  }

  // After a refusal nothing is lazy any more, so the model knows every gap: none may fit.
  void check_refusal(const Error& error, const Area& area) {
    const WindowStats stats = window_->stats();
    if (is_impossible(stats, area)) {
      return;
    }
    REQUIRE(stats.lazy == Pages(0));
    if (error.code == Errc::kNoMappings) {
      REQUIRE(stats.mappings + 2 + area.frames.size() > stats.max_mappings);
      return;
    }
    REQUIRE(error.code == Errc::kNoAddressSpace);
    const std::uint64_t pages = area.frames.size() + (area.guard ? 1 : 0);
    REQUIRE(largest_gap_up_to(stats.free.value()) < pages);
  }

  // Largest gap between areas, or as large as the free pages allow where an end is not known.
  std::uint64_t largest_gap_up_to(std::uint64_t free_pages) const {
    std::uint64_t largest = 0;
    std::uint64_t between = 0;
    const std::byte* last_end = nullptr;
    for (const auto& [start, area] : areas_) {
      if (last_end != nullptr) {
        const auto gap = static_cast<std::uint64_t>(start - last_end) / kPageBytes;
        largest = gap > largest ? gap : largest;
        between += gap;
      }
      last_end = end_of(start, area);
    }
    const std::uint64_t before_first =
        areas_.empty()
            ? free_pages
            : static_cast<std::uint64_t>(areas_.begin()->first - first_address()) / kPageBytes;
    const std::uint64_t after_last = free_pages - between - (areas_.empty() ? 0 : before_first);
    largest = before_first > largest ? before_first : largest;
    return !areas_.empty() && after_last > largest ? after_last : largest;
  }

  // The window begins at the lowest address that it contains.
  const std::byte* first_address() const {
    const std::byte* low = areas_.begin()->first;
    while (window_->contains(low - kPageBytes)) {
      low -= kPageBytes;
    }
    return low;
  }

  void unmap() {
    if (areas_.empty()) {
      return;
    }
    const auto chosen = choose();
    check_contents(chosen->first, chosen->second);
    VmapArea area;
    REQUIRE(window_->unmap(chosen->first, &area));
    REQUIRE(area.start == chosen->first);
    REQUIRE(area.pages == Pages(chosen->second.frames.size()));
    REQUIRE(area.cookie == chosen->second.frames.size());
    last_unmapped_ = chosen->first;
    areas_.erase(chosen);
  }

  void unmap_wrongly() {
    keel_test::BugRecorder bugs;
    if (!areas_.empty() && random_.one_in(2)) {
      const auto chosen = choose();
      const auto bytes =
          static_cast<std::uint64_t>(end_of(chosen->first, chosen->second) - chosen->first);
      REQUIRE(!window_->unmap(chosen->first + 1 + random_(bytes - 1)));
      const BugReport report = bugs.take();
      REQUIRE(report.bug == Bug::kInteriorPointer);
      REQUIRE(report.area_start == reinterpret_cast<std::uintptr_t>(chosen->first));
    } else if (last_unmapped_ != nullptr && area_over(last_unmapped_) == areas_.end()) {
      REQUIRE(!window_->unmap(last_unmapped_));
      const Bug bug = bugs.take().bug;
      // Unknown if its pages were part of another area since, of which it was no start.
      REQUIRE((bug == Bug::kDoubleFree || bug == Bug::kUnknownAddress));
    }
  }

  // The dump shows every live area of the model, once, and nothing else that is live.
  void compare_dump() {
    struct Dump : VmapVisitor {
      void visit(const VmapRange& range) override {
        if (range.state == VmapState::kLive) {
          live.push_back(range);
        }
      }
      std::vector<VmapRange> live;
    } dump;
    window_->visit_ranges(dump);
    REQUIRE(dump.live.size() == areas_.size());
    auto expected = areas_.begin();
    for (const VmapRange& range : dump.live) {
      REQUIRE(range.area.start == expected->first);
      REQUIRE(range.area.pages == Pages(expected->second.frames.size()));
      REQUIRE(range.guard == expected->second.guard);
      ++expected;
    }
  }

  void purge() {
    if (random_.one_in(2)) {
      const Pages before = window_->lazy_pages();
      const bool more = window_->purge_slice();
      REQUIRE(window_->lazy_pages() <= before);
      REQUIRE(more == (window_->lazy_pages() != Pages(0)));
    } else if (random_.one_in(3)) {
      faults_.fail_nth(1 + random_(2), keel_test::mask_of(OsCall::kMmap));
      (void)window_->purge().ok();
      faults_.disarm();
    } else {
      REQUIRE(window_->purge().ok());
      REQUIRE(window_->stats().lazy == Pages(0));
    }
  }

  void map_with_failing_calls() {
    Area area{random_frames(), random_.one_in(3)};
    faults_.fail_from(1 + random_(4));
    const auto mapped =
        window_->map(area.frames, {.cookie = area.frames.size(), .guard = area.guard});
    faults_.disarm();
    if (mapped) {
      insert(static_cast<std::byte*>(*mapped), std::move(area));
    }
  }

  std::map<std::byte*, Area>::iterator choose() {
    auto at = areas_.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random_(areas_.size())));
    return at;
  }

  std::map<std::byte*, Area>::iterator area_over(std::byte* address) {
    auto at = areas_.upper_bound(address);
    if (at == areas_.begin()) {
      return areas_.end();
    }
    --at;
    return address < end_of(at->first, at->second) ? at : areas_.end();
  }

  static const std::byte* end_of(const std::byte* start, const Area& area) {
    return start + (area.frames.size() + (area.guard ? 1 : 0)) * kPageBytes;
  }

  void check_contents(const std::byte* start, const Area& area) const {
    if (simulated_) {
      return;
    }
    for (std::size_t i = 0; i < area.frames.size(); ++i) {
      std::uint64_t number = 0;
      std::memcpy(&number, start + i * kPageBytes, sizeof number);
      REQUIRE(number == area.frames[i].value());
    }
  }

  const bool simulated_;
  std::uint64_t empty_mappings_ = 0;
  keel_test::Seeded random_{"window model"};
  FaultOs faults_;
  ScopedOs scope_{faults_};
  std::unique_ptr<FrameStore> store_;
  std::unique_ptr<Window> window_;
  std::map<std::byte*, Area> areas_;
  std::byte* last_unmapped_ = nullptr;
};

}  // namespace

namespace {

void run_model(unsigned shards, bool simulated, std::uint64_t steps) {
  Model model(shards, simulated);
  for (std::uint64_t i = 0; i < steps; ++i) {
    model.step();
    if (i < kAuditEveryStepUpTo || i % kAuditEvery == 0) {
      model.audit();
    }
  }
  model.finish();
}

}  // namespace

TEST_CASE("a window behaves like a plain map of areas") {
  run_model(1, false, keel_test::test_rounds(40'000, 20'000));
}

TEST_CASE("a window in shards behaves like a plain map of areas") {
  run_model(4, false, keel_test::test_rounds(40'000, 20'000));
}

TEST_CASE("the bookkeeping of a window holds over millions of operations") {
  run_model(1, true, keel_test::test_rounds(3'000'000, 50'000));
}

TEST_CASE("the bookkeeping of a window in shards holds over millions of operations") {
  run_model(4, true, keel_test::test_rounds(3'000'000, 50'000));
}

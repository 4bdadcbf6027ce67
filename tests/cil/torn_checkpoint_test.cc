// A checkpoint of 64 KiB, torn in every way that leaves one gap: any sectors of 512 bytes, from any
// one to any other, did not come to be. None but the whole checkpoint is ever delivered.
//
// Gaps at the front are suffixes, gaps at the end prefixes. What stands in the gap: what was there
// before (on the second lap an earlier checkpoint's bytes, in some cases the very same payload),
// zeros, garbage, or the sectors of the checkpoint before. The checkpoint is one record of packed
// bytes or of blocks, stands in the first lap, in the second, or across the wrap, and is the last
// one, or has one behind it that was in flight at the same time and is whole.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "keel/base/os.h"
#include "log/format.h"
#include "log/hash.h"
#include "log_specimen.h"
#include "support/campaign.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::size_t kSector = 512;
constexpr std::size_t kTornBytes = 65536;
constexpr std::size_t kSectors = kTornBytes / kSector;
constexpr std::size_t kGaps = kSectors * (kSectors + 1) / 2;

enum class Fill : std::uint8_t { kBefore, kZeros, kGarbage, kOther, kCount };

struct TornPlan {
  bool blocks = false;       // of the large region's own, else packed
  std::uint64_t place = 0;   // block of the data area
  std::uint64_t laps = 0;    // before the one that is torn
  bool same_before = false;  // the lap before had the same payload there
  bool followed = false;
};

std::vector<std::string> torn_regions(bool blocks, std::uint64_t seed) {
  if (blocks) {
    return {random_bytes(seed, 15 * kBlock)};
  }
  std::vector<std::string> regions;
  for (std::uint64_t i = 0; i < 15; ++i) {
    regions.push_back(random_bytes(seed + i, 4080));
  }
  regions.push_back(random_bytes(seed + 15, 4048));
  return regions;
}

class Torn {
 public:
  explicit Torn(const TornPlan& plan) : os_({}), plan_(plan) {
    make();
    os_.replace(specimen_.image);
  }

  std::string check(std::size_t gap, Fill fill) {
    std::size_t length = 1;
    while (gap >= kSectors - length + 1) {
      gap -= kSectors - length + 1;
      ++length;
    }
    const ScopedOs scope(os_);
    bool whole = true;
    for (std::size_t i = gap; i < gap + length; ++i) {
      const std::size_t offset = specimen_.offset_of(start_ + i * kSector);
      const std::byte* old = fill_of(fill, i);
      whole = whole && std::memcmp(specimen_.image.data() + offset, old, kSector) == 0;
      os_.put(offset, old, kSector);
    }
    const Judgement judgement = judge(os_, specimen_);
    for (std::size_t i = gap; i < gap + length; ++i) {
      const std::size_t offset = specimen_.offset_of(start_ + i * kSector);
      os_.put(offset, specimen_.image.data() + offset, kSector);
    }
    const std::string fault = fault_of(judgement, whole);
    return fault.empty() ? fault
                         : fault + "; sectors " + std::to_string(gap) + " to " +
                               std::to_string(gap + length - 1) + ", fill " +
                               std::to_string(static_cast<int>(fill));
  }

 private:
  const std::byte* fill_of(Fill fill, std::size_t sector) const {
    const std::size_t at = sector * kSector;
    switch (fill) {
      case Fill::kBefore: return before_.data() + at;
      case Fill::kZeros: return zeros_.data();
      case Fill::kGarbage: return garbage_.data() + at;
      default: return other_.data() + at;
    }
  }

  std::string fault_of(const Judgement& judgement, bool whole) const {
    if (!judgement.fault.empty() || !judgement.ok) {
      return judgement.fault + judgement.error.message();
    }
    const std::string report = "; " + judgement.report.message();
    if (judgement.report.end == LogEnd::kDamaged) {
      return "a tear was taken for damage" + report;
    }
    if (judgement.delivered != (whole ? specimen_.checkpoints.size() : torn_)) {
      return std::string(whole ? "a whole checkpoint was refused" : "a torn one was accepted") +
             report;
    }
    if (!whole && plan_.followed && judgement.report.end != LogEnd::kTorn) {
      return "the one behind was overlooked" + report;
    }
    return {};
  }

  static void log(Journal& journal, Probe& item) {
    REQUIRE(journal.force(commit(journal, {&item}, 80'000)).ok());
  }
  static std::uint64_t head_of(const Journal& journal) {
    return journal.stats().tail.value() + journal.stats().log_used.value();
  }

  void log_torn(Journal& journal, std::uint64_t seed, Tracking after) {
    items_.push_back(std::make_unique<Probe>(trace_, 2));
    items_.back()->regions = torn_regions(plan_.blocks, seed);
    items_.back()->after = after;
    const std::uint64_t head = head_of(journal);
    log(journal, *items_.back());
    REQUIRE(head_of(journal) - head == kTornBytes);
  }

  void advance(Journal& journal, std::uint64_t target) {
    for (std::uint64_t head = head_of(journal); head < target; head = head_of(journal)) {
      Probe passing(trace_, 1);
      passing.after = Tracking::kRelease;
      passing.regions = {random_bytes(head, target - head > 20 * kBlock ? 30'000 : 1000)};
      log(journal, passing);
    }
    REQUIRE(head_of(journal) == target);
  }

  SimContent torn_bytes(const SimContent& image, std::uint64_t lsn) const {
    SimContent bytes(kTornBytes);
    for (std::size_t at = 0; at < kTornBytes; at += kSector) {
      std::copy_n(image.data() + specimen_.offset_of(lsn + at), kSector, bytes.data() + at);
    }
    return bytes;
  }

  void make() {
    LogWorld world;
    auto journal = world.open({.cover_after_ns = UINT64_MAX / 4});
    const std::uint64_t data = journal->info().data.value();
    for (std::uint64_t lap = 0; lap < plan_.laps; ++lap) {
      advance(*journal, lap * data + plan_.place * kBlock);
      log_torn(*journal, plan_.same_before ? 1000 : 5000, Tracking::kRelease);
    }
    start_ = plan_.laps * data + plan_.place * kBlock;
    // Before it one that is as long.
    advance(*journal, start_ - kTornBytes);
    log_torn(*journal, 9000, Tracking::kTrack);
    specimen_.image = world.disk.image(kLogPath);  // for its size
    before_ = torn_bytes(specimen_.image, start_);
    other_ = torn_bytes(specimen_.image, start_ - kTornBytes);
    log_torn(*journal, 1000, Tracking::kTrack);
    if (plan_.followed) {
      items_.push_back(std::make_unique<Probe>(trace_, 3));
      items_.back()->regions = {"behind"};
      log(*journal, *items_.back());
    }
    specimen_.image = world.disk.image(kLogPath);
    finish(journal);
    if (plan_.followed) {
      vouch_for_less(start_ + kTornBytes);
    }
    world.disk.set_image(kLogPath, specimen_.image);
    specimen_.ending = LogEnding::kKilled;
    REQUIRE(scan_log(kLogPath, collect_into(specimen_.checkpoints)).ok());
    torn_ = specimen_.checkpoints.size() - (plan_.followed ? 2 : 1);
    zeros_.resize(kSector);
    const std::string garbage = random_bytes(77, kTornBytes);
    garbage_.resize(kTornBytes);
    std::memcpy(garbage_.data(), garbage.data(), kTornBytes);
  }

  // As if the record had been built before the torn checkpoint was stable.
  void vouch_for_less(std::uint64_t lsn) {
    std::byte* place = specimen_.image.data() + specimen_.offset_of(lsn);
    format::RecordHeader header;
    std::memcpy(&header, place, sizeof header);
    REQUIRE(header.stable_lsn == lsn);
    header.stable_lsn = start_;
    header.record_hash = 0;
    std::memcpy(place, &header, sizeof header);
    header.record_hash = hash64(place, kBlock);
    std::memcpy(place, &header, sizeof header);
  }

  Trace trace_;
  std::vector<std::unique_ptr<Probe>> items_;
  LogSpecimen specimen_;
  ImageOs os_;
  const TornPlan plan_;
  std::uint64_t start_ = 0;
  std::size_t torn_ = 0;  // index of the torn checkpoint
  SimContent before_, other_, zeros_, garbage_;
};

std::vector<TornPlan> all_plans() {
  std::vector<TornPlan> plans;
  for (const bool blocks : {false, true}) {
    for (const bool followed : {false, true}) {
      plans.push_back({blocks, 40, 0, false, followed});
      for (const bool same : {false, true}) {
        plans.push_back({blocks, 40, 1, same, followed});
        plans.push_back({blocks, 252 - 7, 1, same, followed});
      }
    }
  }
  return plans;
}

}  // namespace

TEST_CASE("a checkpoint of 64 KiB with any gap is not delivered") {
  const std::vector<TornPlan> plans = all_plans();
  std::vector<std::unique_ptr<Torn>> torn(plans.size());
  constexpr std::size_t kFills = static_cast<std::size_t>(Fill::kCount);
  Campaign campaign("torn_64k", plans.size() * kFills * kGaps, {4000, 400});
  campaign.run([&](std::uint64_t index) {
    const std::size_t plan = index / (kFills * kGaps);
    if (torn[plan] == nullptr) {
      torn[plan] = std::make_unique<Torn>(plans[plan]);
    }
    return torn[plan]->check(index % kGaps, static_cast<Fill>(index / kGaps % kFills));
  });
}

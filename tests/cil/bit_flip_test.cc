// Every bit of a log of 1 MiB, flipped alone: what is hit is reported or makes no difference.
//
// Which bytes are which, and what a flip there may do:
//   superblock, state slot (80 and 120 bytes, each kept twice): nothing, the other copy counts
//   a checkpoint, its padding included: it is not delivered, all before it is. Damage, if the log
//     was closed in order, or had rested, or a later record vouches for it; only the last
//     checkpoint of a killed log, for which nothing vouches, is taken for torn (FORMAT.md, "The end
//     of the log")
//   the rest of the four blocks beside the data area, and the data area from the log's end to its
//     tail: nothing
// In each case the delivered content is compared byte by byte.
#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "keel/base/os.h"
#include "log_specimen.h"
#include "support/campaign.h"

using namespace keel;
using namespace keel_test;

namespace {

// Of so many cases one is read as open() reads, by threads that read ahead.
constexpr std::uint64_t kThreadedEvery = 509;

class Flipper {
 public:
  explicit Flipper(const SpecimenPlan& plan)
      : specimen_(make_specimen(plan)), os_(specimen_.image) {}

  [[nodiscard]] const LogSpecimen& specimen() const { return specimen_; }

  std::string check(std::uint64_t bit) {
    const ScopedOs scope(os_);
    os_.flip(bit);
    const Judgement judgement =
        bit % kThreadedEvery == 0 ? judge(os_, specimen_, {}) : judge(os_, specimen_);
    os_.flip(bit);
    const std::size_t offset = bit / 8;
    const std::size_t hit = specimen_.checkpoint_at(offset);
    ++(specimen_.is_kept_twice(offset)            ? kept_twice_
       : hit == specimen_.checkpoints.size()      ? unused_
       : judgement.report.end == LogEnd::kDamaged ? damaged_
                                                  : unvouched_);
    return fault_of(judgement, specimen_, hit);
  }

  [[nodiscard]] std::string tally() const {
    return "reported=" + std::to_string(damaged_) + " unvouched=" + std::to_string(unvouched_) +
           " kept_twice=" + std::to_string(kept_twice_) + " unused=" + std::to_string(unused_);
  }

 private:
  LogSpecimen specimen_;
  ImageOs os_;
  std::uint64_t damaged_ = 0;
  std::uint64_t unvouched_ = 0;
  std::uint64_t kept_twice_ = 0;
  std::uint64_t unused_ = 0;
};

void flip_all_of(const char* property, const SpecimenPlan& plan, const Slice& slice) {
  Flipper flipper(plan);
  Campaign campaign(property, flipper.specimen().image.size() * 8, slice);
  campaign.run([&](std::uint64_t bit) {
    std::string fault = flipper.check(bit);
    campaign.note(flipper.tally());
    return fault;
  });
}

// The bits of the last `records` checkpoints; all but the last have one record.
void flip_head_of(const char* property, LogEnding ending, const Slice& slice) {
  Flipper flipper({.ending = ending, .live_bytes = 16 * 4096, .small_only = true});
  const LogSpecimen& specimen = flipper.specimen();
  const std::uint64_t first = specimen.starts[specimen.checkpoints.size() - 7];  // 6 + 2 records
  const std::uint64_t bits = (specimen.starts.back() - first) * 8;
  Campaign campaign(property, bits, slice);
  campaign.run([&](std::uint64_t index) {
    std::string fault = flipper.check(specimen.offset_of(first) * 8 + index);
    campaign.note(flipper.tally());
    return fault;
  });
}

constexpr std::uint64_t kMostLive = 800'000;

}  // namespace

TEST_CASE("flipping any bit of a full log that was closed is reported or makes no difference") {
  flip_all_of("flip_closed_full", {.ending = LogEnding::kClosed, .live_bytes = kMostLive},
              {3000, 300});
}

TEST_CASE("flipping any bit of a full log that was killed is reported or makes no difference") {
  flip_all_of("flip_killed_full", {.ending = LogEnding::kKilled, .live_bytes = kMostLive},
              {3000, 300});
}

TEST_CASE("flipping any bit of a log with little in it is reported or makes no difference") {
  flip_all_of("flip_closed_small", {.ending = LogEnding::kClosed, .live_bytes = 65536},
              {10'000, 800});
}

TEST_CASE("flipping any bit of a killed log on its second lap is reported or makes no difference") {
  flip_all_of("flip_killed_lap",
              {.ending = LogEnding::kKilled, .live_bytes = 262'144, .skip_bytes = 1'100'000},
              {5000, 400});
}

TEST_CASE("rot of any bit in the last records of a log that was closed is reported") {
  flip_head_of("head_rot_closed", LogEnding::kClosed, {5000, 400});
}

TEST_CASE("rot of any bit in the last records of a log that has rested is reported") {
  flip_head_of("head_rot_covered", LogEnding::kCovered, {5000, 400});
}

TEST_CASE("rot of any bit in the last records of a killed log is reported but in the very last") {
  flip_head_of("head_rot_killed", LogEnding::kKilled, {5000, 400});
}

// A log of every length that it could have been cut to or grown to: refused as damage, whatever was
// in it, until all of it is there; and then right, whatever follows.
//
// The superblock says how long the file must be, so one that is shorter is refused even where what
// is missing holds nothing. One that is shorter than any log is no log at all, whatever is in it;
// these logs are larger than the smallest, and 65,536 lengths of each are refused for what the
// superblock says.
#include <doctest/doctest.h>

#include <string>

#include "keel/base/os.h"
#include "log_specimen.h"
#include "support/campaign.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = LogSpecimen::kBlock;
constexpr std::size_t kLonger = 4 * kBlock;  // tried beyond the whole
constexpr std::size_t kBytes = kMinLogBytes.value() + 65'536;

class Truncated {
 public:
  explicit Truncated(LogEnding ending)
      : specimen_(
            make_specimen({.ending = ending, .live_bytes = 65536, .file_bytes = Bytes(kBytes)})),
        os_(specimen_.image) {}

  [[nodiscard]] std::size_t lengths() const { return specimen_.image.size() + kLonger + 1; }

  std::string check(std::size_t length) {
    const ScopedOs scope(os_);
    set_length(length);
    const Judgement judgement = judge(os_, specimen_);
    if (length >= specimen_.image.size()) {
      return fault_of(judgement, specimen_, specimen_.checkpoints.size());
    }
    if (!judgement.fault.empty() || judgement.delivered != 0 || judgement.ok) {
      return "something was read of it; " + judgement.fault + judgement.report.message();
    }
    const Errc expected = length < kMinLogBytes.value() ? Errc::kNotALog : Errc::kDamaged;
    return judgement.error.code == expected ? "" : "refused as " + judgement.error.message();
  }

 private:
  // Most lengths are next to the last one: no need to copy all.
  void set_length(std::size_t length) {
    const std::size_t before = os_.image().size();
    os_.resize(length);
    if (length > before && before < specimen_.image.size()) {
      const std::size_t end = std::min(length, specimen_.image.size());
      os_.put(before, specimen_.image.data() + before, end - before);
    }
  }

  LogSpecimen specimen_;
  ImageOs os_;
};

}  // namespace

TEST_CASE("a log cut to any length is refused, one that has grown is read") {
  Truncated closed(LogEnding::kClosed), killed(LogEnding::kKilled);
  const std::size_t lengths = closed.lengths();
  Campaign campaign("truncation", 2 * lengths, {3000, 300});
  campaign.run([&](std::uint64_t index) {
    return index < lengths ? closed.check(index) : killed.check(index - lengths);
  });
}

TEST_CASE("a log cut at or beside any block or sector boundary is refused") {
  Truncated closed(LogEnding::kClosed);
  constexpr std::size_t kSector = 512, kNear = 3;
  const std::size_t sectors = (closed.lengths() - kNear - 1) / kSector;
  Campaign campaign("truncation_boundaries", sectors * (2 * kNear + 1), {3000, 300});
  campaign.run([&](std::uint64_t index) {
    const std::size_t at = (index / (2 * kNear + 1) + 1) * kSector;
    return closed.check(at + index % (2 * kNear + 1) - kNear);
  });
}

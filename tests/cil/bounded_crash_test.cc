// Every workload of up to three operations, a power cut at every I/O of it, every set of sectors
// that could have come to be: exhaustive, as a campaign; a slice of it always.
//
// What a case is: one workload (bounded_life.h says which there are, and what a moment is). Each of
// its moments is crashed with each subset of the pending sectors of 512 bytes whose content is new;
// those that are dropped hold what they held, and once more garbage. Of more than twelve sectors:
// all prefixes and suffixes, each one alone and each one missing, and 4,096 subsets by seed.
//
// What recovery may show: every forced sequence; exactly what the client had after the last
// sequence found, laid over what it had at home; and never damage, for a crash is not rot.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "bounded_life.h"
#include "log/log_scan.h"
#include "probe.h"
#include "support/campaign.h"
#include "support/image_os.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kSector = 512;
constexpr std::size_t kMostEnumerated = 12;
constexpr std::uint64_t kSeededSubsets = 4096;

using SectorSet = std::vector<bool>;

// A sector of a pending write, of which it is open whether it has come to be.
struct Question {
  std::uint64_t offset;
  const std::byte* bytes;
};

// A moment's stable bytes and its questions, in the order of writing.
class Crashed {
 public:
  Crashed(ImageOs& os, const BoundedMoment& moment) : os_(os) {
    os.replace(moment.log.stable.flat());
    std::map<std::uint64_t, bool> asked;
    for (const SimWrite& write : moment.log.pending) {
      for (std::size_t at = 0; at < write.data->size(); at += kSector) {
        const std::byte* bytes = write.data->data() + at;
        const std::uint64_t offset = write.offset + at;
        const bool same = std::memcmp(os.image().data() + offset, bytes, kSector) == 0;
        if (!same || asked[offset]) {
          asked[offset] = true;
          questions_.push_back({offset, bytes});
          const std::byte* old = os.image().data() + offset;
          before_.emplace_back(old, old + kSector);
        }
      }
    }
  }

  [[nodiscard]] std::size_t questions() const { return questions_.size(); }

  // Lays out the state, calls check(), and puts everything back.
  template <class Check>
  std::string with(const SectorSet& kept, const SimContent* garbage, Check&& check) {
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      if (kept[i]) {
        os_.put(questions_[i].offset, questions_[i].bytes, kSector);
      } else if (garbage != nullptr) {
        os_.put(questions_[i].offset, garbage->data() + i * 8 % (garbage->size() - kSector),
                kSector);
      }
    }
    std::string fault = check();
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      os_.put(questions_[i].offset, before_[i].data(), kSector);
    }
    return fault;
  }

 private:
  ImageOs& os_;
  std::vector<Question> questions_;
  std::vector<SimContent> before_;
};

// Calls each(set) for the sets of `count` sectors that are to be tried; stops at the first that
// returns something.
template <class Each>
std::string for_sets(std::size_t count, std::uint64_t seed, Each&& each) {
  SectorSet set(count);
  std::string fault;
  if (count <= kMostEnumerated) {
    for (std::uint64_t bits = 0; bits < 1U << count && fault.empty(); ++bits) {
      for (std::size_t i = 0; i < count; ++i) {
        set[i] = (bits >> i & 1) != 0;
      }
      fault = each(set);
    }
    return fault;
  }
  for (const bool kept : {false, true}) {
    for (std::size_t length = 0; length <= count && fault.empty(); ++length) {
      for (std::size_t i = 0; i < count; ++i) {
        set[i] = (i < length) == kept;
      }
      fault = each(set);
    }
    for (std::size_t one = 0; one < count && fault.empty(); ++one) {
      set.assign(count, !kept);
      set[one] = kept;
      fault = each(set);
    }
  }
  for (std::uint64_t i = 0; i < kSeededSubsets && fault.empty(); ++i) {
    for (std::size_t at = 0; at < count; ++at) {
      set[at] = (sim_random(seed) & 1) != 0;
    }
    fault = each(set);
  }
  return fault;
}

class Judge {
 public:
  Judge() : os_(SimContent(kMinLogBytes.value())), garbage_(64 * kSector) {
    const std::string bytes = random_bytes(99, garbage_.size());
    std::memcpy(garbage_.data(), bytes.data(), bytes.size());
  }

  std::string crash_all(const BoundedLife& life, std::uint64_t seed) {
    const ScopedOs scope(os_);
    std::string fault = life.fault;
    for (const BoundedMoment& moment : life.moments) {
      if (!fault.empty()) {
        break;
      }
      Crashed crashed(os_, moment);
      ++moments_;
      most_sectors_ = std::max(most_sectors_, crashed.questions());
      const auto check = [&] { return recover(life, moment); };
      fault = for_sets(crashed.questions(), seed, [&](const SectorSet& kept) {
        std::string found = crashed.with(kept, nullptr, check);
        const bool all = std::find(kept.begin(), kept.end(), false) == kept.end();
        if (found.empty() && !all) {
          found = crashed.with(kept, &garbage_, check);
        }
        if (!found.empty()) {
          found += "; moment " + std::to_string(&moment - life.moments.data()) + ", kept ";
          for (const bool one : kept) {
            found += one ? '1' : '0';
          }
        }
        return found;
      });
    }
    return fault;
  }

  [[nodiscard]] std::string tally() const {
    return "moments=" + std::to_string(moments_) + " states=" + std::to_string(states_) +
           " torn=" + std::to_string(torn_) + " most_sectors=" + std::to_string(most_sectors_);
  }
  [[nodiscard]] std::uint64_t states() const { return states_; }

 private:
  std::string recover(const BoundedLife& life, const BoundedMoment& moment) {
    ++states_;
    ClientState found = moment.home;
    bool known = true;
    const auto file = LogFile::open(kLogPath, DeviceMode::kReadWrite, false, default_pool());
    if (!file) {
      return "the log cannot be opened: " + file.error().message();
    }
    const auto scanned = scan(*file,
                              [&](const RecoveredCheckpoint& checkpoint) -> Status {
                                known = known && found.apply(checkpoint);
                                return {};
                              },
                              {}, {keel::SpareMemory::kReadBytes, 0, 0});
    if (!scanned) {
      return "recovery failed: " + scanned.error().message();
    }
    const RecoveryReport& report = scanned->report;
    torn_ += report.end == LogEnd::kTorn ? 1 : 0;
    if (report.end == LogEnd::kDamaged) {
      return "a crash was taken for damage: " + report.message();
    }
    if (report.last_sequence.value() < moment.forced) {
      return "a forced sequence is gone: " + report.message();
    }
    if (!known) {
      return "an item that nobody logged";
    }
    if (found != life.expected(moment, report.last_sequence.value())) {
      return "not what the client had: " + report.message();
    }
    return {};
  }

  ImageOs os_;
  SimContent garbage_;
  std::uint64_t states_ = 0;
  std::uint64_t moments_ = 0;
  std::uint64_t torn_ = 0;
  std::size_t most_sectors_ = 0;
};

std::string crash(Judge& judge, std::uint64_t index) {
  const Workload workload = Workload::at(index);
  std::string fault = judge.crash_all(live(workload), index);
  return fault.empty() ? fault : "[" + workload.name() + "] " + fault;
}

}  // namespace

TEST_CASE("every workload of up to three operations survives a power cut at every I/O") {
  Judge judge;
  Campaign campaign("bounded_crash", Workload::count(3), {40, 2});
  campaign.run([&](std::uint64_t index) {
    std::string fault = crash(judge, index);
    campaign.note(judge.tally());
    return fault;
  });
}

TEST_CASE("every workload of one operation survives a power cut at every I/O") {
  Judge judge;
  Campaign campaign("bounded_crash_short", Workload::count(1), {8, 2});
  campaign.run([&](std::uint64_t index) {
    std::string fault = crash(judge, index);
    campaign.note(judge.tally());
    return fault;
  });
}

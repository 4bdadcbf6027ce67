// Recovery that is itself interrupted: a power cut at each of its I/Os, in each state that the cut
// may leave, three deep; a failure at each I/O, once and for good; and no memory. The recovery that
// comes through finds what one that nothing befell would have found.
//
// Begins with what power cuts leave of bounded lives (bounded_life.h): every moment of a workload,
// its pending sectors all kept, all lost, and half of them lost. Each is opened and closed; every
// I/O of that is a moment to cut the power again: a write of a state slot (of which one sector has
// news) came to be, did not, is garbage, is half old and half new, or is garbage as a whole.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bounded_life.h"
#include "keel/alloc/pool.h"
#include "probe.h"
#include "support/campaign.h"

using namespace keel;
using namespace keel_test;

namespace {

// What a recovery found.
struct Recovery {
  Found checkpoints;
  std::uint64_t tail = 0;
  std::uint64_t head = 0;
  std::vector<std::uint64_t> intents;
  bool operator==(const Recovery&) const = default;
};

Recovery recovery_of(const Journal& journal, Found&& found) {
  Recovery recovery{
      std::move(found), journal.recovery().tail.value(), journal.recovery().head.value(), {}};
  for (const IntentItem* intent : journal.recovered_intents()) {
    recovery.intents.push_back(intent->id());
  }
  return recovery;
}

// Opens and closes; what went wrong, or nothing.
std::string open_and_close(Recovery& recovery, Pool* pool = nullptr) {
  Found found;
  // What follows each I/O is not guarded: no other thread may cover a log that rests.
  auto journal = Journal::open(kLogPath, {.pool = pool, .cover_after_ns = UINT64_MAX / 4},
                               collect_into(found));
  if (!journal) {
    return "open: " + journal.error().message();
  }
  recovery = recovery_of(**journal, std::move(found));
  if ((*journal)->recovery().end == LogEnd::kDamaged) {
    return "a crash was taken for damage";
  }
  const Status closed = (*journal)->close();
  return closed.ok() ? "" : "close: " + closed.error().message();
}

// What is found where the state slot that could not be read is lost: by the older of two that
// differ recovery begins earlier, and delivers once more what was home by the newer one.
Recovery found_without_slot(SimContent content, const std::vector<SimIo>& log) {
  constexpr std::uint64_t kBlock = 4096;
  for (const SimIo& io : log) {
    if (io.faulty && io.op == SimOp::kRead &&
        (io.offset == kBlock || io.offset == content.size() - 2 * kBlock)) {
      std::fill_n(content.data() + io.offset, kBlock, std::byte{0});
    }
  }
  SimDisk disk({.seed = 12});
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, content);
  Recovery found;
  return open_and_close(found).empty() ? found : Recovery();
}

enum class SlotFate : std::uint8_t { kKeep, kDrop, kGarbage, kTorn, kAllGarbage, kCount };

SimFate fate_of(SlotFate fate, const SimSector& sector) {
  switch (fate) {
    case SlotFate::kDrop: return SimFate::kDrop;
    case SlotFate::kGarbage: return sector.sector == 0 ? SimFate::kGarbage : SimFate::kKeep;
    case SlotFate::kTorn: return sector.sector == 0 ? SimFate::kTorn : SimFate::kKeep;
    case SlotFate::kAllGarbage: return SimFate::kGarbage;
    default: return SimFate::kKeep;
  }
}

class Interrupted {
 public:
  std::uint64_t openings = 0;
  // Of each recovery one moment and one fate, by seed, instead of all.
  bool one_path = false;

  // A disk on which the log was left like that.
  std::string run(const SimImage& image, const SimMask& mask, int depth) {
    SimDisk disk({.seed = 11});
    disk.set_image(kLogPath, image.materialize(mask));
    const SimSnapshot start = disk.snapshot();
    {
      const ScopedOs scope(disk);
      if (std::string fault = open_and_close(expected_); !fault.empty()) {
        return fault;
      }
    }
    return go(start, SlotFate::kKeep, depth);
  }

 private:
  std::string go(const SimSnapshot& before, SlotFate fate, int depth) {
    SimDisk disk({.seed = 11});
    disk.boot_with(before, [fate](const SimSector& sector) { return fate_of(fate, sector); });
    const ScopedOs scope(disk);
    std::vector<SimSnapshot> moments;
    disk.on_io([&](const SimIo& io) {
      if (io.op == SimOp::kWrite || io.op == SimOp::kFlush) {
        moments.push_back(disk.snapshot());
      }
    });
    ++openings;
    Recovery found;
    if (std::string fault = open_and_close(found); !fault.empty()) {
      return fault;
    }
    disk.on_io(nullptr);
    if (found != expected_) {
      return "another recovery than the first";
    }
    const std::size_t first = one_path ? sim_random(random_) % moments.size() : 0;
    const std::size_t end = one_path ? first + 1 : moments.size();
    for (std::size_t i = first; depth > 0 && i < end; ++i) {
      constexpr unsigned kFates = static_cast<unsigned>(SlotFate::kCount);
      const unsigned fates = moments[i].sectors() != 0 ? kFates : 1;
      const unsigned from = one_path ? static_cast<unsigned>(sim_random(random_) % fates) : 0;
      for (unsigned next = from; next < (one_path ? from + 1 : fates); ++next) {
        std::string fault = go(moments[i], static_cast<SlotFate>(next), depth - 1);
        if (!fault.empty()) {
          return fault + "; I/O " + std::to_string(i) + ", fate " + std::to_string(next);
        }
      }
    }
    return {};
  }

  Recovery expected_;
  std::uint64_t random_ = 5;
};

SimFate first_fate(std::uint64_t which, const SimSector& sector) {
  return which == 0 || (which == 2 && sector.index % 2 == 0) ? SimFate::kKeep : SimFate::kDrop;
}

// Calls each(image, mask) for what power cuts leave of a life; not `all`: of one moment of it.
template <class Each>
std::string for_crashes(std::uint64_t index, bool all, Each&& each) {
  const Workload workload = Workload::at(index);
  const BoundedLife life = live(workload);
  std::string fault = life.fault;
  for (const BoundedMoment& moment : life.moments) {
    if (!all && &moment != &life.moments[index % life.moments.size()]) {
      continue;
    }
    for (std::uint64_t which = 0; which < (moment.log.pending.empty() ? 1U : 3U); ++which) {
      if (fault.empty()) {
        fault = each(moment.log,
                     [which](const SimSector& sector) { return first_fate(which, sector); });
      }
    }
  }
  return fault.empty() ? fault : "[" + workload.name() + "] " + fault;
}

}  // namespace

TEST_CASE("recovery cut short at any I/O finds what one recovery finds") {
  Interrupted interrupted;
  Campaign campaign("recovery_interrupted_1", Workload::count(2), {30, 3});
  interrupted.one_path = !campaign.full();
  campaign.run([&](std::uint64_t index) {
    std::string fault =
        for_crashes(index, campaign.full(), [&](const SimImage& image, const SimMask& mask) {
          return interrupted.run(image, mask, 1);
        });
    campaign.note("openings=" + std::to_string(interrupted.openings));
    return fault;
  });
}

TEST_CASE("recovery cut short at any I/O, three times over, finds what one recovery finds") {
  // A workload of each operation on each base; a twelfth of its moments a case.
  constexpr std::uint64_t kParts = 12;
  Interrupted interrupted;
  Campaign campaign("recovery_interrupted_3", Workload::count(1) * kParts, {60, 8});
  interrupted.one_path = !campaign.full();
  campaign.run([&](std::uint64_t index) {
    const BoundedLife life = live(Workload::at(index / kParts));
    std::string fault = life.fault;
    for (std::size_t i = index % kParts; fault.empty() && i < life.moments.size(); i += kParts) {
      fault = interrupted.run(
          life.moments[i].log, [](const SimSector& sector) { return first_fate(2, sector); }, 3);
    }
    campaign.note("openings=" + std::to_string(interrupted.openings));
    return fault;
  });
}

TEST_CASE("whichever I/O of recovery fails, once or for good, the next recovery finds everything") {
  std::uint64_t failed = 0;
  Campaign campaign("recovery_eio", Workload::count(2), {3, 1});
  campaign.run([&](std::uint64_t index) {
    std::string fault =
        for_crashes(index, campaign.full(), [&](const SimImage& image, const SimMask& mask) {
          const SimContent content = image.materialize(mask);
          Recovery expected;
          for (std::uint64_t nth = 0; nth < 200; ++nth) {
            for (const bool for_good : {false, true}) {
              SimDisk disk({.seed = 12});
              const ScopedOs scope(disk);
              disk.set_image(kLogPath, content);
              if (nth == 0) {
                std::string wrong = open_and_close(expected);
                if (!wrong.empty()) {
                  return wrong;
                }
                continue;
              }
              disk.inject({.nth = nth, .for_good = for_good});
              bool opened = false;
              {
                auto journal = Journal::open(kLogPath, {.cover_after_ns = UINT64_MAX / 4}, kIgnore);
                opened = journal.ok();
                disk.clear_faults();
              }
              disk.crash(nth);
              Recovery found;
              std::string wrong = open_and_close(found);
              const std::vector<SimIo> log = disk.io_log();
              if (wrong.empty() && found != expected && found != found_without_slot(content, log)) {
                wrong = "not what there was before";
              }
              if (!wrong.empty()) {
                return wrong + "; failed I/O " + std::to_string(nth) +
                       (for_good ? " for good" : "");
              }
              const bool met =
                  std::any_of(log.begin(), log.end(), [](const SimIo& io) { return io.faulty; });
              if (opened && !met) {
                return std::string();
              }
              ++failed;
            }
          }
          return std::string("no end of I/Os");
        });
    campaign.note("failures_met=" + std::to_string(failed));
    return fault;
  });
}

TEST_CASE("recovery of a log with a pool too small for it changes nothing") {
  const MessageHook before = set_message_hook([](const char*) {});
  SimDisk disk({.seed = 13});
  const ScopedOs scope(disk);
  // Objects, an intent, and what a crash left behind.
  const BoundedLife life = live({LogBase::kLeftover, {Operation::kWriteTwo, Operation::kForce}});
  REQUIRE(life.fault.empty());
  disk.set_image(kLogPath, life.moments.front().log.stable.flat());
  const SimContent image = disk.image(kLogPath);
  Recovery expected;
  REQUIRE(open_and_close(expected) == "");
  std::size_t refused = 0;
  bool opened = false;
  for (std::size_t pages = 16; !opened; pages += 40) {
    REQUIRE(pages < 16384);
    disk.set_image(kLogPath, image);
    auto pool = Pool::create({.capacity_bytes = pages * 4096, .background = false});
    REQUIRE(pool.ok());
    {
      Found found;
      const auto journal = Journal::open(kLogPath, {.pool = pool->get()}, collect_into(found));
      opened = journal.ok();
      if (!opened) {
        ++refused;
        CHECK(journal.error().code == Errc::kNoMemory);
        CHECK(disk.image(kLogPath) == image);
      } else {
        CHECK(recovery_of(**journal, std::move(found)) == expected);
      }
    }
    CHECK((*pool)->stats().live == Bytes(0));
  }
  CHECK(refused > 8);
  set_message_hook(before);
}

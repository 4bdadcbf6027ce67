// journal.copy.*: what does a commit cost beside the one copy that it cannot do without?
//
// A sample commits 24 MiB of 64 KiB objects, each in a transaction of its own (begin, log, commit),
// one thread, memory only: the context stays below the push threshold, so nothing is written while
// the clock runs. The other is memcpy of the same objects into as many bytes of touched memory,
// object by object. Both so have the same footprint, in the caches as well.
//
//   fresh     each object's first commit in the checkpoint: its log vector is allocated.
//   relogged  each object is in the checkpoint already, with both its vectors: one is written
//             again.

#include <cstring>
#include <memory>

#include "scoreboard/row.h"
#include "support/clock.h"
#include "support/journal_rig.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kObjectBytes = std::size_t{64} << 10;

struct Shape {
  std::size_t log_bytes;
  std::size_t set_bytes;  // below the push threshold of such a log
  std::size_t rounds;     // over all objects, in a sample
};

Shape shape_of(const Setting& setting) {
  return setting.smoke ? Shape{32 * kMiB, 2 * kMiB, 1} : Shape{512 * kMiB, 24 * kMiB, 16};
}

double rate(const JournalRig& rig, const Shape& shape, double seconds) {
  return static_cast<double>(shape.rounds * rig.object_count() * kObjectBytes) / seconds / 1e6;
}

// Adds the time of committing every object once.
Status timed_round(JournalRig& rig, double& seconds) {
  const Stopwatch watch;
  const auto sequence = rig.commit_each(0, rig.object_count());
  seconds += watch.seconds();
  return sequence ? Status{} : Status{sequence.error()};
}

Result<double> sample_fresh(JournalRig& rig, const Shape& shape) {
  double seconds = 0;
  for (std::size_t round = 0; round < shape.rounds; ++round) {
    rig.quiesce();
    if (auto status = timed_round(rig, seconds); !status) {
      return status.error();
    }
    if (auto status = rig.settle(0, rig.object_count()); !status) {
      return status.error();
    }
  }
  return rate(rig, shape, seconds);
}

Result<double> sample_relogged(JournalRig& rig, const Shape& shape) {
  // The first round brings the objects into the checkpoint, the second gives each its standby
  // vector.
  for (int round = 0; round < 2; ++round) {
    if (auto sequence = rig.commit_each(0, rig.object_count()); !sequence) {
      return sequence.error();
    }
  }
  const std::uint64_t checkpoints = rig.journal().stats().checkpoints;
  double seconds = 0;
  for (std::size_t round = 0; round < shape.rounds; ++round) {
    if (auto status = timed_round(rig, seconds); !status) {
      return status.error();
    }
  }
  KEEL_CHECK(rig.journal().stats().checkpoints == checkpoints, "a push came into the measurement",
             checkpoints);
  if (auto status = rig.settle(0, rig.object_count()); !status) {
    return status.error();
  }
  return rate(rig, shape, seconds);
}

Result<double> sample_memcpy(const JournalRig& rig, const TouchedBytes& place, const Shape& shape) {
  const Stopwatch watch;
  for (std::size_t round = 0; round < shape.rounds; ++round) {
    for (std::size_t i = 0; i < rig.object_count(); ++i) {
      std::memcpy(place.data() + i * kObjectBytes, rig.object(i), kObjectBytes);
      clobber_memory();
    }
  }
  return rate(rig, shape, watch.seconds());
}

using SampleJournal = Result<double> (*)(JournalRig&, const Shape&);

Result<Comparison> prepare(const Setting& setting, SampleJournal sample) {
  const Shape shape = shape_of(setting);
  auto made = JournalRig::create(setting.dir, "copy.log",
                                 {.log = Bytes(shape.log_bytes),
                                  .pool_bytes = 8 * shape.set_bytes + 16 * kMiB,
                                  .objects = shape.set_bytes / kObjectBytes,
                                  .object_bytes = kObjectBytes});
  if (!made) {
    return made.error();
  }
  std::shared_ptr<JournalRig> rig = std::move(*made);
  auto place = std::make_shared<TouchedBytes>(shape.set_bytes);
  return Comparison{
      [rig, shape, sample] { return sample(*rig, shape); },
      {{"memcpy", [rig, place, shape] { return sample_memcpy(*rig, *place, shape); }}}};
}

const RowRegistration kFresh{
    {"journal.copy.fresh", "MB/s", "commits of 64 KiB objects that are new to the checkpoint",
     Goal::kRatioAtLeast, 0.80,
     [](const Setting& setting) { return prepare(setting, sample_fresh); }}};
const RowRegistration kRelogged{
    {"journal.copy.relogged", "MB/s", "commits of 64 KiB objects that the checkpoint has already",
     Goal::kRatioAtLeast, 0.80,
     [](const Setting& setting) { return prepare(setting, sample_relogged); }}};

}  // namespace
}  // namespace keel::bench

// journal.W4*: what does merging save when few objects change again and again?
//
// 1,000 objects of 4 KiB, 1,000,000 updates of whole objects chosen uniformly, one transaction
// each, one thread, then one force.
//
//   journal.W4       bytes that the log wrote (records whole, with headers and padding) against
//                    bytes committed (payload only); the state slots, 4 KiB each, are not counted.
//   journal.W4.time  seconds for all of it, force included, against a memcpy of the same updates.

#include <cstring>
#include <memory>

#include "scoreboard/row.h"
#include "support/clock.h"
#include "support/journal_rig.h"

namespace keel::bench {
namespace {

constexpr std::size_t kObjects = 1000;
constexpr std::size_t kObjectBytes = 4096;

std::size_t updates_of(const Setting& setting) { return setting.smoke ? 10'000 : 1'000'000; }

// Calls update(i) for every update, the same objects in the same order each time.
template <class Update>
Status for_each_update(std::size_t updates, const JournalRig& rig, const Update& update) {
  std::uint64_t random = 88172645463325252;
  for (std::size_t n = 0; n < updates; ++n) {
    const std::size_t i = next_random(random) % kObjects;
    std::memcpy(rig.object(i), &n, sizeof n);
    if (auto status = update(i); !status) {
      return status;
    }
  }
  return {};
}

struct HotSetRun {
  double seconds = 0;
  double written_bytes = 0;
};

Result<HotSetRun> run_journal(JournalRig& rig, std::size_t updates) {
  const std::uint64_t before = rig.journal().stats().written.value();
  const Stopwatch watch;
  auto status = for_each_update(updates, rig, [&rig](std::size_t i) -> Status {
    const auto sequence = rig.commit(i);
    return sequence ? Status{} : Status{sequence.error()};
  });
  if (status.ok()) {
    status = rig.journal().force_all();
  }
  const HotSetRun run{watch.seconds(),
                      static_cast<double>(rig.journal().stats().written.value() - before)};
  if (status.ok()) {
    status = rig.settle(0, kObjects);
  }
  return status.ok() ? Result<HotSetRun>(run) : Result<HotSetRun>(status.error());
}

Result<std::shared_ptr<JournalRig>> make_rig(const Setting& setting) {
  auto made = JournalRig::create(setting.dir, "hot_set.log",
                                 {.log = Bytes(std::uint64_t{128} << 20),
                                  .pool_bytes = std::size_t{64} << 20,
                                  .objects = kObjects,
                                  .object_bytes = kObjectBytes});
  if (!made) {
    return made.error();
  }
  return std::shared_ptr<JournalRig>(std::move(*made));
}

Result<Comparison> prepare_bytes(const Setting& setting) {
  auto rig = make_rig(setting);
  if (!rig) {
    return rig.error();
  }
  const std::size_t updates = updates_of(setting);
  return Comparison{[rig = *rig, updates]() -> Result<double> {
                      const auto run = run_journal(*rig, updates);
                      return run ? Result<double>(run->written_bytes / 1e6) : run.error();
                    },
                    {{"bytes committed", [updates]() -> Result<double> {
                        return static_cast<double>(updates * kObjectBytes) / 1e6;
                      }}}};
}

Result<Comparison> prepare_time(const Setting& setting) {
  auto rig = make_rig(setting);
  if (!rig) {
    return rig.error();
  }
  const std::size_t updates = updates_of(setting);
  auto place = std::make_shared<TouchedBytes>(kObjects * kObjectBytes);
  return Comparison{[rig = *rig, updates]() -> Result<double> {
                      const auto run = run_journal(*rig, updates);
                      return run ? Result<double>(run->seconds) : run.error();
                    },
                    {{"memcpy, no journal", [rig = *rig, place, updates]() -> Result<double> {
                        const Stopwatch watch;
                        (void)for_each_update(updates, *rig, [&](std::size_t i) {
                          std::memcpy(place->data() + i * kObjectBytes, rig->object(i),
                                      kObjectBytes);
                          clobber_memory();
                          return Status{};
                        });
                        return watch.seconds();
                      }}}};
}

const RowRegistration kBytes{
    {"journal.W4", "MB", "hot set, 1,000,000 updates, one force: bytes written for bytes committed",
     Goal::kOursAtMost, 5.0, prepare_bytes}};
const RowRegistration kTime{{"journal.W4.time", "s",
                             "hot set, 1,000,000 updates, one force: seconds for all of it",
                             Goal::kOursAtMost, 0.6, prepare_time}};

}  // namespace
}  // namespace keel::bench

// journal.recovery: is a log recovered as fast as its bytes can be read at all?
//
// A sample is the log bytes of proven checkpoints per second of scan_log(), from opening the file
// to the report; the handler looks at every item and touches nothing of the regions. The log is
// full of 4 KiB objects and closed in order, so that what is read is what is proven. The limit
// reads as many bytes of the same file with O_DIRECT, in blocks of the size of recovery's reads, as
// many in flight.
// Both go past the page cache, so none has to be dropped.

#include <algorithm>
#include <memory>

#include "keel/cil/recovery.h"
#include "raw/raw_reader.h"
#include "scoreboard/row.h"
#include "support/clock.h"
#include "support/journal_rig.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kObjectBytes = 4096;
// What recovery issues: reads of 4 MiB, two in flight.
constexpr std::size_t kBlockBytes = 4 * kMiB;
constexpr unsigned kDepth = 2;

struct Log {
  std::string path;
  std::uint64_t bytes = 0;  // of checkpoints, from the start of the data area on
  ~Log() { (void)os().unlink(path.c_str()); }
};

// Commits to two thirds of the log; the objects are never released, so all of it stays.
Result<std::shared_ptr<Log>> make_log(const Setting& setting) {
  const std::size_t log_bytes = setting.smoke ? 16 * kMiB : 1024 * kMiB;
  const std::size_t objects = log_bytes / kObjectBytes;
  auto rig = JournalRig::create(setting.dir, "recovery.log",
                                {.log = Bytes(log_bytes),
                                 .pool_bytes = log_bytes / 4 + 64 * kMiB,
                                 .objects = objects,
                                 .object_bytes = kObjectBytes});
  if (!rig) {
    return rig.error();
  }
  (*rig)->keep_log();
  auto log = std::make_shared<Log>();
  log->path = setting.dir + "/recovery.log";
  // As much as the largest checkpoint, a quarter of the log at most, is kept for logging again.
  const std::size_t used = objects - objects / 3;
  for (std::size_t done = 0; done < used;) {
    const std::size_t now = std::min<std::size_t>(used - done, 4096);
    const auto sequence = (*rig)->commit_each(done, now);
    if (!sequence) {
      return sequence.error();
    }
    if (auto status = (*rig)->journal().force(*sequence); !status) {
      return status.error();
    }
    done += now;
  }
  log->bytes = (*rig)->journal().stats().written.value();
  if (auto status = (*rig)->journal().close(); !status) {
    return status.error();
  }
  return log;
}

Result<double> sample_recovery(const Log& log) {
  std::uint64_t items = 0;
  const Stopwatch watch;
  const auto report = scan_log(log.path, [&items](const RecoveredCheckpoint& checkpoint) {
    for (const RecoveredItem& item : checkpoint.items) {
      items += item.regions().size() > 1 ? 1U : 0U;
    }
    return Status{};
  });
  const double seconds = watch.seconds();
  if (!report) {
    return report.error();
  }
  if (report->bytes.value() != log.bytes || items != report->items) {
    return Error{Errc::kDamaged, 0, "recovery did not find all of the log, bytes",
                 report->bytes.value()};
  }
  return static_cast<double>(log.bytes) / seconds / 1e6;
}

Result<Peer> raw_peer(const std::shared_ptr<Log>& log, unsigned depth) {
  auto made = RawReader::open(log->path, {kBlockBytes, depth, 2 * kPageBytes, log->bytes});
  if (!made) {
    return made.error();
  }
  std::shared_ptr<RawReader> reader = std::move(*made);
  const std::string name =
      "raw O_DIRECT " + std::to_string(kBlockBytes / kMiB) + " MiB x" + std::to_string(depth);
  return Peer{name, [reader, log]() -> Result<double> {
                const auto seconds = reader->read_once();
                if (!seconds) {
                  return seconds.error();
                }
                return static_cast<double>(log->bytes) / *seconds / 1e6;
              }};
}

Result<Comparison> prepare(const Setting& setting) {
  auto log = make_log(setting);
  if (!log) {
    return log.error();
  }
  Comparison comparison{[log = *log] { return sample_recovery(*log); }, {}};
  for (const unsigned depth : {kDepth, 1U}) {
    auto peer = raw_peer(*log, depth);
    if (!peer) {
      return peer.error();
    }
    comparison.peers.push_back(std::move(*peer));
  }
  return comparison;
}

const RowRegistration kRow{{"journal.recovery", "MB/s",
                            "bytes of a 1 GiB log of 4 KiB objects proven per second of recovery",
                            Goal::kRatioAtLeast, 0.90, prepare}};

}  // namespace
}  // namespace keel::bench

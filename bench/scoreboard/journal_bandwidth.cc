// journal.bandwidth: do checkpoints reach the disk as fast as plain O_DIRECT writes do?
//
// A sample is the bytes of 64 KiB objects that force() made stable, per second that force() took.
// The objects are committed before each force, outside the clock. Inside is all from closing the
// context to waking the caller (sorting, building and hashing records), what the checkpoint adds in
// bytes (headers, padding), and a move of the tail that the push thread has not finished. The limit
// writes the objects' bytes in blocks of the size of the journal's writes, as many in flight, and
// flushes after as many bytes as a checkpoint has.

#include <memory>

#include "raw/raw_writer.h"
#include "scoreboard/row.h"
#include "support/clock.h"
#include "support/journal_rig.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kObjectBytes = std::size_t{64} << 10;
// What the journal issues: writes of 1 MiB, four at a time.
constexpr std::size_t kBlockBytes = kMiB;
constexpr unsigned kDepth = 4;

struct Shape {
  std::size_t log_bytes;
  std::size_t checkpoint_bytes;  // payload; below the push threshold, half of max_checkpoint
  std::size_t checkpoints;       // in a sample
};

Shape shape_of(const Setting& setting) {
  return setting.smoke ? Shape{32 * kMiB, 2 * kMiB, 2} : Shape{512 * kMiB, 24 * kMiB, 12};
}

Result<double> sample_journal(JournalRig& rig, const Shape& shape) {
  double seconds = 0;
  for (std::size_t i = 0; i < shape.checkpoints; ++i) {
    const auto sequence = rig.commit_each(0, rig.object_count());
    if (!sequence) {
      return sequence.error();
    }
    const Stopwatch watch;
    if (auto status = rig.journal().force(*sequence); !status) {
      return status.error();
    }
    seconds += watch.seconds();
    if (auto status = rig.settle(0, rig.object_count()); !status) {
      return status.error();
    }
  }
  return static_cast<double>(shape.checkpoints * shape.checkpoint_bytes) / seconds / 1e6;
}

Result<Peer> raw_peer(const Setting& setting, const Shape& shape, unsigned depth,
                      std::size_t block_bytes) {
  const RawWriterConfig config{block_bytes, depth, shape.checkpoint_bytes, shape.log_bytes};
  const std::string name = "raw O_DIRECT " + std::to_string(block_bytes / kMiB) + " MiB x" +
                           std::to_string(depth) + ", flush";
  auto made = RawWriter::create(setting.dir + "/raw", config);
  if (!made) {
    return made.error();
  }
  std::shared_ptr<RawWriter> writer = std::move(*made);
  return Peer{name, [writer, shape]() -> Result<double> {
                auto seconds = writer->write_units(shape.checkpoints);
                if (!seconds) {
                  return seconds.error();
                }
                const auto bytes = static_cast<double>(shape.checkpoints * shape.checkpoint_bytes);
                return bytes / *seconds / 1e6;
              }};
}

Result<Comparison> prepare(const Setting& setting) {
  const Shape shape = shape_of(setting);
  auto made = JournalRig::create(setting.dir, "bandwidth.log",
                                 {.log = Bytes(shape.log_bytes),
                                  .pool_bytes = 4 * shape.checkpoint_bytes + 16 * kMiB,
                                  .objects = shape.checkpoint_bytes / kObjectBytes,
                                  .object_bytes = kObjectBytes});
  if (!made) {
    return made.error();
  }
  std::shared_ptr<JournalRig> rig = std::move(*made);
  Comparison comparison{[rig, shape] { return sample_journal(*rig, shape); }, {}};
  auto limit = raw_peer(setting, shape, kDepth, kBlockBytes);
  if (!limit) {
    return limit.error();
  }
  comparison.peers.push_back(std::move(*limit));
  if (setting.full) {
    auto long_blocks = raw_peer(setting, shape, 1, setting.smoke ? kMiB : 4 * kMiB);
    if (!long_blocks) {
      return long_blocks.error();
    }
    comparison.peers.push_back(std::move(*long_blocks));
  }
  return comparison;
}

const RowRegistration kRow{{"journal.bandwidth", "MB/s",
                            "bytes of 64 KiB objects made stable per second of force()",
                            Goal::kRatioAtLeast, 0.95, prepare}};

}  // namespace
}  // namespace keel::bench

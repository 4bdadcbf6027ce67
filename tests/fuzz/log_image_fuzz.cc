// Any log image -> a valid state or an error: the reader, its judgement of the end, and recovery as
// Journal::open() does it.
//
// Held against the input: what is delivered is a chain of checkpoints whose items are sound; the
// report agrees with it; however the log is cut into reads the answer is the same; work is bounded;
// an error, and reading, change nothing; what recovery has accepted it accepts again; and of a log
// with one more bit wrong nothing is delivered from the checkpoint on that the bit is in.
#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "fuzz_log.h"
#include "keel/alloc/pool.h"
#include "keel/cil/journal.h"
#include "log/hash.h"
#include "log/log_file.h"
#include "log/log_scan.h"

using namespace keel;
using namespace keel_fuzz;

namespace {

struct Extent {
  std::uint64_t start;
  std::uint64_t bytes;
  std::uint64_t stable;
  std::uint64_t incarnation;
  bool operator==(const Extent&) const = default;
};

struct Seen {
  bool error = false;
  Errc code{};
  std::vector<std::uint64_t> checkpoints;  // a sum of each
  std::vector<Extent> extents;             // of each
  std::uint64_t block_bytes = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t incarnation = 0;
  std::uint64_t tail = 0;
  std::uint64_t head = 0;
  std::uint64_t stable = 0;  // as the state has it
  std::string message;
  LogEnd end{};

  bool operator==(const Seen&) const = default;
};

RecoveryHandler collect(Seen& seen) {
  return [&seen](const RecoveredCheckpoint& checkpoint) -> Status {
    seen.checkpoints.push_back(check_checkpoint(checkpoint) + checkpoint.sequence.value() * 31 +
                               checkpoint.start.value());
    return {};
  };
}

bool is_an_answer(Errc code) {
  return code == Errc::kNotALog || code == Errc::kBadVersion || code == Errc::kDamaged ||
         code == Errc::kUnsupported || code == Errc::kInvalidArgument;
}

Pool& pool() {
  static Pool* const made = [] {
    (void)fuzz_disk();
    auto created = Pool::create({.capacity_bytes = std::size_t{256} << 20,
                                 .window_bytes = std::size_t{1} << 30,
                                 .background = false,
                                 .system_malloc = true});
    FUZZ_CHECK(created.ok());
    return created->release();
  }();
  return *made;
}

// FORMAT.md, "When a checkpoint counts", rules 1 to 3, 5 and 6, of what was accepted: a second
// reader, which takes the bytes from the image itself.
class Judge {
 public:
  Judge(const SimContent& image, const LogFile& file)
      : image_(image),
        superblock_(file.superblock()),
        state_(file.state()),
        expected_(file.state().tail_predecessor) {}

  void accepted(const RecoveredCheckpoint& checkpoint) {
    const std::uint64_t start = checkpoint.start.value();
    const std::uint64_t end = start + checkpoint.bytes.value();
    std::vector<std::uint64_t> hashes;
    format::RecordHeader first{};
    for (std::uint64_t lsn = start, index = 0; lsn < end; ++index) {
      const auto header = header_at(lsn);
      first = index == 0 ? header : first;
      FUZZ_CHECK(header.magic == format::kRecordMagic && header.version == 1);
      FUZZ_CHECK(header.uuid == superblock_.uuid && header.lsn == lsn);
      FUZZ_CHECK(header.record_index == index && header.record_count == first.record_count);
      FUZZ_CHECK(header.sequence == expected_.sequence + 1 && header.predecessor == expected_);
      FUZZ_CHECK(header.incarnation == first.incarnation && header.incarnation != 0);
      FUZZ_CHECK(header.item_count == checkpoint.items.size());
      FUZZ_CHECK(header.checkpoint_bytes == end - start);
      FUZZ_CHECK(start < state_.incarnation_start_lsn || header.incarnation == state_.incarnation);
      const bool last = index + 1 == header.record_count;
      FUZZ_CHECK(header.checkpoint_hash == (last ? hash64(hashes.data(), hashes.size() * 8) : 0));
      const std::uint64_t bytes =
          format::record_bytes(header.packed_bytes, header.bulk_blocks, superblock_.block_bytes);
      FUZZ_CHECK(bytes <= end - lsn && hash_of(lsn, bytes) == header.record_hash);
      hashes.push_back(header.record_hash);
      lsn += bytes;
    }
    FUZZ_CHECK(hashes.size() == first.record_count);
    expected_ = {first.incarnation, first.sequence, start, end - start};
  }

 private:
  // As far as it goes without a wrap.
  [[nodiscard]] std::span<const std::byte> at(std::uint64_t lsn, std::uint64_t bytes) const {
    const std::uint64_t place = lsn % superblock_.data_bytes;
    return std::span(image_).subspan(2 * std::uint64_t{superblock_.block_bytes} + place,
                                     std::min(bytes, superblock_.data_bytes - place));
  }
  [[nodiscard]] format::RecordHeader header_at(std::uint64_t lsn) const {
    format::RecordHeader header;
    std::memcpy(&header, at(lsn, sizeof header).data(), sizeof header);
    return header;
  }
  [[nodiscard]] std::uint64_t hash_of(std::uint64_t lsn, std::uint64_t bytes) const {
    format::RecordHeader zeroed = header_at(lsn);
    zeroed.record_hash = 0;
    Hasher hasher;
    hasher.update(&zeroed, sizeof zeroed);
    for (std::uint64_t done = sizeof zeroed; done < bytes;) {
      const auto piece = at(lsn + done, bytes - done);
      hasher.update(piece.data(), piece.size());
      done += piece.size();
    }
    return hasher.digest();
  }

  const SimContent& image_;
  const format::Superblock superblock_;
  const format::StateSlot state_;
  format::CheckpointId expected_;
};

// Reads with chunks of so many blocks, without threads.
Seen read(std::size_t chunk_blocks, const SimContent& image) {
  const std::uint64_t file_bytes = image.size();
  Seen seen;
  auto file = LogFile::open(kImagePath, DeviceMode::kReadOnly, false, pool());
  if (!file) {
    seen.error = true;
    seen.code = file.error().code;
    return seen;
  }
  seen.block_bytes = file->superblock().block_bytes;
  seen.data_bytes = file->superblock().data_bytes;
  seen.incarnation = file->state().incarnation;
  seen.tail = file->state().tail_lsn;
  seen.stable = file->state().stable_lsn;
  const ReadAheadOptions way{.chunk_bytes = chunk_blocks * kBlock, .depth = 1, .threads = 0};
  std::uint64_t next_start = file->state().tail_lsn;
  std::uint64_t sequence = file->state().tail_predecessor.sequence;
  const RecoveryHandler keep = collect(seen);
  Judge judge(image, *file);
  const RecoveryHandler handler = [&](const RecoveredCheckpoint& checkpoint) {
    FUZZ_CHECK(checkpoint.start.value() == next_start);
    FUZZ_CHECK(checkpoint.sequence.value() == ++sequence);
    next_start += checkpoint.bytes.value();
    judge.accepted(checkpoint);
    seen.extents.push_back({checkpoint.start.value(), checkpoint.bytes.value(),
                            checkpoint.stable.value(), checkpoint.incarnation});
    return keep(checkpoint);
  };
  const auto result = scan(*file, handler, {}, way);
  if (!result) {
    seen.error = true;
    seen.code = result.error().code;
    return seen;
  }
  const RecoveryReport& report = result->report;
  FUZZ_CHECK(report.head.value() == next_start);
  FUZZ_CHECK(report.checkpoints == seen.checkpoints.size());
  FUZZ_CHECK((report.end == LogEnd::kDamaged) == (report.head < report.stable));
  FUZZ_CHECK(report.read.value() <= file_bytes);
  FUZZ_CHECK(result->hashed.value() <= 4 * file_bytes + 17 * format::kMaxRecordBytes);
  seen.head = next_start;
  seen.message = report.message();
  seen.end = report.end;
  return seen;
}

struct Flip {
  std::uint8_t which;
  std::uint32_t at;
  std::uint8_t how;
};

// A record that is not the last of its checkpoint gets a right hash again, if it does not wrap:
// what is left to notice is the checkpoint's hash. False: it is the last.
bool repair_inner_record(SimContent& image, const Seen& seen, std::uint64_t lsn,
                         std::uint64_t flipped) {
  const std::uint64_t data_at = 2 * seen.block_bytes;
  for (;;) {
    format::RecordHeader header;
    const std::size_t at = data_at + lsn % seen.data_bytes;
    std::memcpy(&header, image.data() + at, sizeof header);
    const std::uint64_t bytes =
        format::record_bytes(header.packed_bytes, header.bulk_blocks, seen.block_bytes);
    if (flipped >= lsn + bytes) {
      lsn += bytes;
      continue;
    }
    if (header.record_index + 1 == header.record_count || seen.block_bytes != kBlock ||
        at + bytes > data_at + seen.data_bytes) {
      return false;
    }
    image[data_at + flipped % seen.data_bytes] ^= std::byte{1};
    repair_record(image.data() + at, bytes);
    return true;
  }
}

// What vouches for checkpoint `k`, beside itself.
bool is_vouched_for(const Seen& seen, std::size_t k) {
  std::uint64_t vouched = seen.stable;
  for (std::size_t j = 0; j < seen.extents.size(); ++j) {
    const Extent& other = seen.extents[j];
    if (j != k && (j < k || other.incarnation == seen.incarnation)) {
      vouched = std::max(vouched, std::min(other.stable, other.start));
    }
  }
  return vouched > seen.extents[k].start;
}

// One bit of the data area is wrong. In a checkpoint: all before it is delivered as it was, and
// nothing from it on; of a real log (`real`) it is also said whether that is damage or may be a
// torn end. Elsewhere: the same is delivered.
void flip_one_bit(const SimContent& image, const Seen& seen, const Flip& flip, bool real) {
  if (seen.error) {
    return;
  }
  static auto& rotten = *new SimContent;
  rotten = image;
  const bool inside = !seen.extents.empty() && flip.how < 192;
  const std::uint64_t beyond = seen.data_bytes - (seen.head - seen.tail);
  if (!inside && beyond == 0) {
    return;
  }
  const std::size_t k = inside ? flip.which % seen.extents.size() : seen.extents.size();
  const std::uint64_t lsn = inside ? seen.extents[k].start + flip.at % seen.extents[k].bytes
                                   : seen.head + flip.at % beyond;
  const bool repaired =
      inside && flip.how >= 96 && repair_inner_record(rotten, seen, seen.extents[k].start, lsn);
  if (!repaired) {
    rotten[2 * seen.block_bytes + lsn % seen.data_bytes] ^=
        static_cast<std::byte>(1U << (flip.how % 8));
  }
  install(rotten);
  const Seen now = read(256, rotten);
  FUZZ_CHECK(!now.error && now.checkpoints.size() == k);
  FUZZ_CHECK(std::equal(now.checkpoints.begin(), now.checkpoints.end(), seen.checkpoints.begin()));
  if (real && inside && !repaired) {
    const bool damaged = now.end == LogEnd::kDamaged;
    // Behind a torn end a record may vouch that belongs to no checkpoint here.
    FUZZ_CHECK(is_vouched_for(seen, k) ? damaged : !damaged || seen.end == LogEnd::kTorn);
  }
  install(image);
}

// As an application opens it. Threads are at work here, so it is done for one input in eight.
void recover(const SimContent& image, const Seen& expected, bool salvage) {
  JournalConfig config;
  config.pool = &pool();
  config.salvage = salvage;
  config.stall_after_ns = UINT64_MAX;
  config.io_mode = IoMode::kSync;
  config.depth = 1;
  Seen seen;
  {
    auto journal = Journal::open(kImagePath, config, collect(seen));
    if (!journal) {
      const Errc code = journal.error().code;
      // A log may hold more open intents than there is room for.
      FUZZ_CHECK(is_an_answer(code) || code == Errc::kTooLarge || code == Errc::kLogFull);
      FUZZ_CHECK(was_only_read());
      FUZZ_CHECK(fuzz_disk().image(kImagePath) == image);
      FUZZ_CHECK(!expected.error || code == expected.code);
      return;
    }
    FUZZ_CHECK(!expected.error && (salvage || expected.end != LogEnd::kDamaged));
    FUZZ_CHECK(seen.checkpoints == expected.checkpoints);
    FUZZ_CHECK((*journal)->close().ok());
  }
  // What was accepted once is there again, and nothing is torn or damaged any more.
  const Seen again = read(256, fuzz_disk().image(kImagePath));
  FUZZ_CHECK(!again.error && again.end == LogEnd::kClean);
  FUZZ_CHECK(again.checkpoints == seen.checkpoints);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  (void)fuzz_disk();
  FuzzInput input(data, bytes);
  const std::uint8_t way = input.u8();
  const bool flips = way >= 160 && way < 224;
  Flip flip{};
  if (flips) {
    flip = {input.u8(), input.u32(), input.u8()};
  }
  const bool real = input.left() <= 1;  // a seed as it is
  const SimContent& image = build_image(input);
  install(image);
  const Seen seen = read(256, image);
  FUZZ_CHECK(!seen.error || is_an_answer(seen.code));
  FUZZ_CHECK(read(1 + way % 5, image) == seen);
  FUZZ_CHECK(was_only_read());
  if (flips) {
    flip_one_bit(image, seen, flip, real);
  }
  if (way >= 224) {
    recover(image, seen, way % 2 == 0);
  }
  return 0;
}

// Any log image -> a valid state or an error: the reader, its judgement of the end, and recovery as
// Journal::open() does it.
//
// Held against the input: what is delivered is a chain of checkpoints whose items are sound; the
// report agrees with it; however the log is cut into reads the answer is the same; work is bounded;
// an error, and reading, change nothing; what recovery has accepted it accepts again.
#include <string>
#include <vector>

#include "fuzz_log.h"
#include "keel/alloc/pool.h"
#include "keel/cil/journal.h"
#include "log/log_file.h"
#include "log/log_scan.h"

using namespace keel;
using namespace keel_fuzz;

namespace {

struct Seen {
  bool error = false;
  Errc code{};
  std::vector<std::uint64_t> checkpoints;  // a sum of each
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

// Reads with chunks of so many blocks, without threads.
Seen read(std::size_t chunk_blocks, std::uint64_t file_bytes) {
  Seen seen;
  auto file = LogFile::open(kImagePath, DeviceMode::kReadOnly, false, pool());
  if (!file) {
    seen.error = true;
    seen.code = file.error().code;
    return seen;
  }
  const ReadAheadOptions way{.chunk_bytes = chunk_blocks * kBlock, .depth = 1, .threads = 0};
  std::uint64_t next_start = file->state().tail_lsn;
  std::uint64_t sequence = file->state().tail_predecessor.sequence;
  const RecoveryHandler keep = collect(seen);
  const RecoveryHandler handler = [&](const RecoveredCheckpoint& checkpoint) {
    FUZZ_CHECK(checkpoint.start.value() == next_start);
    FUZZ_CHECK(checkpoint.sequence.value() == ++sequence);
    next_start += checkpoint.bytes.value();
    return keep(checkpoint);
  };
  const auto result = scan(*file, pool(), handler, {}, way);
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
  seen.message = report.message();
  seen.end = report.end;
  return seen;
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
  const Seen again = read(256, image.size());
  FUZZ_CHECK(!again.error && again.end == LogEnd::kClean);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  (void)fuzz_disk();
  FuzzInput input(data, bytes);
  const std::uint8_t way = input.u8();
  const SimContent& image = build_image(input);
  install(image);
  const Seen seen = read(256, image.size());
  FUZZ_CHECK(!seen.error || is_an_answer(seen.code));
  FUZZ_CHECK(read(1 + way % 5, image.size()) == seen);
  FUZZ_CHECK(was_only_read());
  if (way >= 224) {
    recover(image, seen, way % 2 == 0);
  }
  return 0;
}

// Rot, misplaced blocks, truncation and hostile files: the right content, or an error; never wrong
// data, never a crash.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "log/format.h"
#include "log/geometry.h"
#include "log/hash.h"
#include "probe.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBlock = 4096;
// Bytes between flips: every one where it matters, fewer under sanitizers.
#if defined(KEEL_TEST_SANITIZED)
constexpr std::size_t kHeaderStep = 5, kPayloadStep = 4001;
#else
constexpr std::size_t kHeaderStep = 1, kPayloadStep = 709;
#endif

// A log with checkpoints of several kinds, as a close and as a kill leave it.
struct Specimen {
  SimContent image;
  Found expected;
  std::vector<std::uint64_t> starts;  // LSNs of the checkpoints, then the end
};

Specimen make_specimen(bool closed) {
  Specimen specimen;
  LogWorld world;
  Trace trace;
  std::vector<std::unique_ptr<Probe>> items;
  auto journal = world.open();
  for (std::uint32_t i = 0; i < 6; ++i) {
    items.push_back(std::make_unique<Probe>(trace, i));
    // Small ones, one of two records, and one with bulk blocks.
    const std::size_t regions = i == 2 ? 30 : 2;
    const std::size_t bytes = i == 4 ? 50000 : i == 2 ? 4000 : 700 * i;
    for (std::size_t r = 0; r < regions; ++r) {
      items.back()->regions.push_back(random_bytes(i * 100 + r, bytes));
    }
    specimen.starts.push_back(journal->stats().log_used.value());
    REQUIRE(journal->force(commit(*journal, {items.back().get()}, 120000)).ok());
  }
  specimen.starts.push_back(journal->stats().log_used.value());
  if (closed) {
    finish(journal);
    specimen.image = world.disk.image(kLogPath);
    return specimen;
  }
  specimen.image = world.disk.image(kLogPath);
  finish(journal);
  return specimen;
}

Specimen complete(Specimen specimen) {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, specimen.image);
  const auto report = scan_log(kLogPath, collect_into(specimen.expected));
  REQUIRE(report.ok());
  REQUIRE(report->end == LogEnd::kClean);
  REQUIRE(specimen.expected.size() == 6);
  return specimen;
}

const Specimen& closed_log() {
  static const Specimen specimen = complete(make_specimen(true));
  return specimen;
}
const Specimen& killed_log() {
  static const Specimen specimen = complete(make_specimen(false));
  return specimen;
}

std::size_t offset_of(std::uint64_t lsn) { return 2 * kBlock + lsn; }

enum class Verdict : std::uint8_t { kWhole, kLastLost, kDamaged, kError };

// Opens what is on the disk and checks that nothing wrong is delivered. Of a killed log at most the
// last `may_lose` checkpoints may be taken for torn.
Verdict judge(SimDisk& disk, const Specimen& specimen, std::size_t may_lose = 1) {
  Found found;
  const auto report = scan_log(kLogPath, collect_into(found));
  REQUIRE(found.size() <= specimen.expected.size());
  REQUIRE(std::equal(found.begin(), found.end(), specimen.expected.begin()));
  const SimContent before = disk.image(kLogPath);
  if (!report.ok()) {
    const Errc code = report.error().code;
    CHECK((code == Errc::kDamaged || code == Errc::kNotALog || code == Errc::kBadVersion));
    const auto opened = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code == code);
    CHECK(disk.image(kLogPath) == before);
    return Verdict::kError;
  }
  if (report->end == LogEnd::kDamaged) {
    CHECK(report->head.value() == specimen.starts[found.size()]);
    CHECK(report->head < report->stable);
    const auto opened = Journal::open(kLogPath, {}, kIgnore);
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code == Errc::kDamaged);
    CHECK(opened.error().value == report->head.value());
    CHECK(disk.image(kLogPath) == before);
    return Verdict::kDamaged;
  }
  if (found.size() == specimen.expected.size()) {
    return Verdict::kWhole;
  }
  CHECK(found.size() + may_lose >= specimen.expected.size());
  CHECK(&specimen != &closed_log());
  return Verdict::kLastLost;
}

// Every byte of the range, one bit at a time; `step` bytes apart.
void flip_all(const Specimen& specimen, std::size_t from, std::size_t bytes, std::size_t step,
              const std::function<void(Verdict, std::size_t)>& check) {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, specimen.image);
  for (std::size_t at = 0; at < bytes; at += step) {
    CAPTURE(from + at);
    const auto bit = static_cast<unsigned>((from + at) * 5 % 8);
    disk.flip_bit(kLogPath, from + at, bit);
    check(judge(disk, specimen), at);
    disk.flip_bit(kLogPath, from + at, bit);
  }
}

}  // namespace

TEST_CASE("one rotted superblock or state slot is made up for by its copy, two are an error") {
  for (const Specimen* specimen : {&closed_log(), &killed_log()}) {
    const std::size_t end = specimen->image.size();
    for (const auto& [offset, bytes] : std::vector<std::pair<std::size_t, std::size_t>>{
             {0, 80}, {end - kBlock, 80}, {kBlock, 120}, {end - 2 * kBlock, 120}}) {
      flip_all(*specimen, offset, bytes, 1,
               [](Verdict verdict, std::size_t) { CHECK(verdict == Verdict::kWhole); });
    }
    SimDisk disk;
    const ScopedOs scope(disk);
    for (const std::size_t first : {std::size_t{0}, kBlock}) {
      disk.set_image(kLogPath, specimen->image);
      disk.flip_bit(kLogPath, first + 20, 1);
      disk.flip_bit(kLogPath, first == 0 ? end - kBlock + 20 : end - 2 * kBlock + 20, 1);
      CHECK(judge(disk, *specimen) == Verdict::kError);
    }
  }
}

TEST_CASE("a log whose file has grown has but its first superblock, until it is cut back") {
  const Specimen& specimen = closed_log();
  SimDisk disk;
  const ScopedOs scope(disk);
  SimContent grown = specimen.image;
  grown.resize(grown.size() + 2 * kBlock);
  disk.set_image(kLogPath, grown);
  CHECK(judge(disk, specimen) == Verdict::kWhole);
  CHECK(read_log_info(kLogPath)->file == Bytes(specimen.image.size()));
  disk.flip_bit(kLogPath, 20, 1);
  const auto none = read_log_info(kLogPath);
  REQUIRE_FALSE(none.ok());
  CHECK(none.error().code == Errc::kNotALog);
  CHECK(none.error().message().find("nor in the last one") != std::string::npos);
  SimContent cut = disk.image(kLogPath);
  cut.resize(specimen.image.size());
  disk.set_image(kLogPath, cut);
  CHECK(judge(disk, specimen) == Verdict::kWhole);
  CHECK(read_log_info(kLogPath)->valid_superblocks == 1);
}

TEST_CASE("rot in a closed log is damage, wherever it is") {
  const Specimen& specimen = closed_log();
  for (std::size_t i = 0; i + 1 < specimen.starts.size(); ++i) {
    CAPTURE(i);
    const std::size_t bytes = specimen.starts[i + 1] - specimen.starts[i];
    const auto damaged = [](Verdict verdict, std::size_t) { CHECK(verdict == Verdict::kDamaged); };
    flip_all(specimen, offset_of(specimen.starts[i]), 152, kHeaderStep, damaged);
    flip_all(specimen, offset_of(specimen.starts[i]) + 152, bytes - 152, kPayloadStep, damaged);
  }
}

TEST_CASE("rot in a killed log is damage below what a later record vouches for") {
  const Specimen& specimen = killed_log();
  for (std::size_t i = 0; i + 1 < specimen.starts.size(); ++i) {
    CAPTURE(i);
    const std::size_t bytes = specimen.starts[i + 1] - specimen.starts[i];
    const bool last = i + 2 == specimen.starts.size();
    const auto expected = [last](Verdict verdict, std::size_t) {
      CHECK(verdict == (last ? Verdict::kLastLost : Verdict::kDamaged));
    };
    flip_all(specimen, offset_of(specimen.starts[i]), 152, kHeaderStep, expected);
    flip_all(specimen, offset_of(specimen.starts[i]) + 152, bytes - 152, kPayloadStep, expected);
  }
}

TEST_CASE("a witness beyond the damage vouches even if the checkpoint after it is gone too") {
  const Specimen& specimen = killed_log();
  SimDisk disk;
  const ScopedOs scope(disk);
  // Checkpoints 1 to 4 rot; 5 stands and says that all before it was stable.
  for (std::size_t first = 0; first < 5; ++first) {
    disk.set_image(kLogPath, specimen.image);
    for (std::size_t i = first; i < 5; ++i) {
      disk.flip_bit(kLogPath, offset_of(specimen.starts[i]) + 200, 3);
    }
    CHECK(judge(disk, specimen) == Verdict::kDamaged);
  }
}

TEST_CASE("salvage goes on before the damage, and what it drops never comes back") {
  const Specimen& specimen = killed_log();
  SimDisk disk, copy;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, specimen.image);
  disk.flip_bit(kLogPath, offset_of(specimen.starts[3]) + 200, 3);
  Trace trace;
  Probe item(trace, 90);
  // As large as the lost one, so that the checkpoint after it would follow.
  item.regions = {random_bytes(1, 2100), random_bytes(2, 2100)};
  {
    Found found;
    auto journal = Journal::open(kLogPath, {.salvage = true}, collect_into(found));
    REQUIRE(journal.ok());
    CHECK(found == Found(specimen.expected.begin(), specimen.expected.begin() + 3));
    CHECK((*journal)->recovery().end == LogEnd::kDamaged);
    const Sequence sequence = commit(**journal, {&item}, 5000);
    CHECK(sequence == Sequence(4));
    REQUIRE((*journal)->force(sequence).ok());
    const SimContent killed = disk.image(kLogPath);
    copy.set_image(kLogPath, killed);
    const ScopedOs other(copy);
    Found again;
    const auto report = scan_log(kLogPath, collect_into(again));
    REQUIRE(report.ok());
    CHECK(report->end == LogEnd::kClean);
    REQUIRE(again.size() == 4);
    CHECK(again[3] == FoundCheckpoint{4, {{106, item.regions}}});
    // The journal below goes on under its own disk.
  }
}

TEST_CASE("what a salvage dropped is gone for good, though it can be read again") {
  const Specimen& specimen = killed_log();
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, specimen.image);
  // Rot that comes and goes, as a failing cable makes it.
  disk.flip_bit(kLogPath, offset_of(specimen.starts[3]) + 200, 3);
  CHECK(Journal::open(kLogPath, {.salvage = true}, kIgnore).ok());
  disk.flip_bit(kLogPath, offset_of(specimen.starts[3]) + 200, 3);
  SimContent closed = disk.image(kLogPath);
  // Also if the journal that salvaged did not come to close in order.
  for (const std::size_t slot : {kBlock, closed.size() - 2 * kBlock}) {
    format::StateSlot state;
    std::memcpy(&state, closed.data() + slot, sizeof state);
    state.flags = 0;
    state.hash = 0;
    state.hash = hash64(&state, sizeof state);
    std::memcpy(closed.data() + slot, &state, sizeof state);
  }
  disk.set_image(kLogPath, closed);
  Found found;
  const auto report = scan_log(kLogPath, collect_into(found));
  REQUIRE(report.ok());
  CHECK(report->end != LogEnd::kDamaged);
  CHECK(found == Found(specimen.expected.begin(), specimen.expected.begin() + 3));
}

TEST_CASE("an old checkpoint back in its place is damage: the chain names what came before it") {
  const Specimen& specimen = killed_log();
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, specimen.image);
  disk.flip_bit(kLogPath, offset_of(specimen.starts[3]) + 200, 3);
  Trace trace;
  // Checkpoints 4 and 5 once more, by two other incarnations, of the same lengths.
  for (std::uint32_t i = 3; i < 5; ++i) {
    Probe item(trace, 90 + i);
    const std::size_t bytes = i == 4 ? 50000 : 700 * i;
    item.regions = {random_bytes(1000 + i, bytes), random_bytes(2000 + i, bytes)};
    auto journal = Journal::open(kLogPath, {.salvage = true}, kIgnore);
    REQUIRE(journal.ok());
    REQUIRE((*journal)->force(commit(**journal, {&item}, 120000)).ok());
    REQUIRE((*journal)->stats().log_used.value() == specimen.starts[i + 1]);
    // What holds the tail: recovered checkpoints stay.
    REQUIRE((*journal)->close().ok());
  }
  CHECK(Journal::open(kLogPath, {}, kIgnore).ok());
  Found found;
  REQUIRE(scan_log(kLogPath, collect_into(found)).ok());
  REQUIRE(found.size() == 5);
  SimContent image = disk.image(kLogPath);
  std::copy(specimen.image.begin() + static_cast<std::ptrdiff_t>(offset_of(specimen.starts[4])),
            specimen.image.begin() + static_cast<std::ptrdiff_t>(offset_of(specimen.starts[5])),
            image.begin() + static_cast<std::ptrdiff_t>(offset_of(specimen.starts[4])));
  disk.set_image(kLogPath, image);
  found.clear();
  const auto report = scan_log(kLogPath, collect_into(found));
  REQUIRE(report.ok());
  CHECK(report->end == LogEnd::kDamaged);
  CHECK(found.size() == 4);
}

TEST_CASE("blocks that are swapped, doubled, misplaced or zeroed are never delivered") {
  std::uint64_t random = test_seed("blocks", 31);
  for (const Specimen* specimen : {&closed_log(), &killed_log()}) {
    SimDisk disk;
    const ScopedOs scope(disk);
    const std::size_t used = specimen->starts.back() / kBlock;
    for (std::uint64_t round = 0; round < test_rounds(300, 60); ++round) {
      SimContent image = specimen->image;
      const std::size_t all = image.size() / kBlock;
      const std::size_t a = 2 + sim_random(random) % used;
      const std::size_t b =
          round % 3 == 0 ? sim_random(random) % all : 2 + sim_random(random) % used;
      auto* first = image.data() + a * kBlock;
      auto* second = image.data() + b * kBlock;
      switch (sim_random(random) % 4) {
        case 0: std::swap_ranges(first, first + kBlock, second); break;
        case 1: std::copy_n(second, kBlock, first); break;
        case 2: std::fill_n(first, kBlock, std::byte{0}); break;
        default: std::copy_n(first, kBlock / 8, second + 512); break;
      }
      const bool changed = image != specimen->image;
      disk.set_image(kLogPath, image);
      // Two blocks: also the one that vouches may be hit.
      const Verdict verdict = judge(disk, *specimen, 2);
      if (changed && specimen == &closed_log() && a - 2 < used) {
        CHECK((verdict == Verdict::kDamaged || verdict == Verdict::kWhole));
      }
    }
  }
}

TEST_CASE("a lost write of a whole checkpoint, and one of an earlier lap in its place, are seen") {
  const Specimen& specimen = killed_log();
  SimDisk disk;
  const ScopedOs scope(disk);
  for (std::size_t i = 0; i + 2 < specimen.starts.size(); ++i) {
    SimContent image = specimen.image;
    std::fill(image.begin() + static_cast<std::ptrdiff_t>(offset_of(specimen.starts[i])),
              image.begin() + static_cast<std::ptrdiff_t>(offset_of(specimen.starts[i + 1])),
              std::byte{0});
    disk.set_image(kLogPath, image);
    CHECK(judge(disk, specimen) == Verdict::kDamaged);
  }
}

TEST_CASE("a truncated file is refused at every length") {
  SimDisk disk;
  const ScopedOs scope(disk);
  for (std::size_t bytes = 0; bytes < closed_log().image.size(); bytes += kBlock) {
    CAPTURE(bytes);
    SimContent image = closed_log().image;
    image.resize(bytes);
    disk.set_image(kLogPath, image);
    CHECK(judge(disk, closed_log()) == Verdict::kError);
  }
  // A longer one still holds the log.
  SimContent image = closed_log().image;
  image.resize(image.size() + 3 * kBlock);
  disk.set_image(kLogPath, image);
  CHECK(judge(disk, closed_log()) == Verdict::kWhole);
}

TEST_CASE("files of garbage are not logs") {
  std::uint64_t random = test_seed("garbage", 32);
  SimDisk disk;
  const ScopedOs scope(disk);
  for (int round = 0; round < 60; ++round) {
    const std::string bytes = random_bytes(random + 1, sim_random(random) % (3U << 20));
    SimContent image(bytes.size());
    std::memcpy(image.data(), bytes.data(), bytes.size());
    if (round % 2 == 1 && image.size() > 100000) {
      // With the metadata of a real one.
      std::copy_n(closed_log().image.begin(), 2 * kBlock, image.begin());
    }
    disk.set_image(kLogPath, image);
    const auto report = scan_log(kLogPath, kIgnore);
    CHECK((!report.ok() || report->checkpoints == 0));
    const auto opened = Journal::open(kLogPath, {}, kIgnore);
    if (!opened.ok()) {
      CHECK((opened.error().code == Errc::kNotALog || opened.error().code == Errc::kDamaged));
    }
  }
}

TEST_CASE(
    "the state of another log, and an older state of this one, are not taken for the newest") {
  const Specimen& specimen = closed_log();
  const std::size_t slots[] = {kBlock, specimen.image.size() - 2 * kBlock};
  SimDisk disk({.seed = 77});
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  const SimContent other = disk.image(kLogPath);
  const auto put_slot = [&](SimContent& image, const SimContent& from, std::size_t slot) {
    std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(slot), kBlock,
                image.begin() + static_cast<std::ptrdiff_t>(slot));
  };
  SimContent both = specimen.image;
  for (const std::size_t slot : slots) {
    SimContent image = specimen.image;
    put_slot(image, other, slot);
    put_slot(both, other, slot);
    disk.set_image(kLogPath, image);
    CHECK(judge(disk, specimen) == Verdict::kWhole);
  }
  disk.set_image(kLogPath, both);
  CHECK(judge(disk, specimen) == Verdict::kError);
  // A lost write of one slot leaves an older state there.
  for (const std::size_t slot : slots) {
    SimContent image = specimen.image;
    put_slot(image, killed_log().image, slot);  // as good as any older state of another life
    format::StateSlot state;
    std::memcpy(&state, specimen.image.data() + slot, sizeof state);
    state.generation -= 1;
    state.tail_lsn = state.stable_lsn = 0;
    state.tail_predecessor = {};
    state.flags = format::kStateClean;
    state.hash = 0;
    state.hash = hash64(&state, sizeof state);
    std::memcpy(image.data() + slot, &state, sizeof state);
    disk.set_image(kLogPath, image);
    CHECK(judge(disk, specimen) == Verdict::kWhole);
  }
}

TEST_CASE("the report says how the log ended and how far it is known to be stable") {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.set_image(kLogPath, closed_log().image);
  auto report = scan_log(kLogPath, kIgnore);
  REQUIRE(report.ok());
  CHECK(std::string(report->reason) == "closed in order");
  CHECK(report->stable == report->head);
  CHECK(report->head.value() == closed_log().starts.back());
  CHECK(report->last_sequence == Sequence(6));
  // Killed: the last checkpoint vouches for all before it.
  disk.set_image(kLogPath, killed_log().image);
  report = scan_log(kLogPath, kIgnore);
  REQUIRE(report.ok());
  CHECK(report->head.value() == killed_log().starts[6]);
  CHECK(report->stable.value() == killed_log().starts[5]);
}

TEST_CASE("another version is told from garbage") {
  SimDisk disk;
  const ScopedOs scope(disk);
  SimContent image = closed_log().image;
  for (const std::size_t offset : {std::size_t{0}, image.size() - kBlock}) {
    format::Superblock superblock;
    std::memcpy(&superblock, image.data() + offset, sizeof superblock);
    superblock.version = 2;
    superblock.hash = 0;
    superblock.hash = hash64(&superblock, sizeof superblock);
    std::memcpy(image.data() + offset, &superblock, sizeof superblock);
  }
  disk.set_image(kLogPath, image);
  const auto opened = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE_FALSE(opened.ok());
  CHECK(opened.error().code == Errc::kBadVersion);
}

namespace {

std::uint64_t hostile_value(std::uint64_t& random, std::uint64_t before) {
  const std::uint64_t draw = sim_random(random);
  switch (draw % 12) {
    case 0: return 0;
    case 1: return 1;
    case 2: return UINT64_MAX;
    case 3: return UINT32_MAX;
    case 4: return before + 1;
    case 5: return before - 1;
    case 6: return before + kBlock;
    case 7: return before - kBlock;
    case 8: return before * 2;
    case 9: return std::uint64_t{1} << (draw / 16 % 64);
    case 10: return draw;
    default: return draw / 16 % 300;
  }
}

// Changes one field of `width` bytes at `place`.
void mutate(std::uint64_t& random, std::byte* place, std::size_t width) {
  std::uint64_t value = 0;
  std::memcpy(&value, place, width);
  value = hostile_value(random, value);
  std::memcpy(place, &value, width);
}

template <class Struct>
void repair(std::byte* place) {
  Struct value;
  std::memcpy(&value, place, sizeof value);
  value.hash = 0;
  value.hash = hash64(&value, sizeof value);
  std::memcpy(place, &value, sizeof value);
}

// Makes all hashes of the checkpoint at `offset` right again, as far as its lengths make sense.
void repair_checkpoint(SimContent& image, std::size_t offset) {
  Hasher record_hashes;
  format::RecordHeader header{};
  do {
    std::memcpy(&header, image.data() + offset, sizeof header);
    const std::uint64_t bytes =
        round_up(sizeof header + std::uint64_t{header.packed_bytes}, kBlock) +
        std::uint64_t{header.bulk_blocks} * kBlock;
    if (header.magic != format::kRecordMagic || bytes > image.size() - offset) {
      return;
    }
    const bool last = header.record_index + 1 == header.record_count;
    header.checkpoint_hash = last ? record_hashes.digest() : 0;
    header.record_hash = 0;
    std::memcpy(image.data() + offset, &header, sizeof header);
    header.record_hash = hash64(image.data() + offset, bytes);
    std::memcpy(image.data() + offset, &header, sizeof header);
    record_hashes.update(&header.record_hash, sizeof header.record_hash);
    offset += bytes;
  } while (header.record_index + 1 < header.record_count && offset + kBlock <= image.size());
}

}  // namespace

TEST_CASE("a hostile log with right hashes is an error or a log that works, never a crash") {
  std::uint64_t random = test_seed("hostile", 33);
  auto pool = Pool::create({.capacity_bytes = 32U << 20, .background = false});
  REQUIRE(pool.ok());
  std::uint64_t opened_count = 0, refused = 0;
  for (std::uint64_t round = 0; round < test_rounds(6000, 400); ++round) {
    CAPTURE(round);
    const Specimen& specimen = round % 2 == 0 ? closed_log() : killed_log();
    SimContent image = specimen.image;
    const std::size_t end = image.size();
    const std::uint64_t changes = 1 + sim_random(random) % 3;
    for (std::uint64_t i = 0; i < changes; ++i) {
      const std::uint64_t draw = sim_random(random);
      const std::size_t which = draw / 8 % (specimen.starts.size() - 1);
      const std::size_t record = offset_of(specimen.starts[which]);
      switch (draw % 4) {
        case 0:  // a superblock, both copies alike
          mutate(random, image.data() + 8 + draw / 64 % 8 * 8, draw % 8 < 4 ? 8 : 4);
          repair<format::Superblock>(image.data());
          if (draw / 4096 % 4 != 0) {
            std::copy_n(image.data(), 80, image.data() + end - kBlock);
          }
          break;
        case 1:  // a state slot
          mutate(random, image.data() + kBlock + 32 + draw / 64 % 10 * 8, 8);
          repair<format::StateSlot>(image.data() + kBlock);
          if (draw / 4096 % 4 != 0) {
            std::copy_n(image.data() + kBlock, 120, image.data() + end - 2 * kBlock);
          }
          break;
        case 2:  // a record header
          mutate(random, image.data() + record + 32 + draw / 64 % 26 * 4, draw % 8 < 4 ? 8 : 4);
          break;
        default:  // item and region headers stand in 8-byte units
          mutate(random, image.data() + record + 152 + draw / 64 % 40 * 4, 4);
          break;
      }
      repair_checkpoint(image, record);
    }
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.set_image(kLogPath, image);
    Found found;
    auto journal = Journal::open(kLogPath, {.pool = pool->get(), .salvage = round % 3 == 0},
                                 collect_into(found));
    if (!journal.ok()) {
      ++refused;
      const Errc code = journal.error().code;
      CHECK((code == Errc::kDamaged || code == Errc::kNotALog || code == Errc::kBadVersion ||
             code == Errc::kUnsupported));
      CHECK(disk.image(kLogPath) == image);
      continue;
    }
    ++opened_count;
    Trace trace;
    Probe item(trace, 50);
    item.regions = {"works"};
    auto transaction = (*journal)->begin(100, 1);
    if (transaction) {
      REQUIRE(transaction->log(item).ok());
      const auto sequence = transaction->commit();
      REQUIRE(sequence.ok());
      REQUIRE((*journal)->force(*sequence).ok());
      (*journal)->audit();
    } else {
      CHECK((transaction.error().code == Errc::kLogFull ||
             transaction.error().code == Errc::kTooLarge));
    }
    REQUIRE((*journal)->close().ok());
    const bool committed = transaction.ok();
    journal->reset();
    Found again;
    const auto report = scan_log(kLogPath, collect_into(again));
    REQUIRE(report.ok());
    if (committed) {
      REQUIRE_FALSE(again.empty());
      CHECK(again.back().items == std::vector<FoundItem>{{66, {"works"}}});
    }
  }
  (void)std::printf("hostile: %llu logs opened, %llu refused\n",
                    static_cast<unsigned long long>(opened_count),
                    static_cast<unsigned long long>(refused));
  CHECK(opened_count > 100 * test_rounds(1, 0));
  CHECK(refused > 100);
  CHECK((*pool)->stats().live == Bytes(0));
}

#include "fuzz_log.h"

#include <array>
#include <memory>
#include <utility>

#include "keel/cil/intent_item.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "keel/cil/range_item.h"
#include "log/geometry.h"
#include "log/hash.h"

namespace keel_fuzz {
namespace {

using keel::SimContent;
namespace format = keel::format;

constexpr std::size_t kMostBytes = std::size_t{2} << 20;

template <class Struct>
Struct read_at(const SimContent& image, std::size_t at) {
  Struct value{};
  if (at + sizeof value <= image.size()) {
    std::memcpy(&value, image.data() + at, sizeof value);
  }
  return value;
}

template <class Struct>
void write_at(SimContent& image, std::size_t at, const Struct& value) {
  if (at + sizeof value <= image.size()) {
    std::memcpy(image.data() + at, &value, sizeof value);
  }
}

std::size_t superblock_at(const SimContent& image, unsigned copy) {
  return copy % 2 == 0 || image.size() < kBlock ? 0 : image.size() / kBlock * kBlock - kBlock;
}
std::size_t state_at(const SimContent& image, unsigned slot) {
  return slot % 2 == 0 || image.size() < 2 * kBlock ? kBlock
                                                    : image.size() / kBlock * kBlock - 2 * kBlock;
}

std::uint64_t record_bytes_of(const format::RecordHeader& header) {
  return format::record_bytes(header.packed_bytes, header.bulk_blocks, kBlock);
}

bool looks_like_a_record(const SimContent& image, std::size_t at) {
  const auto header = read_at<format::RecordHeader>(image, at);
  return header.magic == format::kRecordMagic;
}

// Where records stand, in the file's order.
std::vector<std::size_t> records_of(const SimContent& image) {
  std::vector<std::size_t> found;
  for (std::size_t at = 0; at + kBlock <= image.size(); at += kBlock) {
    if (looks_like_a_record(image, at)) {
      found.push_back(at);
    }
  }
  return found;
}

// A client's item of any regions.
class PlainItem : public keel::LogItem {
 public:
  explicit PlainItem(std::uint32_t type) : LogItem(type) {}
  std::vector<std::string> regions;

 protected:
  void size(keel::ItemSize& size) const override {
    for (const std::string& region : regions) {
      size.region(region.size());
    }
  }
  void format(keel::ItemFormatter& formatter) const override {
    for (const std::string& region : regions) {
      formatter.copy(region.data(), region.size());
    }
  }
};

void must(bool ok, int line = __builtin_LINE()) {
  if (!ok) {
    (void)std::fprintf(stderr, "the seed logs cannot be made: line %d\n", line);
    std::abort();
  }
}

// Writes `laps` rounds of items of every sort, each stable before the next; takes the image before
// the close (a kill) or after it. `small` regions more make checkpoints of several records.
SimContent make_seed(std::uint64_t laps, std::size_t bytes, bool closed, std::size_t small = 0) {
  keel::SimDisk& disk = fuzz_disk();
  if (disk.exists(kImagePath)) {
    must(disk.unlink(kImagePath) == 0);
  }
  must(keel::create_log(kImagePath, {.size = keel::kMinLogBytes}).ok());
  const auto ignore = [](const keel::RecoveredCheckpoint&) { return keel::Status{}; };
  keel::JournalConfig config;
  config.stall_after_ns = UINT64_MAX;
  config.io_mode = keel::IoMode::kSync;
  std::string content(bytes, 'o'), memory(4096, 'm');
  keel::ObjectItem whole(1), part(2), erased(3);
  PlainItem plain(17), many(18);
  auto range = keel::RangeItem::create(4, memory.data(), memory.size());
  must(range.ok());
  const std::string payload = "payload";
  keel::IntentItem intent(5, std::as_bytes(std::span(payload)));
  auto opened = keel::Journal::open(kImagePath, config, ignore);
  must(opened.ok());
  keel::Journal& journal = **opened;
  part.attach(std::as_bytes(std::span(content)));
  SimContent killed;
  for (std::uint64_t lap = 0; lap < laps; ++lap) {
    whole.set(content.data(), content.size() - lap % 7);
    part.mark(lap % 100, 30);
    part.mark(bytes / 2, 10);
    erased.erase();
    plain.regions = {std::string(lap % 50, 'p'), "", std::string(5000, 'q')};
    many.regions.assign(5 + lap % 3, std::string(17, 's'));
    many.regions.insert(many.regions.end(), small, std::string(4000, 't'));
    (*range)->mark(lap * 128 % 4096, 64);
    auto transaction = journal.begin(bytes + 45000 + small * 4100, 8, lap == 0 ? 1 : 0);
    must(transaction.ok());
    for (keel::LogItem* item :
         {static_cast<keel::LogItem*>(&whole), static_cast<keel::LogItem*>(&part),
          static_cast<keel::LogItem*>(&erased), static_cast<keel::LogItem*>(&plain),
          static_cast<keel::LogItem*>(&many), static_cast<keel::LogItem*>(range->get())}) {
      must(transaction->log(*item).ok());
    }
    if (lap == 0) {
      must(transaction->log(intent).ok());
    }
    const auto sequence = transaction->commit();
    must(sequence.ok() && journal.force(*sequence).ok());
    for (keel::LogItem* item :
         {static_cast<keel::LogItem*>(&whole), static_cast<keel::LogItem*>(&part),
          static_cast<keel::LogItem*>(&erased), static_cast<keel::LogItem*>(&plain),
          static_cast<keel::LogItem*>(&many), static_cast<keel::LogItem*>(range->get())}) {
      if (lap % 4 == 3) {
        (void)journal.release(*item);
      }
    }
  }
  if (!closed) {
    killed = disk.image(kImagePath);
  }
  keel::DoneItem done(intent);
  {
    auto last = journal.begin_done(intent);
    must(last.ok() && last->log(done).ok());
    const auto sequence = last->commit();
    must(sequence.ok() && journal.force(*sequence).ok());
  }
  must(journal.close().ok());
  opened->reset();
  return closed ? disk.image(kImagePath) : killed;
}

// The last record that was written loses its end.
SimContent torn(SimContent image) {
  std::size_t newest = 0;
  std::uint64_t lsn = 0;
  for (const std::size_t at : records_of(image)) {
    const auto header = read_at<format::RecordHeader>(image, at);
    if (header.lsn >= lsn) {
      lsn = header.lsn;
      newest = at;
    }
  }
  must(newest != 0);
  image[newest + sizeof(format::RecordHeader) + 8] ^= std::byte{1};
  return image;
}

// One of the 64-bit values that code trips over, or one near what is there.
std::uint64_t value_like(FuzzInput& input, std::uint64_t now) {
  switch (input.u8() % 8) {
    case 0: return input.u64();
    case 1:
      return now + static_cast<std::uint64_t>(std::int64_t{static_cast<std::int8_t>(input.u8())});
    case 2:
      return now + std::uint64_t{kBlock} * static_cast<std::uint64_t>(
                                               std::int64_t{static_cast<std::int8_t>(input.u8())});
    case 3: return std::uint64_t{kBlock} * input.u16();
    case 4: {
      constexpr std::array<std::uint64_t, 12> kOdd{0,
                                                   1,
                                                   UINT64_MAX,
                                                   UINT64_MAX - 1,
                                                   std::uint64_t{1} << 62,
                                                   (std::uint64_t{1} << 62) - 1,
                                                   std::uint64_t{1} << 63,
                                                   UINT32_MAX,
                                                   std::uint64_t{1} << 32,
                                                   UINT64_MAX - kBlock + 1,
                                                   65536,
                                                   65384};
      return kOdd[input.u8() % kOdd.size()];
    }
    case 5: return input.u8();
    case 6: return now ^ (std::uint64_t{1} << (input.u8() % 64));
    default: return now * input.u8();
  }
}

void change_struct(FuzzInput& input, SimContent& image, std::size_t at, std::size_t bytes) {
  if (at + bytes <= image.size()) {
    change_field(input, image.data() + at, bytes);
  }
}

// A record of the input's bytes at a block, of the newest incarnation.
void add_record(FuzzInput& input, SimContent& image) {
  const auto state = read_at<format::StateSlot>(image, state_at(image, 0));
  const auto superblock = read_at<format::Superblock>(image, 0);
  format::RecordHeader header{};
  header.magic = format::kRecordMagic;
  header.version = format::kVersion;
  header.header_bytes = sizeof header;
  header.uuid = superblock.uuid;
  header.incarnation = state.incarnation;
  header.predecessor = state.tail_predecessor;
  header.sequence = header.predecessor.sequence + 1 + input.u8() % 4;
  const std::uint64_t lsn = state.tail_lsn + std::uint64_t{kBlock} * input.u8();
  header.lsn = lsn;
  header.stable_lsn = state.stable_lsn + std::uint64_t{kBlock} * (input.u8() % 8);
  header.tail_lsn = state.tail_lsn;
  header.record_count = 1 + input.u8() % 2;
  header.record_index = input.u8() % header.record_count;
  header.bulk_blocks = input.u8() % 4;
  header.item_count = 1 + input.u8() % 4;
  const auto packed = input.bytes(input.u8() * std::size_t{8});
  header.packed_bytes = static_cast<std::uint32_t>(packed.size());
  header.checkpoint_bytes = record_bytes_of(header) * header.record_count;
  if (superblock.data_bytes == 0) {
    return;
  }
  const std::size_t at = 2 * kBlock + lsn % superblock.data_bytes;
  if (at >= image.size() || record_bytes_of(header) > image.size() - at) {
    return;
  }
  std::memset(image.data() + at, 0, record_bytes_of(header));
  std::memcpy(image.data() + at, &header, sizeof header);
  if (!packed.empty()) {
    std::memcpy(image.data() + at + sizeof header, packed.data(), packed.size());
  }
  repair_record(image.data() + at, image.size() - at);
}

void poke(FuzzInput& input, SimContent& image, std::size_t at) {
  for (const std::uint8_t byte : input.bytes(1 + input.u8() % 16)) {
    if (at < image.size()) {
      image[at++] = std::byte{byte};
    }
  }
}

void copy_blocks(FuzzInput& input, SimContent& image) {
  const std::size_t from = std::size_t{input.u16()} % (image.size() / kBlock + 1) * kBlock;
  const std::size_t to = std::size_t{input.u16()} % (image.size() / kBlock + 1) * kBlock;
  const std::size_t bytes = std::min(
      {(1 + std::size_t{input.u8()} % 32) * kBlock, image.size() - from, image.size() - to});
  if (bytes > 0) {
    std::memmove(image.data() + to, image.data() + from, bytes);
  }
}

void one_change(FuzzInput& input, SimContent& image) {
  const auto records = records_of(image);
  const auto record = [&]() -> std::size_t {
    const std::uint8_t which = input.u8();
    return records.empty() ? 0 : records[which % records.size()];
  };
  switch (input.u8() % 14) {
    case 0: return poke(input, image, input.u32() % (image.size() + 1));
    case 1: {
      const std::size_t at = record();
      return poke(input, image, at + input.u16());
    }
    case 2:
    case 3: return change_struct(input, image, record(), sizeof(format::RecordHeader));
    case 4:
      return change_struct(input, image, state_at(image, input.u8()), sizeof(format::StateSlot));
    case 5:
      return change_struct(input, image, superblock_at(image, input.u8()),
                           sizeof(format::Superblock));
    case 6: {
      const std::size_t at = std::size_t{input.u16()} * kBlock;
      const std::size_t bytes = std::size_t{input.u8()} * kBlock;
      if (at < image.size()) {
        std::memset(image.data() + at, input.u8() % 2 == 0 ? 0 : 0xa5,
                    std::min(bytes, image.size() - at));
      }
      return;
    }
    case 7: return copy_blocks(input, image);
    case 8: return image.resize(input.u32() % kMostBytes);
    case 9: return add_record(input, image);
    case 10: return repair_records(image);
    case 11: return repair_states(image);
    case 12: return repair_superblocks(image);
    default: {
      // Both slots say the same, of a tail and an end that may be anywhere.
      auto state = read_at<format::StateSlot>(image, state_at(image, 0));
      const auto header = read_at<format::RecordHeader>(image, record());
      state.tail_lsn = header.lsn;
      state.tail_predecessor = header.predecessor;
      state.stable_lsn = header.lsn + std::uint64_t{kBlock} * input.u8();
      state.flags = input.u8() % 2;
      state.incarnation_start_lsn = std::min(state.incarnation_start_lsn, state.stable_lsn);
      for (const unsigned slot : {0U, 1U}) {
        write_at(image, state_at(image, slot), state);
      }
      return repair_states(image);
    }
  }
}

}  // namespace

keel::SimDisk& fuzz_disk() {
  struct World {
    keel::SimDisk disk{{.direct_align = 512, .registers_buffers = false}};
    keel::ScopedOs scope{disk};
  };
  static auto* const world = new World;  // for as long as the process lives
  return world->disk;
}

const std::vector<SimContent>& seed_images() {
  static const auto* const images = [] {
    auto* made = new std::vector<SimContent>;
    made->push_back(make_seed(3, 300, true));
    made->push_back(make_seed(3, 300, false));
    made->push_back(make_seed(6, 9000, false));
    made->push_back(make_seed(6, 9000, true));
    made->push_back(torn(make_seed(4, 2000, false)));
    made->push_back(make_seed(3, 50000, false, 25));  // checkpoints of several records
    made->push_back(make_seed(60, 12000, false));
    made->push_back(make_seed(60, 12000, true));
    return made;
  }();
  return *images;
}

void change_field(FuzzInput& input, std::byte* place, std::size_t bytes) {
  const std::uint8_t which = input.u8();
  const auto change = [&](auto now) {
    std::byte* field = place + which % (bytes / sizeof now) * sizeof now;
    std::memcpy(&now, field, sizeof now);
    now = static_cast<decltype(now)>(value_like(input, now));
    std::memcpy(field, &now, sizeof now);
  };
  which >= 128 ? change(std::uint32_t{}) : change(std::uint64_t{});
}

std::uint64_t check_checkpoint(const keel::RecoveredCheckpoint& checkpoint) {
  constexpr std::uint64_t kMostApplied = std::uint64_t{1} << 20;
  std::uint64_t sum = 0;
  std::vector<std::byte> copy;
  for (const keel::RecoveredItem& item : checkpoint.items) {
    FUZZ_CHECK(item.type() != 0 && !item.regions().empty());
    for (const keel::RecoveredRegion& region : item.regions()) {
      copy.resize(region.size_bytes());
      FUZZ_CHECK(region.copy_to(copy.data(), copy.size()) == copy.size());
      sum += keel::hash64(copy.data(), copy.size()) + copy.size();
    }
    const auto check_ranges = [&](const keel::RecoveredRanges& ranges, std::uint64_t size) {
      std::uint64_t end = 0;
      for (std::size_t i = 0; i < ranges.count(); ++i) {
        FUZZ_CHECK(ranges.offset(i) >= end && ranges.bytes(i).size_bytes() > 0);
        end = ranges.offset(i) + ranges.bytes(i).size_bytes();
        FUZZ_CHECK(end > ranges.offset(i) && end <= size);
      }
      if (size <= kMostApplied) {
        std::vector<std::byte> whole(size);
        ranges.apply_to(whole);
      }
    };
    if (const auto object = keel::RecoveredObject::from(item)) {
      FUZZ_CHECK(object->partial || object->bytes.size_bytes() == object->size_bytes);
      FUZZ_CHECK(!object->erased || object->size_bytes == 0);
      check_ranges(object->ranges, object->size_bytes);
      sum += object->id;
    }
    if (const auto range = keel::RecoveredRange::from(item)) {
      check_ranges(range->ranges, range->size_bytes);
      sum += range->id;
    }
    if (const auto intent = keel::RecoveredIntent::from(item)) {
      sum += intent->id + intent->payload.size_bytes();
    }
    if (const auto done = keel::RecoveredDone::from(item)) {
      sum += done->id;
    }
  }
  return sum;
}

void repair_record(std::byte* record, std::size_t room) {
  format::RecordHeader header;
  std::memcpy(&header, record, sizeof header);
  const std::uint64_t bytes = record_bytes_of(header);
  if (header.packed_bytes > format::kMaxRecordPackedBytes ||
      header.bulk_blocks > format::kMaxRecordBulkBytes / kBlock || bytes > room) {
    return;
  }
  if (header.record_count == 1) {
    header.checkpoint_hash = keel::hash64(nullptr, 0);
  }
  header.record_hash = 0;
  keel::Hasher hasher;
  hasher.update(&header, sizeof header);
  hasher.update(record + sizeof header, bytes - sizeof header);
  header.record_hash = hasher.digest();
  std::memcpy(record, &header, sizeof header);
}

// Records that wrap are left as they are.
void repair_records(SimContent& image) {
  std::vector<std::uint64_t> hashes;
  for (const std::size_t at : records_of(image)) {
    auto header = read_at<format::RecordHeader>(image, at);
    if (header.record_index == 0) {
      hashes.clear();
    }
    const bool last = header.record_index + 1 == header.record_count;
    header.checkpoint_hash = last ? keel::hash64(hashes.data(), hashes.size() * 8) : 0;
    write_at(image, at, header);
    repair_record(image.data() + at, image.size() - at);
    hashes.push_back(read_at<format::RecordHeader>(image, at).record_hash);
  }
}

void repair_states(SimContent& image) {
  for (const unsigned slot : {0U, 1U}) {
    const std::size_t at = state_at(image, slot);
    if (at + sizeof(format::StateSlot) <= image.size()) {
      keel::encode(read_at<format::StateSlot>(image, at), image.data() + at);
    }
  }
}

void repair_superblocks(SimContent& image) {
  for (const unsigned copy : {0U, 1U}) {
    const std::size_t at = superblock_at(image, copy);
    if (at + sizeof(format::Superblock) <= image.size()) {
      keel::encode(read_at<format::Superblock>(image, at), image.data() + at);
    }
  }
}

const SimContent& build_image(FuzzInput& input) {
  static auto& image = *new SimContent;  // its memory is used again: that is half of the time
  const auto& seeds = seed_images();
  const std::uint8_t first = input.u8();
  image = seeds[first % seeds.size()];
  constexpr int kMostChanges = 48;
  for (int i = 0; i < kMostChanges && !input.empty(); ++i) {
    one_change(input, image);
  }
  if (first < 192) {
    repair_records(image);
    repair_states(image);
    repair_superblocks(image);
  }
  return image;
}

void install(const SimContent& image) {
  keel::SimDisk& disk = fuzz_disk();
  disk.clear_faults();
  disk.set_image(kImagePath, image);
  disk.clear_io_log();
}

bool was_only_read() {
  for (const keel::SimIo& io : fuzz_disk().io_log()) {
    const bool reads = io.op == keel::SimOp::kOpen || io.op == keel::SimOp::kStat ||
                       io.op == keel::SimOp::kRead || io.op == keel::SimOp::kLock ||
                       io.op == keel::SimOp::kFlush;
    if (!reads) {
      return false;
    }
  }
  return true;
}

}  // namespace keel_fuzz

#include "slab_table.h"

#include <sys/mman.h>

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::size_t kMarksPerFrame = kPageBytes / SlabTable::kSlotBytes;
constexpr std::uint32_t kByte = 0xFF;
constexpr std::uint16_t kFreed = 0x8000;  // bit of a mark; the rest is tag + 1

constexpr std::uint32_t pages_in(std::uint32_t record) { return record >> 8 & kByte; }
constexpr std::size_t bytes_in(std::uint32_t record) {
  return std::size_t{record >> 16} * SlabTable::kSlotBytes;
}
constexpr bool is_live(std::uint16_t mark) { return mark != 0 && (mark & kFreed) == 0; }
constexpr bool is_freed(std::uint16_t mark) { return (mark & kFreed) != 0; }
constexpr std::uint16_t tag_of(std::uint16_t mark) {
  return static_cast<std::uint16_t>((mark & ~kFreed) - 1);
}

}  // namespace

// Tables ------------------------------------------------------------------------------------------

std::size_t SlabTable::table_bytes() const {
  static_assert(kBytesPerFrame == kMarksPerFrame * sizeof(Mark) + sizeof(Record));
  return frames_ * kBytesPerFrame;
}

Status SlabTable::open(const void* base, Pages capacity) {
  base_ = static_cast<const std::byte*>(base);
  frames_ = capacity.value();
  const int error = os().mmap(nullptr, table_bytes(), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &table_);
  if (error < 0) {
    return system_error(-error, "mmap of slab tables, bytes", table_bytes());
  }
  static_assert(sizeof(Mark) == 2 && sizeof(Record) == 4 && kMarksPerFrame % 2 == 0);
  marks_ = static_cast<Mark*>(table_);
  records_ = reinterpret_cast<Record*>(static_cast<std::byte*>(table_) +
                                       frames_ * kMarksPerFrame * sizeof(Mark));
  return {};
}

SlabTable::~SlabTable() {
  if (records_ != nullptr) {
    (void)os().munmap(table_, table_bytes());  // Cannot be helped if it fails.
  }
}

bool SlabTable::covers(const void* address) const {
  const auto from_base =
      reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(base_);
  return from_base >> kPageShift < frames_;
}

bool SlabTable::is_slab(const void* address) const {
  return covers(address) && records_[frame_of(address)].load(kRelaxed) != 0;
}

std::size_t SlabTable::frame_of(const void* address) const {
  return static_cast<std::size_t>(static_cast<const std::byte*>(address) - base_) >> kPageShift;
}
const std::byte* SlabTable::address_of(std::size_t frame) const {
  return base_ + (frame << kPageShift);
}
std::size_t SlabTable::head_of(std::size_t frame, std::uint32_t record) const {
  return frame - ((record & kByte) - 1);
}
SlabTable::Mark& SlabTable::mark_at(const void* address) const {
  return marks_[static_cast<std::size_t>(static_cast<const std::byte*>(address) - base_) /
                kSlotBytes];
}

// Slabs -------------------------------------------------------------------------------------------

void SlabTable::add(const void* slab, Pages pages) {
  KEEL_CHECK(covers(slab) && frames_ - frame_of(slab) >= pages.value() && pages.value() < kByte,
             "a slab outside the range", reinterpret_cast<std::uintptr_t>(slab), pages.value());
  const std::size_t head = frame_of(slab);
  const auto count = static_cast<std::uint32_t>(pages.value());
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t before =
        records_[head + i].exchange((i + 1) | (i == 0 ? count << 8 : 0), kRelaxed);
    KEEL_CHECK(before == 0, "a frame was in a slab already, frame", head + i, before);
  }
}

void SlabTable::remove(const void* slab, Pages pages) {
  KEEL_CHECK(is_slab(slab), "not a slab", reinterpret_cast<std::uintptr_t>(slab));
  const std::size_t head = frame_of(slab);
  const std::uint32_t record = records_[head].load(kRelaxed);
  KEEL_CHECK((record & kByte) == 1 && pages_in(record) == pages.value(), "not a whole slab, frame",
             head, record, pages.value());
  for (std::size_t i = head; i < head + pages.value(); ++i) {
    records_[i].store(0, kRelaxed);
  }
}

// Objects -----------------------------------------------------------------------------------------

void SlabTable::mark_live(const void* start, std::size_t bytes, std::uint16_t tag) {
  const std::size_t frame = frame_of(start);
  Record& head = records_[head_of(frame, records_[frame].load(kRelaxed))];
  const std::uint32_t record = head.load(kRelaxed);
  if (bytes_in(record) != bytes) [[unlikely]] {
    // The slab's first object since it became one, or since the allocator used it for objects of
    // another size. Others may write the same at once; none can write anything else while this
    // object is out.
    head.store((record & 0xFFFF) | static_cast<std::uint32_t>(bytes / kSlotBytes) << 16, kRelaxed);
  }
  Mark& mark = mark_at(start);
  KEEL_ASSERT(!is_live(mark.load(kRelaxed)), "an object given out twice",
              reinterpret_cast<std::uintptr_t>(start), mark.load(kRelaxed));
  mark.store(static_cast<std::uint16_t>(tag + 1), kRelaxed);
}

KmallocObject SlabTable::mark_freed(const void* address) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(address) % kSlotBytes == 0;
  if (!covers(address)) {
    return {};
  }
  const std::size_t frame = frame_of(address);
  const std::uint32_t record = records_[frame].load(kRelaxed);
  if (!aligned || record == 0) {
    return name(address);
  }
  Mark& mark = mark_at(address);
  std::uint16_t seen = mark.load(kRelaxed);
  // Read while the object is live: afterwards the slab may go.
  const std::size_t bytes = bytes_in(records_[head_of(frame, record)].load(kRelaxed));
  if (!is_live(seen) ||
      !mark.compare_exchange_strong(seen, static_cast<std::uint16_t>(seen | kFreed), kRelaxed)) {
    return name(address);
  }
  return {KmallocOutcome::kOk, address, Bytes(bytes), tag_of(seen)};
}

KmallocObject SlabTable::find(const void* address) const {
  return covers(address) ? name(address) : KmallocObject{};
}

KmallocObject SlabTable::name(const void* address) const {
  const std::size_t frame = frame_of(address);
  const std::uint32_t record = records_[frame].load(kRelaxed);
  std::size_t bytes = 0;
  if (record != 0) {
    const std::size_t head = head_of(frame, record);
    bytes = bytes_in(records_[head].load(kRelaxed));
    if (bytes != 0) {
      const auto at =
          static_cast<std::size_t>(static_cast<const std::byte*>(address) - address_of(head));
      const std::byte* start = address_of(head) + at / bytes * bytes;
      if (const std::uint16_t mark = mark_at(start).load(kRelaxed); is_live(mark)) {
        return {start == address ? KmallocOutcome::kOk : KmallocOutcome::kInterior, start,
                Bytes(bytes), tag_of(mark)};
      }
    }
  }
  const std::uint16_t mark = mark_at(address).load(kRelaxed);
  if (is_freed(mark) && reinterpret_cast<std::uintptr_t>(address) % kSlotBytes == 0) {
    return {KmallocOutcome::kDouble, address, Bytes(bytes), tag_of(mark)};
  }
  return {};
}

// Audit -------------------------------------------------------------------------------------------

void SlabTable::sum_live(std::span<std::uint64_t> by_tag, std::uint16_t ignored) const {
  for (std::size_t frame = 0; frame < frames_; ++frame) {
    const std::uint32_t record = records_[frame].load(kRelaxed);
    if (record == 0) {
      continue;
    }
    const std::uint64_t bytes = bytes_in(records_[head_of(frame, record)].load(kRelaxed));
    for (std::size_t at = 0; at < kPageBytes; at += kSlotBytes) {
      const std::uint16_t mark = mark_at(address_of(frame) + at).load(kRelaxed);
      const unsigned tag = is_live(mark) ? tag_of(mark) & ~unsigned{ignored} : 0;
      if (is_live(mark) && tag < by_tag.size()) {
        by_tag[tag] += bytes;
      }
    }
  }
}

SlabTable::Census SlabTable::audit() const {
  Census census;
  for (std::size_t frame = 0; frame < frames_;) {
    const std::uint32_t record = records_[frame].load(kRelaxed);
    if (record == 0) {
      ++frame;
      continue;
    }
    KEEL_CHECK((record & kByte) == 1 && pages_in(record) != 0, "a slab without a head, frame",
               frame, record);
    audit_slab(frame, census);
    frame += pages_in(record);
  }
  return census;
}

void SlabTable::audit_slab(std::size_t head, Census& census) const {
  const std::uint32_t record = records_[head].load(kRelaxed);
  const Pages pages(pages_in(record));
  const std::size_t bytes = bytes_in(record);
  for (std::uint32_t i = 1; i < pages.value(); ++i) {
    KEEL_CHECK(records_[head + i].load(kRelaxed) == i + 1, "a frame of a slab, frame", head + i);
  }
  census.pages += pages;
  for (std::size_t at = 0; at < bytes_of(pages); at += kSlotBytes) {
    if (!is_live(mark_at(address_of(head) + at).load(kRelaxed))) {
      continue;
    }
    KEEL_CHECK(bytes != 0 && at % bytes == 0 && at + bytes <= bytes_of(pages),
               "a live mark where no object begins: frame, offset, object bytes", head, at, bytes);
    ++census.objects;
    census.bytes += Bytes(bytes);
  }
}

}  // namespace keel

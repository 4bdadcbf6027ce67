#include "keel/cil/range_item.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "log/format.h"
#include "log_vector.h"

namespace keel {
namespace {

constexpr std::size_t kWordBits = 64;

// What another run costs in the log: its entry, its region's header and padding. Chunks between two
// runs always cost more, so runs are never joined, and a range that is dirty as a whole is the most
// that can be logged of it.
constexpr std::size_t kRunCost =
    sizeof(format::Range) + sizeof(format::RegionHeader) + format::kPackedUnitBytes;
static_assert(kRunCost < RangeItem::kChunkBytes);

std::size_t words_for(std::size_t length_bytes) {
  return format::div_round_up(length_bytes, RangeItem::kChunkBytes * kWordBits);
}

// `count` bits from bit `first` on.
std::uint64_t bits(std::size_t first, std::size_t count) {
  return (count == kWordBits ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1) << first;
}

}  // namespace

RangeItem::RangeItem(std::uint64_t id) : LogItem(BuiltIn{format::kTypeRange}), id_(id) {}

RangeItem::~RangeItem() {
  if (dirty_ != nullptr) {
    os().metadata_free(dirty_);
  }
}

Result<std::unique_ptr<RangeItem>> RangeItem::create(std::uint64_t id, const void* base,
                                                     std::size_t length_bytes) {
  std::unique_ptr<RangeItem> item(new (std::nothrow) RangeItem(id));
  if (item == nullptr) {
    return Error{Errc::kNoMemory, 0, "make a range item", id};
  }
  if (auto status = item->attach(base, length_bytes); !status) {
    return status.error();
  }
  return item;
}

Status RangeItem::attach(const void* base, std::size_t length_bytes) {
  KEEL_CHECK(dirty_ == nullptr, "attach() for the second time", id_);
  if (length_bytes > kMostBytes) {
    return Error{Errc::kTooLarge, 0, "a range item has at most, bytes", kMostBytes};
  }
  // At least one word, so that an empty range is attached too.
  const std::size_t bytes = std::max<std::size_t>(words_for(length_bytes), 1) * sizeof *dirty_;
  void* memory = os().metadata_allocate(bytes);
  if (memory == nullptr) {
    return Error{Errc::kNoMemory, 0, "a range item's bitmap, bytes", bytes};
  }
  dirty_ = static_cast<std::uint64_t*>(std::memset(memory, 0, bytes));
  base_ = static_cast<const std::byte*>(base);
  length_bytes_ = length_bytes;
  return {};
}

void RangeItem::mark(std::size_t offset, std::size_t length_bytes) {
  KEEL_CHECK(offset <= length_bytes_ && length_bytes <= length_bytes_ - offset,
             "mark() beyond the range's end", offset, length_bytes, length_bytes_);
  if (length_bytes == 0) {
    return;
  }
  const std::size_t end = (offset + length_bytes - 1) / kChunkBytes + 1;
  for (std::size_t chunk = offset / kChunkBytes; chunk < end;) {
    const std::size_t bit = chunk % kWordBits;
    const std::size_t count = std::min(kWordBits - bit, end - chunk);
    dirty_[chunk / kWordBits] |= bits(bit, count);
    chunk += count;
  }
}

void RangeItem::clean() {
  if (ItemAccess::may_clean(*this) && dirty_ != nullptr) {
    std::fill_n(dirty_, words_for(length_bytes_), 0);
  }
}

std::size_t RangeItem::chunks() const { return format::div_round_up(length_bytes_, kChunkBytes); }

// The first chunk from `from` on that is dirty, or is not; chunks() if there is none.
std::size_t RangeItem::find(std::size_t from, bool dirty) const {
  const std::size_t end = chunks();
  for (std::size_t chunk = from; chunk < end;) {
    const std::size_t bit = chunk % kWordBits;
    const std::uint64_t word = dirty_[chunk / kWordBits];
    const std::uint64_t wanted = (dirty ? word : ~word) >> bit;
    if (wanted != 0) {
      return std::min(end, chunk + static_cast<std::size_t>(std::countr_zero(wanted)));
    }
    chunk += kWordBits - bit;
  }
  return end;
}

// The first run at or after a chunk's begin; empty if there is none. The last chunk ends where the
// memory does.
RangeItem::Run RangeItem::next_run(std::size_t from_bytes) const {
  const std::size_t first = find(format::div_round_up(from_bytes, kChunkBytes), true);
  const std::size_t offset = std::min(first * kChunkBytes, length_bytes_);
  const std::size_t end = std::min(find(first, false) * kChunkBytes, length_bytes_);
  return {offset, end - offset};
}

RangeItem::Measure RangeItem::measure() const {
  Measure sum{0, 0};
  for (Run run = next_run(0); run.bytes != 0; run = next_run(run.offset + run.bytes)) {
    ++sum.runs;
    sum.bytes += run.bytes;
  }
  return sum;
}

std::size_t RangeItem::log_bytes(std::size_t length_bytes) { return log_bytes(length_bytes, 1); }

std::size_t RangeItem::log_bytes(std::size_t dirty_bytes, std::size_t runs) {
  return sizeof(format::RangeHeader) + runs * kRunCost + dirty_bytes;
}

void RangeItem::size(ItemSize& size) const {
  const std::size_t runs = measure().runs;
  if (runs == 0) {
    return;
  }
  size.region(sizeof(format::RangeHeader));
  size.region(runs * sizeof(format::Range));
  for (Run run = next_run(0); run.bytes != 0; run = next_run(run.offset + run.bytes)) {
    size.region(run.bytes);
  }
}

void RangeItem::format(ItemFormatter& formatter) const {
  const std::size_t runs = measure().runs;
  const format::RangeHeader header{id_, length_bytes_, runs};
  formatter.copy(&header, sizeof header);
  auto* table = reinterpret_cast<format::Range*>(formatter.reserve(runs * sizeof(format::Range)));
  for (Run run = next_run(0); run.bytes != 0; run = next_run(run.offset + run.bytes)) {
    ::new (table++) format::Range{run.offset, run.bytes};
    formatter.copy(base_ + run.offset, run.bytes);
  }
}

}  // namespace keel

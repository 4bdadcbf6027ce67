// What a journal may take: how much a transaction reserves, and each CPU's credit of it.

#include <algorithm>

#include "journal_impl.h"
#include "space.h"

namespace keel {
namespace {

// Credit that one part keeps at most.
constexpr Reservation kMostCredit{std::uint64_t{1} << 20, std::uint64_t{4} << 20};

}  // namespace

// Enough for four regions an item; an item of many small regions must ask for more bytes, as
// begin()'s docstring says.
Reservation worst_case(std::size_t max_bytes, std::uint32_t max_items, std::uint32_t block_bytes) {
  constexpr std::uint64_t kRegionOverhead =
      sizeof(format::RegionHeader) + format::kPackedUnitBytes - 1;
  static_assert(kRegionOverhead == 15);
  constexpr std::uint64_t kRegions = 4;
  constexpr std::uint64_t kItemOverhead = sizeof(format::ItemHeader) + kRegions * kRegionOverhead;
  // The cost of one item with all the bytes, whichever stream they go to; and for each other item
  // the rounding of its own.
  const std::uint64_t packed = max_bytes + max_items * kItemOverhead;
  const std::uint64_t log =
      format::checkpoint_unit(block_bytes) + packed + packed / 430 + 1 +
      format::div_round_up(max_bytes, format::kMaxRecordBulkBytes / block_bytes) +
      std::uint64_t{2} * max_items;
  // A large region stands on pages of its own, and begins one; the pool may round up by a quarter.
  constexpr std::uint64_t kItemMemory =
      sizeof(LogVector) + sizeof(format::ItemHeader) + kRegions * kRegionOverhead + kPageBytes;
  const std::uint64_t memory = 2 * std::uint64_t{max_bytes} + max_items * kItemMemory;
  return {log, memory + memory / 4};
}

std::uint64_t choose_memory(const JournalConfig& config, const format::Superblock& superblock,
                            const Pool& pool) {
  if (config.cil_memory != Bytes(0)) {
    return config.cil_memory.value();
  }
  // A quarter of it is the most that one transaction may take: room for one as large as a
  // checkpoint, with the worst rounding.
  return std::min<std::uint64_t>(12 * superblock.max_checkpoint_bytes,
                                 pool.config().capacity_bytes / 2);
}

// For logging again what holds the tail: a block of it at least, however small checkpoints are.
std::uint64_t choose_set_aside(const format::Superblock& superblock) {
  const std::uint64_t block = superblock.block_bytes;
  const std::uint64_t least = format::checkpoint_unit(block) + block;
  return std::min(superblock.data_bytes / 16, std::max(superblock.max_checkpoint_bytes / 2, least));
}

// More items than one pass logs take several, each a checkpoint that may not be full. (That adds
// less than a block to each, so never more than so many items take.)
std::uint64_t least_again(const Homeless& homeless, std::uint32_t block_bytes) {
  const std::uint64_t unit = format::checkpoint_unit(block_bytes);
  return homeless.cost + unit + std::min(homeless.items / kMostAgainItems * unit, homeless.cost);
}

// A part that ends because the next item does not fit has with the next part more than a checkpoint
// can take: so what n checkpoints can take has 2(n - 1) such parts at most, and what one can take,
// none.
std::uint64_t need_again(const Homeless& homeless, std::uint32_t block_bytes,
                         std::uint64_t max_checkpoint_bytes) {
  const std::uint64_t unit = format::checkpoint_unit(block_bytes);
  const std::uint64_t n = format::div_round_up(homeless.cost, max_checkpoint_bytes - unit);
  return least_again(homeless, block_bytes) + (n > 1 ? 2 * (n - 1) * unit : 0);
}

// Two further parts may end by size, and one by count. The joining one has a unit already.
std::uint64_t need_to_join(std::uint32_t block_bytes) {
  return 2 * format::checkpoint_unit(block_bytes);
}

// None at all where it would be a noticeable part of a small log.
Reservation choose_credit(const format::Superblock& superblock, std::uint64_t memory_bytes) {
  const std::uint64_t parts = std::min(possible_cpus(), Cil::kMostParts);
  const Reservation share{superblock.max_checkpoint_bytes / (16 * parts),
                          memory_bytes / (16 * parts)};
  if (share.log_bytes < 16 * format::checkpoint_unit(superblock.block_bytes)) {
    return {};
  }
  return {std::min(share.log_bytes, kMostCredit.log_bytes),
          std::min(share.memory_bytes, kMostCredit.memory_bytes)};
}

Status Journal::Impl::reserve(const Reservation& wanted) {
  {
    CilPart& part = cil.lock_shared();
    const bool had = part.credit.covers(wanted) && !space.contended();
    if (had) {
      part.credit -= wanted;
    }
    cil.unlock_shared(part);
    if (had) {
      return {};
    }
  }
  Reservation more = wanted;
  more += most_credit;
  if (most_credit.log_bytes != 0 && space.try_reserve(more)) {
    CilPart& part = cil.lock_shared();
    const bool kept = !space.contended() && keep_credit(part, most_credit);
    cil.unlock_shared(part);
    if (!kept) {
      space.give_back(most_credit);
    }
    return {};
  }
  return space.reserve(wanted);
}

bool Journal::Impl::keep_credit(CilPart& part, const Reservation& unused) const {
  Reservation all = part.credit;
  all += unused;
  // Twice: what is refilled must fit on top of a rest that was too small for somebody.
  if (all.log_bytes > 2 * most_credit.log_bytes ||
      all.memory_bytes > 2 * most_credit.memory_bytes) {
    return false;
  }
  part.credit = all;
  return true;
}

void Journal::Impl::drain_credit() {
  Reservation drained;
  cil.lock_exclusive();
  cil.for_each_part([&](CilPart& part) { drained += std::exchange(part.credit, {}); });
  cil.unlock_exclusive();
  if (drained.log_bytes != 0 || drained.memory_bytes != 0) {
    space.give_back(drained);
  }
}

Journal::Impl::Sums Journal::Impl::sums() {
  Sums all;
  cil.lock_exclusive();
  cil.for_each_part([&](CilPart& part) {
    all.counts += part.counts;
    all.credit += part.credit;
    all.context += part.sums;
  });
  all.space = space.sums();
  all.current = cil.sequence();
  cil.unlock_exclusive();
  return all;
}

}  // namespace keel

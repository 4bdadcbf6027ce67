#include "vmap_blocks.h"

#include <algorithm>
#include <bit>

#include "keel/base/check.h"

namespace keel {
namespace {

constexpr std::uint32_t kWordBits = 64;

bool bit_of(const VmapBlock& block, std::uint32_t at) {
  return (block.used[at / kWordBits] >> (at % kWordBits) & 1U) != 0;
}

// First bit at or after `at` that is set (or clear), at most `end`.
std::uint32_t next_bit(const VmapBlock& block, std::uint32_t at, std::uint32_t end, bool set) {
  while (at < end) {
    const std::uint64_t word = set ? block.used[at / kWordBits] : ~block.used[at / kWordBits];
    const std::uint64_t rest = word >> (at % kWordBits);
    if (rest != 0) {
      return std::min(end, at + static_cast<std::uint32_t>(std::countr_zero(rest)));
    }
    at = (at / kWordBits + 1) * kWordBits;
  }
  return end;
}

}  // namespace

void VmapBlocks::open(VmapBlock* blocks, PageIndex first, std::uint32_t pages,
                      std::uint32_t block_pages) {
  blocks_ = blocks;
  first_ = first;
  count_ = count_for(pages, block_pages);
  block_pages_ = block_pages;
}

void VmapBlocks::add(PageIndex first) {
  VmapBlock& block = blocks_[number_of(first)];
  KEEL_CHECK(!block.active && first == first_of(number_of(first)), "no place for a block", first);
  block.used.fill(0);
  block.free_pages = block_pages_;
  block.max_gap = block_pages_;
  block.active = true;
  free_pages_ += block_pages_;
  link(number_of(first));
}

void VmapBlocks::remove(PageIndex first) {
  VmapBlock& block = blocks_[number_of(first)];
  KEEL_CHECK(block.active, "no block at page", first);
  if (block.free_pages != 0) {
    unlink(number_of(first));
  }
  free_pages_ -= block.free_pages;
  block.active = false;
}

void VmapBlocks::link(std::uint32_t number) {
  VmapBlock& block = blocks_[number];
  block.prev = kNoIndex;
  block.next = open_;
  if (open_ != kNoIndex) {
    blocks_[open_].prev = number;
  }
  open_ = number;
}

void VmapBlocks::unlink(std::uint32_t number) {
  const VmapBlock& block = blocks_[number];
  (block.prev != kNoIndex ? blocks_[block.prev].next : open_) = block.next;
  if (block.next != kNoIndex) {
    blocks_[block.next].prev = block.prev;
  }
}

std::optional<std::uint32_t> VmapBlocks::find_gap(const VmapBlock& block,
                                                  std::uint32_t pages) const {
  for (std::uint32_t at = 0; at < block_pages_;) {
    at = next_bit(block, at, block_pages_, false);
    const std::uint32_t end = next_bit(block, at, block_pages_, true);
    if (end - at >= pages) {
      return at;
    }
    at = end;
  }
  return std::nullopt;
}

// Blocks that a search has found too full for the size remember it and are passed over in O(1).
std::optional<PageIndex> VmapBlocks::carve(std::uint32_t pages, std::uint32_t max_probes) {
  for (std::uint32_t number = open_; number != kNoIndex && max_probes != 0;
       number = blocks_[number].next, --max_probes) {
    VmapBlock& block = blocks_[number];
    if (block.max_gap < pages) {
      continue;
    }
    if (const auto at = find_gap(block, pages)) {
      take(first_of(number) + *at, pages);
      return first_of(number) + *at;
    }
    block.max_gap = pages - 1;
  }
  return std::nullopt;
}

void VmapBlocks::mark(VmapBlock& block, std::uint32_t from, std::uint32_t pages, bool used) const {
  const std::uint32_t end = from + pages;
  KEEL_CHECK(end <= block_pages_, "pages past the end of a block", from, pages);
  for (std::uint32_t at = from; at < end;) {
    const std::uint32_t bits = std::min(end - at, kWordBits - at % kWordBits);
    const std::uint64_t ones =
        bits == kWordBits ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
    const std::uint64_t mask = ones << (at % kWordBits);
    std::uint64_t& word = block.used[at / kWordBits];
    KEEL_CHECK((word & mask) == (used ? 0 : mask), "bits of a block are not as they were", at,
               word);
    word ^= mask;
    at += bits;
  }
}

void VmapBlocks::take(PageIndex first, std::uint32_t pages) {
  const std::uint32_t number = number_of(first);
  VmapBlock& block = blocks_[number];
  mark(block, first - first_of(number), pages, true);
  block.free_pages -= pages;
  free_pages_ -= pages;
  if (block.free_pages == 0) {
    unlink(number);
  }
}

std::optional<PageIndex> VmapBlocks::give(PageIndex first, std::uint32_t pages) {
  const std::uint32_t number = number_of(first);
  VmapBlock& block = blocks_[number];
  KEEL_CHECK(block.active, "slot of no block, page", first);
  mark(block, first - first_of(number), pages, false);
  if (block.free_pages == 0) {
    link(number);
  }
  block.free_pages += pages;
  block.max_gap = block_pages_;
  free_pages_ += pages;
  if (block.free_pages == block_pages_) {
    return first_of(number);
  }
  return std::nullopt;
}

bool VmapBlocks::is_clear(PageIndex page) const {
  const std::uint32_t number = number_of(page);
  return number < count_ && blocks_[number].active &&
         !bit_of(blocks_[number], page - first_of(number));
}

PageIndex VmapBlocks::gap_begin(PageIndex page) const {
  const std::uint32_t number = number_of(page);
  while (page > first_of(number) && !bit_of(blocks_[number], page - 1 - first_of(number))) {
    --page;
  }
  return page;
}

PageIndex VmapBlocks::gap_end(PageIndex page) const {
  const std::uint32_t number = number_of(page);
  return first_of(number) + next_bit(blocks_[number], page - first_of(number), block_pages_, true);
}

std::optional<PageIndex> VmapBlocks::any_open() const {
  if (open_ == kNoIndex) {
    return std::nullopt;
  }
  return first_of(open_);
}

std::optional<PageIndex> VmapBlocks::block_over(PageIndex page) const {
  const std::uint32_t number = number_of(page);
  if (number < count_ && blocks_[number].active) {
    return first_of(number);
  }
  return std::nullopt;
}

void VmapBlocks::audit() const {
  std::uint32_t free_pages = 0;
  std::uint32_t prev = kNoIndex;
  for (std::uint32_t number = open_; number != kNoIndex; number = blocks_[number].next) {
    const VmapBlock& block = blocks_[number];
    KEEL_CHECK(block.active && block.free_pages != 0, "block that is not open in the list", number);
    KEEL_CHECK(block.prev == prev, "link back in the list of open blocks", number);
    std::uint32_t clear = 0;
    std::uint32_t longest = 0;
    for (std::uint32_t at = next_bit(block, 0, block_pages_, false); at < block_pages_;) {
      const std::uint32_t end = next_bit(block, at, block_pages_, true);
      clear += end - at;
      longest = std::max(longest, end - at);
      at = next_bit(block, end, block_pages_, false);
    }
    KEEL_CHECK(clear == block.free_pages, "clear bits of a block", clear, block.free_pages);
    KEEL_CHECK(longest <= block.max_gap, "longest gap of a block", longest, block.max_gap);
    free_pages += clear;
    prev = number;
  }
  KEEL_CHECK(free_pages == free_pages_, "free pages of blocks", free_pages, free_pages_);
}

}  // namespace keel

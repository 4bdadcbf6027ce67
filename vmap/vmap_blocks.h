// VmapBlocks: the blocks of one shard, from which small mappings are carved by bitmap.
//
// A block is a range of block_pages() pages of the window, naturally aligned in it, whose pages are
// handed out as slots of any length: packed side by side, no guard page, no rounding up. A slot's
// own state stands in the range table like that of any area; the bitmap says only which pages can
// be carved. So a slot is free again as soon as its aliases are gone, whatever its neighbours do.
//
// There is room for a descriptor for each aligned place, touched only where a block is.
//
// I1 A clear bit in an active block is a page without alias that belongs to no area.
// I2 A block is in the list of open blocks exactly while it has a clear bit.
// I3 max_gap is never less than the longest run of clear bits.
// Locks: none of its own; the shard's lock guards it.
// Source: vm_map_ram and struct vmap_block (Linux mm/vmalloc.c), which never reuse a slot.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "keel/vmap/free_bins.h"
#include "range_entry.h"

namespace keel {

inline constexpr std::uint32_t kMaxSlotPages = 64;
inline constexpr std::uint32_t kMinBlockPages = 64;
inline constexpr std::uint32_t kMaxBlockPages = 1024;

// All zero: no block there.
struct VmapBlock {
  std::array<std::uint64_t, kMaxBlockPages / 64> used;  // bit set: part of a slot, or of a purge
  std::uint32_t free_pages;
  std::uint32_t max_gap;
  std::uint32_t prev;  // in the list of open blocks
  std::uint32_t next;
  bool active;
};

class VmapBlocks {
 public:
  // `blocks`: zeroed room for count_for(pages, block_pages) descriptors.
  void open(VmapBlock* blocks, PageIndex first, std::uint32_t pages, std::uint32_t block_pages);
  [[nodiscard]] static std::uint32_t count_for(std::uint32_t pages, std::uint32_t block_pages) {
    return pages / block_pages;
  }

  [[nodiscard]] std::uint32_t block_pages() const { return block_pages_; }

  // Makes the aligned range at `first` a block, all of it clear.
  void add(PageIndex first);
  // Forgets the block; its clear pages are the caller's.
  void remove(PageIndex first);

  // Takes `pages` clear pages from one of the first `max_probes` open blocks.
  [[nodiscard]] std::optional<PageIndex> carve(std::uint32_t pages, std::uint32_t max_probes);
  void take(PageIndex first, std::uint32_t pages);
  // Clears the bits. The block's first page if it is all clear now.
  std::optional<PageIndex> give(PageIndex first, std::uint32_t pages);

  // True if the page can be carved: a clear bit of a block.
  [[nodiscard]] bool is_clear(PageIndex page) const;
  // The run of clear pages of one block around a clear page.
  [[nodiscard]] PageIndex gap_begin(PageIndex page) const;
  [[nodiscard]] PageIndex gap_end(PageIndex page) const;
  // First page of some open block, if there is one.
  [[nodiscard]] std::optional<PageIndex> any_open() const;
  // First page of the block that covers `page`.
  [[nodiscard]] std::optional<PageIndex> block_over(PageIndex page) const;

  void audit() const;

 private:
  [[nodiscard]] std::uint32_t number_of(PageIndex page) const {
    return (page - first_) / block_pages_;
  }
  [[nodiscard]] PageIndex first_of(std::uint32_t number) const {
    return first_ + number * block_pages_;
  }
  [[nodiscard]] std::optional<std::uint32_t> find_gap(const VmapBlock& block,
                                                      std::uint32_t pages) const;
  void mark(VmapBlock& block, std::uint32_t from, std::uint32_t pages, bool used) const;
  void link(std::uint32_t number);
  void unlink(std::uint32_t number);

  VmapBlock* blocks_ = nullptr;
  PageIndex first_ = 0;
  std::uint32_t count_ = 0;
  std::uint32_t block_pages_ = kMinBlockPages;
  std::uint32_t free_pages_ = 0;
  std::uint32_t open_ = kNoIndex;
};

}  // namespace keel

// PageAllocator: free lists over the frames of a store. Knows numbers, never memory.
//
// Free frames form runs of any length, joined with their neighbours as soon as they are free and
// kept in bins by size. Not a binary buddy system: one could serve 150 frames only from 256 aligned
// free ones, and where no more than a few per cent of memory is free there are none. What a buddy
// system is asked for stands all the same: orders 0 to 10, the smallest run that fits first, so
// that broken memory is used up before whole, and a buddyinfo().
//
// I1 Two free neighbours are one run. Its first record has its length, so has its last.
// I2 Exact size: of a run, what a request does not need stays free.
// I3 Only the first frame of a run in somebody's hands says what it is; a frame inside says kBody
//    (kAbsent, if its chunk is not populated). So allocate and free cost no walk over the frames;
//    only reports of wrong frees walk back to a run's first frame.
// I4 The free frames of each block of 256 are counted, so that whole free chunks are found, and
//    free runs by the orders of their blocks, so that buddyinfo() answers: both without a walk.
// I5 No memory of its own beyond the frames' records, one flat array reserved once. gather() links
//    the runs that it found through it.
// Locks: kPageAllocator over the lists and records, never over a system call. The records of runs
//    in somebody's hands are the holder's (FrameRecord).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "keel/alloc/block_counts.h"
#include "keel/base/metadata_object.h"
#include "keel/base/mutex.h"
#include "keel/base/percpu.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "keel/vmap/frames.h"
#include "keel/vmap/free_bins.h"

namespace keel {

inline constexpr Pages kMaxContiguous{std::uint64_t{1} << kMaxOrder};  // 4 MiB

enum class FrameUse : std::uint8_t {
  kAbsent,       // not populated
  kFree,         // first frame of a free run
  kFreeTail,     // last frame of a free run of two or more
  kBody,         // any other frame of a run
  kBuffer,       // first frame of a contiguous run in its owner's hands
  kChain,        // first frame of the first run of a gathered chain, likewise
  kScattered,    // first frame of any other run of a chain
  kCached,       // as kBuffer, and
  kCachedChain,  // as kChain, but idle in a cache of the pool: no caller's
  kSlab,         // first frame of a contiguous run that holds small objects
};

// What a record says in one word, so that it is read and written at once.
struct FrameWord {
  FrameUse use = FrameUse::kAbsent;
  std::uint8_t kind = 0;    // buffers: size class, see size_class.h
  std::uint16_t flags = 0;  // buffers: the pool's
  // kUncached: of no size class, or to be asked about when freed.
  static constexpr std::uint16_t kUncached = 1U << 15;
  // Buffers, runs: their pages. Else: of the last buffer that began here, 0 if none.
  std::uint32_t pages = 0;

  [[nodiscard]] static FrameWord from(std::uint64_t bits) {
    return {.use = static_cast<FrameUse>(bits & 0xff),
            .kind = static_cast<std::uint8_t>(bits >> 8),
            .flags = static_cast<std::uint16_t>(bits >> 16),
            .pages = static_cast<std::uint32_t>(bits >> 32)};
  }
  [[nodiscard]] std::uint64_t bits() const {
    return static_cast<std::uint64_t>(use) | std::uint64_t{kind} << 8 | std::uint64_t{flags} << 16 |
           std::uint64_t{pages} << 32;
  }
};

// One for each frame. Of a run in somebody's hands the holder may change word (but not its pages),
// owner, area and bytes without the lock; the lock's holder reads the word of such a run, to see
// that it is not free, and its owner, for reports. So these are atomic, and relaxed: who hands a
// run over hands over the record with it.
struct FrameRecord {
  std::atomic<std::uint64_t> bits;
  std::atomic<const char*> owner;  // of the run, or of the last buffer
  std::uint32_t prev;   // kFree: in the list of its order; kChain: pages of the whole chain
  std::uint32_t next;   // likewise; kChain, kScattered: next run of the chain
  std::uint32_t area;   // kChain: page of the window where it is mapped
  std::uint32_t bytes;  // that the buffer's owner asked for

  [[nodiscard]] FrameWord word() const {
    return FrameWord::from(bits.load(std::memory_order_relaxed));  // See above.
  }
  [[nodiscard]] const char* owner_name() const {
    const char* name = owner.load(std::memory_order_relaxed);  // See above.
    return name != nullptr ? name : "";
  }
  void set_owner(const char* name) { owner.store(name, std::memory_order_relaxed); }  // See above.
  void set(FrameWord word) { bits.store(word.bits(), std::memory_order_relaxed); }    // See above.
  void set_use(FrameUse use) {
    FrameWord changed = word();
    changed.use = use;
    set(changed);
  }
};
static_assert(sizeof(FrameRecord) == 32);

// What a frame is part of.
struct FrameInfo {
  FrameUse use = FrameUse::kAbsent;
  FrameRun run{};  // the run that it lies in; of a free frame the last buffer that began at it
  const char* owner = "";           // of that run
  FrameUse of = FrameUse::kAbsent;  // what the block or run is, also for a frame inside it
};

struct PageCounts {
  Pages present{};  // populated: free or someone's
  Pages free{};
};

// Frames that one owner holds.
struct Holder {
  const char* owner = "";
  Pages pages{};
};

class PageAllocator : public MetadataObject {
 public:
  // Reserves records for frames 0 to `capacity`, none of them present.
  // Errors: kInvalidArgument, kNoMemory, kSystem.
  [[nodiscard]] static Result<std::unique_ptr<PageAllocator>> create(Pages capacity);
  ~PageAllocator();
  PageAllocator(const PageAllocator&) = delete;
  PageAllocator& operator=(const PageAllocator&) = delete;

  // Populates the records of `run`, so that add() and all after it fault on nothing.
  // Errors: kNoMemory, kSystem; nothing has changed then.
  [[nodiscard]] Status prepare(FrameRun run);

  // Frames that were absent become free.
  void add(FrameRun run) KEEL_EXCLUDES(lock_);

  // Takes a chunk of frames out, if all of it is free.
  [[nodiscard]] bool remove(FrameRun chunk) KEEL_EXCLUDES(lock_);

  // The highest chunk that ends at `below` or a multiple of chunks under it and is all free, as of
  // lately. Takes the lock for 64 looks of a nanosecond or two at a time.
  [[nodiscard]] std::optional<FrameRun> find_free_chunk(Pfn below, Pages chunk) const
      KEEL_EXCLUDES(lock_);

  // A contiguous run of exactly `pages`, from a free run hardly larger if there is one. Fails fast.
  // Threads: any; makes no system call.
  // Errors: nullopt if no free run is large enough, or `pages` is 0 or above kMaxContiguous.
  // Source: __alloc_pages, alloc_pages_exact (Linux mm/page_alloc.c).
  [[nodiscard]] std::optional<Pfn> allocate(Pages pages, const char* owner) KEEL_EXCLUDES(lock_);

  // Exactly `pages` frames in as few runs as the free lists have, largest first, chained; gives the
  // first frame of the chain. Threads: as allocate(). Errors: nullopt if fewer frames are free.
  [[nodiscard]] std::optional<Pfn> gather(Pages pages, const char* owner) KEEL_EXCLUDES(lock_);

  // Frees the run that begins at `frame` if it is one of allocate()'s, and says what was found
  // there: the run was freed if and only if `use` is kBuffer and `run.first` is `frame`.
  FrameInfo free(Pfn frame) KEEL_EXCLUDES(lock_);

  // Frees a chain of gather().
  void free_chain(Pfn first) KEEL_EXCLUDES(lock_);

  // Frees runs and chains that are in a cache (kCached, kCachedChain) or buffers in use, all under
  // one hold of the lock. None of them has an alias that is not lazy. Returns how many were none of
  // these, which now stand first: freed already, by who freed the same buffer at the same time.
  [[nodiscard]] std::size_t free_batch(std::span<Pfn> firsts) KEEL_EXCLUDES(lock_);

  // The record of the first frame of a run that the caller holds.
  [[nodiscard]] FrameRecord& record(Pfn frame) { return frames_[frame.value()]; }
  [[nodiscard]] const FrameRecord& record(Pfn frame) const { return frames_[frame.value()]; }

  // Free frames, as of lately. Threads: any; takes no lock.
  [[nodiscard]] Pages free_hint() const {
    return Pages(free_hint_.load(std::memory_order_relaxed));  // A hint.
  }
  [[nodiscard]] Pages present_hint() const {
    return Pages(present_hint_.load(std::memory_order_relaxed));  // A hint.
  }

  // What `frame` is part of. Threads: any; out of date when it returns, unless the caller owns it.
  [[nodiscard]] FrameInfo find(Pfn frame) const KEEL_EXCLUDES(lock_);

  [[nodiscard]] PageCounts counts() const KEEL_EXCLUDES(lock_);

  // Free memory as blocks of each order, as /proc/buddyinfo has it: every free run cut into the
  // largest aligned powers of two that it is made of. Walks nothing.
  [[nodiscard]] BlockCounts::Orders buddyinfo() const KEEL_EXCLUDES(lock_);

  // Fills `largest` with the owners that hold most, descending; gives how many it filled. Owners
  // beyond the first 64 met are counted together as "(others)". Takes the lock in slices, and
  // sleeps now and then so that others have it too.
  [[nodiscard]] std::size_t holders(std::span<Holder> largest) const KEEL_EXCLUDES(lock_);

  // Frames of runs and chains that lie in a cache. Walks all records.
  [[nodiscard]] Pages idle() const KEEL_EXCLUDES(lock_);

  // Walks all records and lists and aborts if they do not add up.
  void audit() const KEEL_EXCLUDES(lock_);

 private:
  friend class ChainSource;
  using Index = std::uint32_t;
  static constexpr Index kNone = ~Index{0};

  using Frame = FrameRecord;

  struct FreeCensus;

  explicit PageAllocator(Pages capacity);
  [[nodiscard]] Status open();
  [[nodiscard]] std::size_t frames_bytes() const;

  [[nodiscard]] std::size_t counts_bytes() const;

  void insert_free(Index first, Index length) KEEL_REQUIRES(lock_);
  void remove_free(Index first) KEEL_REQUIRES(lock_);
  void free_range(Index first, Index count) KEEL_REQUIRES(lock_);
  void count_free(Index first, Index count, int sign) KEEL_REQUIRES(lock_);
  [[nodiscard]] Index find_fit(Index pages) const KEEL_REQUIRES(lock_);
  [[nodiscard]] Index walk_bin(Index pages, unsigned most_steps) const KEEL_REQUIRES(lock_);
  [[nodiscard]] Index take(Index run, Index pages, FrameUse use, const char* owner)
      KEEL_REQUIRES(lock_);
  void free_run(Index first) KEEL_REQUIRES(lock_);
  void free_runs_of_chain(Index first) KEEL_REQUIRES(lock_);
  void publish_hints() KEEL_REQUIRES(lock_);
  [[nodiscard]] Index take_run(Index wanted, const char* owner) KEEL_REQUIRES(lock_);
  [[nodiscard]] Index head_of(Index frame) const KEEL_REQUIRES(lock_);
  [[nodiscard]] Index head_of_chain(Index scattered) const KEEL_REQUIRES(lock_);
  [[nodiscard]] FrameInfo describe(Index frame) const KEEL_REQUIRES(lock_);
  [[nodiscard]] Index step_over(Index at) const KEEL_REQUIRES(lock_);
  [[nodiscard]] Index free_run_over(Index frame) const KEEL_REQUIRES(lock_);
  [[nodiscard]] Index free_run_around(Index first, Index end) const KEEL_REQUIRES(lock_);
  void audit_lists(const FreeCensus& census) const KEEL_REQUIRES(lock_);

  const Index capacity_;
  std::uint16_t* free_in_block_ KEEL_PT_GUARDED_BY(lock_) = nullptr;
  Frame* frames_ = nullptr;  // records; guarded by lock_ but for those of runs, see above

  // What every call changes stands together, and away from what none does.
  alignas(kCacheLinePairBytes) mutable Mutex lock_{LockRank::kPageAllocator, Mutex::Wait::kSpin};
  std::uint64_t free_ KEEL_GUARDED_BY(lock_) = 0;
  std::uint64_t present_ KEEL_GUARDED_BY(lock_) = 0;
  // Copies of free_ and present_ for readers without the lock; relaxed, nothing hangs on them.
  std::atomic<std::uint64_t> free_hint_{0};
  std::atomic<std::uint64_t> present_hint_{0};
  FreeBins bins_ KEEL_GUARDED_BY(lock_);
  BlockCounts blocks_ KEEL_GUARDED_BY(lock_);
};

// The runs of a gathered chain, for Window::map(). Threads: the chain's owner.
class ChainSource final : public FrameSource {
 public:
  ChainSource(const PageAllocator& allocator, Pfn first);
  void rewind() override { at_ = first_; }
  bool next(FrameRun& run) override;

 private:
  const PageAllocator& allocator_;
  std::uint32_t first_;
  std::uint32_t at_;
};

}  // namespace keel

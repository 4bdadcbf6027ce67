// The one order in which keel's locks are taken, checked at run time in debug builds.
//
// A thread may take a lock only if its rank is greater than that of every lock it holds. Outer
// locks stand first: a client's object lock is outside them all and has no rank here.
#pragma once

#include <cstdint>

namespace keel {

enum class LockRank : std::uint8_t {
  kJournalClose = 1,         // cil: one switch of contexts at a time
  kJournalSwitchTurn = 2,    // cil: whoever has kJournalSwitch next
  kJournalSwitch = 3,        // cil: whoever has all parts of the context lock, or has them next
  kJournalContext = 4,       // cil: the context lock's first part, of one CPU; the others by index
  kJournalContextLast = 35,  // cil: the last part that there can be
  kJournalState = 36,        // cil: the state slots, written by one thread at a time
  kJournalSpace = 38,        // cil: reservations of log space and memory
  kJournalPush = 40,         // cil: whose turn it is to push, checkpoints in flight
  kJournalInfo = 42,         // cil: what is recovered; what info() tells (never nested)
  kJournalFollow = 44,       // cil: where followers stand
  kJournalStable = 45,       // cil: stable sequence, its waiters, the first error
  kJournalCallbacks = 47,    // cil: callbacks that wait for a sequence
  kJournalAilTurn = 49,      // cil: whoever has kJournalAil next
  kJournalAil = 50,          // cil: buckets of items in the log
  kLogFlush = 58,            // cil: one flush of a buffered log at a time
  kLogDevice = 60,           // cil: error latch
  kPoolUpkeep = 68,          // alloc: one round of a pool's thread
  kPoolTurn = 69,            // alloc: whoever has kPool next
  kPool = 70,                // alloc: growth and trim of the pool
  kPoolReclaim = 72,         // alloc: shrinkers, one pass at a time
  kCacheDrain = 74,          // alloc: one drain of the CPU caches at a time
  kCacheGrants = 76,         // alloc: limits of one CPU's cache
  kCacheShelf = 78,          // alloc: idle buffers of one size class
  kPageAllocator = 80,       // alloc: free runs of frames
  kPurgeTurn = 89,           // vmap: whoever has kPurge next
  kPurge = 90,               // vmap: one purge at a time
  kWindow = 100,             // vmap: address ranges, the first shard; the others follow by index
  kWindowLast = 131,         // vmap: the last shard that there can be
  kFrameStore = 140,         // vmap: growth and trim
  kLeaf = 250,               // takes nothing below it
};

// Debug builds abort with both ranks when the order is broken; release builds never call these.
void lock_rank_acquire(LockRank rank);
void lock_rank_release(LockRank rank);

// For a call that may run reclaim, each time, also if it does not come to that: a shrinker may take
// any lock of a layer above, so the caller must hold none. Aborts with the rank of one that is
// held. Source: lockdep's fs_reclaim map.
void lock_rank_may_reclaim();

}  // namespace keel

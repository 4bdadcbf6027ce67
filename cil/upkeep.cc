// Upkeep: one thread that gets items to leave a log that fills up, moves the tail, and records the
// head of a journal that rests.
//
// An item with a home is asked to write itself there. One without is logged again, at the head, out
// of the space that is set aside for that; what it takes there it frees at the tail.
// Source: xfsaild, log covering (XFS).

#include <algorithm>
#include <utility>

#include "journal_impl.h"
#include "keel/base/check.h"
#include "keel/base/os.h"
#include "keel/base/scopes.h"
#include "space.h"

namespace keel {
namespace {

constexpr std::uint64_t kDefaultCoverNs = 5'000'000'000;
// Between two passes while somebody waits and items are on their way home.
constexpr std::uint64_t kRetryNs = 10'000'000;
// Logged again at a time of others than the oldest bucket's items: so much, or less.
constexpr std::uint64_t kEnoughAgainBytes = std::uint64_t{1} << 20;
// Items that are looked at for that, while no commit can go on.
constexpr std::size_t kMostSeen = 65'536;

}  // namespace

void Journal::Impl::nudge() {
  MutexLock lock(upkeep_mutex);
  upkeep_nudged = true;
  upkeep_wanted.notify_one();
}

// First said, so that who is woken before the pass begins does not call the log full.
void Journal::Impl::ask_for_pass() {
  if (space.contended()) {
    space.pass_asked();
    nudge();
  }
}

bool Journal::Impl::upkeep_due() const {
  const std::uint64_t log_bytes = file.geometry().data_bytes;
  return space.sums().used.value() > log_bytes - log_bytes / 4;
}

void Journal::Impl::upkeep_loop() {
  prepare_thread();
  const std::uint64_t cover_ns =
      settings.cover_after_ns != 0 ? settings.cover_after_ns : kDefaultCoverNs;
  bool hope = false;
  for (;;) {
    bool idle = false;
    {
      MutexLock lock(upkeep_mutex);
      while (!upkeep_nudged && !upkeep_stopping && !idle) {
        const Sequence before = cil.sequence();
        const std::uint64_t orders = cil.orders_taken();
        const bool retry = hope && space.contended();
        const bool woken = upkeep_wanted.wait_for(upkeep_mutex, retry ? kRetryNs : cover_ns);
        // What gathers unforced may gather for hours: it is a commit to it that ends a rest. (Where
        // nothing gathers, what was committed was nothing.)
        const Cil::Current now = cil.current();
        idle = !woken && !retry && now.sequence == before &&
               (!now.is_open || cil.orders_taken() == orders);
        if (!woken && retry) {
          break;
        }
      }
      if (upkeep_stopping) {
        return;
      }
      upkeep_nudged = false;
    }
    if (stable.failed()) {
      hope = false;
      continue;
    }
    space.pass_begins();
    hope = upkeep_pass(idle);
    space.pass_ended(hope);
  }
}

bool Journal::Impl::upkeep_pass(bool idle) {
  const bool wanted = space.tail_wanted();
  bool hope = false;
  bool homeless = false;
  if (space.memory_wanted()) {
    hope = trim_shadows();
  }
  if (wanted || upkeep_due()) {
    const TailPosition tail = ail.tail();
    const PushSums sums = push_items(tail.lsn + Bytes(file.geometry().data_bytes / 4));
    hope = hope || sums.under_way != 0;
    homeless = sums.homeless != 0;
  }
  Status status = move_tail(wanted);
  // After that: what an earlier round has freed may be what this one takes.
  if (status.ok() && homeless) {
    hope = log_again(kEnoughAgainBytes) || hope;
  }
  if (status.ok() && idle) {
    status = cover();
  }
  if (!status) {
    shut_down(status.error());
  }
  return hope;
}

// Asks every item below the target to go home, and counts those that have none.
Journal::Impl::PushSums Journal::Impl::push_items(Lsn target) {
  PushSums sums;
  Ail::Walk walk(ail, target);
  Ail::Batch batch;
  do {
    batch = walk.hold_next();
    sums.under_way += batch.pinned;
    for (std::size_t i = 0; i < batch.count; ++i) {
      LogItem& item = *batch.items[i];
      if (ItemAccess::has_home(item)) {
        sums.under_way += 1;
        home_push_type.store(item.type(), std::memory_order_relaxed);
        home_pushes_begun.fetch_add(1, std::memory_order_relaxed);
        (void)ItemAccess::push(item);
        home_pushes_ended.fetch_add(1, std::memory_order_relaxed);
      } else {
        sums.homeless += 1;
      }
      let_go_of(item, false, true);
    }
  } while (!batch.is_last);
  if (sums.under_way != 0) {
    request_push_of_open();  // a pinned tail
  }
  return sums;
}

// Puts the newest snapshots of the oldest items into the current context: of all in the oldest
// bucket, whatever they take, for until they have left it nothing is free (what is too much for one
// checkpoint, in parts); then of further ones until that is enough, so that what little is left of
// many checkpoints comes to stand in one. True if it did: then the context is pushed, and the tail
// moves when it is stable. True also if it may at a later time.
bool Journal::Impl::log_again(std::uint64_t enough_bytes) {
  const std::uint64_t unit = format::checkpoint_unit(block_bytes());
  // Only if somebody waits, and no more than once round the log until somebody was granted what he
  // waited for, or an item has left: or a log whose items all live for ever would be written again
  // and again.
  if (const std::uint64_t now = space.sums().grants + ail.departures(); now != again_since) {
    again_since = now;
    again_bytes = 0;
  }
  if (!space.tail_wanted() || again_bytes > file.geometry().data_bytes) {
    return false;
  }
  // Open transactions may have all that a checkpoint can take. They end; one that is cancelled
  // tells nobody, and the waiter must not take this pass for the last word.
  const LogSpace::AgainGrant grant = space.grant_again(unit);
  if (grant.log_bytes == 0) {
    request_push_of_open();  // Without what is in it there may be room.
    return !grant.is_last_word;
  }
  Again again{grant.log_bytes, std::min(enough_bytes, space.limits().set_aside_bytes)};
  Sequence sequence{};
  cil.lock_exclusive();
  if (!stable.failed()) {
    sequence = cil.sequence();
    again.used = cil.is_open() ? 0 : unit;
    CilPart& part = cil.first_part();
    // A part of it would take space and free none.
    if (again.used + cost_of_oldest(again) <= grant.room_bytes) {
      ail.for_items(kMostSeen, [&](LogItem& item) {
        return reach_bucket(item, again) && log_again_item(item, part, sequence, again);
      });
    }
    if (again.items != 0) {
      (void)cil.open();
      cil.add_cost(part, again.used);
    } else {
      again.used = 0;
    }
  }
  cil.unlock_exclusive();
  space.give_back({again.budget - again.used, 0});
  free_chain(again.trash);
  again_bytes += again.used;
  if (again.items != 0) {
    request_push(sequence);
  } else {
    request_push_of_open();  // Without what is in it there may be room.
  }
  return again.items != 0 || !grant.is_last_word;
}

// What it takes to log again what holds the tail, in whatever parts, as far as that can be.
std::uint64_t Journal::Impl::cost_of_oldest(Again& again) {
  Homeless oldest;
  ail.for_oldest(kMostSeen, [&](LogItem& item) {
    LogVector* vector = item.pinned() ? nullptr : ItemAccess::claim_shadow(item);
    if (vector != nullptr) {
      const bool usable = ItemAccess::is_newest_snapshot(item, *vector);
      oldest.items += usable ? 1 : 0;
      oldest.cost += usable ? vector->cost() : 0;
      put_again(item, vector, again);
    }
    return true;
  });
  return least_again(oldest, block_bytes()) - format::checkpoint_unit(block_bytes());
}

// A commit that was cancelled may have left another.
void Journal::Impl::put_again(LogItem& item, LogVector* vector, Again& again) {
  if (LogVector* left_over = ItemAccess::return_shadow(item, vector); left_over != nullptr) {
    left_over->next = again.trash;
    again.trash = left_over;
  }
}

// False if the item is of a bucket that is not to be begun: there is enough, or the tail will stay
// before it.
bool Journal::Impl::reach_bucket(LogItem& item, Again& again) {
  const Bucket* bucket = ItemAccess::bucket(item);
  if (again.bucket == nullptr || again.bucket == bucket) {
    again.bucket = bucket;
    return true;
  }
  again.bucket = bucket;
  again.is_oldest = false;
  return !again.stays && again.used < again.enough;
}

// False when the budget is used up, or so many were logged.
bool Journal::Impl::log_again_item(LogItem& item, CilPart& part, Sequence sequence, Again& again) {
  if (const IntentItem* intent = IntentAccess::intent(item);
      intent != nullptr && IntentAccess::is_done(*intent)) {
    return true;  // It leaves soon, and must not come to stand behind its done.
  }
  // Looked at before the shadow is claimed: completion exchanges the shadow and then unpins, so
  // what is claimed from an item that was still pinned may be older than what is stable by now. No
  // commit pins it meanwhile: the context lock is held.
  if (item.pinned()) {
    again.stays = true;  // It is in a checkpoint that will move it, unless that only orders it.
    return true;
  }
  LogVector* vector = ItemAccess::claim_shadow(item);
  if (vector == nullptr) {
    again.stays = true;  // for now, if it is a commit that has it
    return true;
  }
  const std::uint64_t most = again.is_oldest ? again.budget : std::min(again.budget, again.enough);
  const bool fits = again.used + vector->cost() <= most;
  const bool usable = ItemAccess::is_newest_snapshot(item, *vector);
  again.stays = again.stays || !usable;
  // It may be about to leave.
  if (!usable || !fits || !ItemAccess::try_pin(item)) {
    put_again(item, vector, again);
    return !usable || fits;
  }
  again.used += vector->cost();
  ++again.items;
  vector->order = cil.take_orders(1);
  ItemAccess::active(item, sequence) = vector;
  part.sums.packed_bytes += vector->packed_bytes;
  part.sums.bulk_blocks += vector->bulk_blocks;
  part.append(item, sequence);
  return again.items < kMostAgainItems;
}

// Frees standby snapshots of tracked items until that is enough. True if there may be more.
bool Journal::Impl::trim_shadows() {
  return trim_tracked([this](LogItem& item) {
    trim_shadow(item);
    return space.memory_wanted();
  });
}

// Calls trim(item) for tracked items that nothing else holds, until it says that it has enough.
// True if it has passed by one that something holds.
bool Journal::Impl::trim_tracked(const std::function<bool(LogItem&)>& trim) {
  Ail::Walk walk(ail, Lsn(UINT64_MAX));
  Ail::Batch batch;
  bool more = true;
  bool passed_by = false;
  do {
    batch = walk.hold_next();
    passed_by = passed_by || batch.pinned != 0;
    for (std::size_t i = 0; i < batch.count; ++i) {
      LogItem& item = *batch.items[i];
      more = more && trim(item);
      let_go_of(item, false, true);
    }
  } while (!batch.is_last && more);
  return passed_by;
}

Journal::Impl::Completed Journal::Impl::newest_complete() const {
  MutexLock lock(push_mutex);
  return completed;
}

// Records a newer tail in the state slots once that is worth two flushes: when somebody waits for
// space, or half of the log is used and an eighth could be had. The space counts as free after
// that.
Status Journal::Impl::move_tail(bool needed) {
  MutexLock lock(state_mutex);
  // Looked at first: if nothing is tracked afterwards, everything up to there is home.
  const Completed newest = newest_complete();
  const TailPosition found = ail.tail();
  Lsn tail = found.empty ? newest.end : found.lsn;
  format::CheckpointId predecessor = found.empty ? newest.id : found.predecessor;
  followers.hold(tail, predecessor, newest.end, space.most_behind());
  const std::uint64_t gain = (tail - state_tail).value();
  const std::uint64_t log_bytes = file.geometry().data_bytes;
  const bool worth_it = space.sums().used.value() > log_bytes / 2 && gain >= log_bytes / 8;
  if (gain == 0 || !(needed || worth_it)) {
    return {};
  }
  if (settings.flush_home) {
    const NoReclaimScope no_reclaim;  // A shrinker that forces the log may wait for this thread.
    if (auto status = settings.flush_home(); !status) {
      return status;
    }
  }
  state_tail = tail;
  state_tail_predecessor = predecessor;
  // A bucket stands there only when all before it is stable.
  state_stable = std::max({state_stable, newest.end, tail});
  if (auto status = write_state(0); !status) {
    return status;
  }
  // Before the space behind the tail may be written over; not if it never will be.
  followers.drop_below(tail);
  space.tail_moved(tail);
  return {};
}

// may_start() sees to it that what is complete by now is near enough.
Status Journal::Impl::keep_state_near(Lsn end) {
  const Bytes reach(file.geometry().data_bytes / 2);
  // First without the lock, which is held while a client flushes what is home: no force waits for
  // that. Acquire pairs with write_state().
  if (end - Lsn(written_stable.load(std::memory_order_acquire)) <= reach) {
    return {};
  }
  MutexLock lock(state_mutex);
  if (end - state_stable <= reach) {
    return {};
  }
  state_stable = std::max(state_stable, newest_complete().end);
  return write_state(0);
}

// A journal that rests: the end of what is stable is recorded, so that rot in it will be known for
// damage, and the tail is brought up to date. Nothing is written for what is recorded already.
Status Journal::Impl::cover() {
  if (auto status = move_tail(true); !status) {
    return status;
  }
  MutexLock lock(state_mutex);
  const Lsn end = newest_complete().end;
  if (state_stable >= end) {
    return {};
  }
  state_stable = end;
  return write_state(0);
}

Status Journal::Impl::write_state(std::uint64_t flags) {
  format::StateSlot state{};
  state.incarnation = incarnation;
  state.incarnation_start_lsn = incarnation_start.value();
  state.tail_lsn = state_tail.value();
  state.tail_predecessor = state_tail_predecessor;
  state.stable_lsn = state_stable.value();
  state.flags = flags;
  JournalCounters::add(counters.flushes, 2);
  const Status status = file.write_state(state);
  if (status.ok()) {
    written_stable.store(state.stable_lsn, std::memory_order_release);
  }
  MutexLock lock(info_mutex);
  info = file.info();
  return status;
}

}  // namespace keel

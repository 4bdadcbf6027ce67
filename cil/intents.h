// Intents inside the journal: the room that is held for their dones, taking one back, and those
// that recovery found.
//
// I1 What an intent holds is in LogSpace's held bytes, and its memory in Impl::held_memory; both
//    from its first commit to its done's, but while a transaction of begin_done() has them.
// Locks: an intent's fields are its client's; they change with the context lock held shared.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "keel/cil/intent_item.h"
#include "keel/cil/recovery.h"
#include "log_space.h"

namespace keel {

struct LogVector;

// Room for one done, alone in its checkpoint.
[[nodiscard]] Reservation done_reservation(std::uint32_t block_bytes);

// The journal's way to the private part of intents and dones.
struct IntentAccess {
  // nullptr if the item is something else.
  static IntentItem* intent(LogItem& item);
  static DoneItem* done(LogItem& item);
  static IntentItem& intent_of(DoneItem& done) { return done.intent_; }

  static Journal*& journal(IntentItem& intent) { return intent.journal_; }
  static Sequence& logged(IntentItem& intent) { return intent.logged_; }
  static bool& holds(IntentItem& intent) { return intent.holds_; }
  static bool& is_done(IntentItem& intent) { return intent.done_; }
  static bool is_done(const IntentItem& intent) { return intent.done_; }
};

// An intent that recovery found without a done, and its payload.
struct OwnedIntent {
  OwnedIntent(std::uint64_t id, const RecoveredRegion& bytes);

  const std::vector<std::byte> payload;
  IntentItem item;
};

// Gathers intents that are not done from checkpoints in the order of the log.
class IntentCollector {
 public:
  // May throw std::bad_alloc.
  void add(const RecoveredCheckpoint& checkpoint);
  // In the order in which they stand in the log.
  [[nodiscard]] std::vector<std::unique_ptr<OwnedIntent>> take();

 private:
  void forget(std::uint64_t id);
  std::vector<std::unique_ptr<OwnedIntent>> found_;  // nullptr: done, or logged again
  std::unordered_map<std::uint64_t, std::size_t> places_;
};

}  // namespace keel

// Intents inside the journal: the room that is held for their dones, taking one back, and those
// that recovery found.
//
// I1 What an intent holds is in LogSpace's `held`, from its first commit to its done's, but while a
//    transaction of begin_done() has it.
// Locks: an intent's fields are its client's; they change under the caller's lock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "keel/cil/intent_item.h"
#include "keel/cil/recovery.h"
#include "log_space.h"

namespace keel {

struct LogVector;

// Room for one done, alone in its checkpoint: its bytes and a checkpoint_unit(), three blocks. It
// is most often less, but the last done of a full log may have to be a checkpoint of its own, and
// what the others gave back has been granted to somebody else by then.
[[nodiscard]] Reservation done_reservation(std::uint32_t block_bytes);

// The journal's way to the private part of intents and dones.
struct IntentAccess {
  // nullptr if the item is something else.
  static IntentItem* intent(LogItem& item);
  static DoneItem* done(LogItem& item);
  static IntentItem& intent_of(DoneItem& done) { return done.intent_; }
  static bool is_done_of(LogItem& item, const IntentItem& intent) {
    const DoneItem* found = done(item);
    return found != nullptr && &found->intent_ == &intent;
  }

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

// Gathers intents that are not done from checkpoints in the order of the log. Of `most` at a time:
// a journal never has more open than its log has room for their dones.
class IntentCollector {
 public:
  explicit IntentCollector(std::uint64_t most) : most_(most) {}
  // Errors: kDamaged (more than that). May throw std::bad_alloc.
  [[nodiscard]] Status add(const RecoveredCheckpoint& checkpoint);
  // May throw std::bad_alloc.
  [[nodiscard]] std::vector<std::unique_ptr<OwnedIntent>> take();

 private:
  struct Found {
    std::uint64_t order;
    std::unique_ptr<OwnedIntent> intent;
  };
  const std::uint64_t most_;
  std::uint64_t order_ = 0;
  std::map<std::uint64_t, Found> found_;  // by id
};

}  // namespace keel

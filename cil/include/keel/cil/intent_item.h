// Intents: what has been begun and must be finished, by whoever is there after a crash.
//
//   IntentItem intent(id, payload);
//   transaction->log(intent); transaction->commit();           // begun with room for one intent
//   ... the work, in other transactions ...
//   DoneItem done(intent);
//   auto last = journal->begin_done(intent);                   // never waits for log space
//   last->log(done); last->commit();
//
// I1 A done that joins the checkpoint which its intent first joined takes the intent back: neither
//    is written.
// I2 Otherwise the intent holds the log's tail until its done is stable. It is not logged again
//    once its done is committed, so that in the log no intent stands behind its own done.
// I3 A committed intent holds log space and memory for its done, until the done is committed.
// Source: xfs_log_item intents, whiteouts, xfs_defer_ops (XFS).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "keel/cil/log_item.h"

namespace keel {

class Journal;

// Says in the log that something has been begun. Owner: the caller keeps item and payload alive and
// unchanged until release() is called, Journal::release() is not for it. Until its done is
// committed it holds three blocks of the log and a little (JournalStats::log_held), so a log has
// room for about a third as many open intents as it has blocks.
// Threads: one lock of the caller's guards an intent and its done.
class IntentItem : public LogItem {
 public:
  // `id` tells it from all others that are not done yet.
  IntentItem(std::uint64_t id, std::span<const std::byte> payload);

  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] std::span<const std::byte> payload() const { return payload_; }
  // Payload that begin() must allow for, beside counting it among its intents.
  [[nodiscard]] static std::size_t log_bytes(std::size_t payload_bytes);

 protected:
  void size(ItemSize& size) const override;
  void format(ItemFormatter& formatter) const override;

 private:
  friend struct IntentAccess;

  const std::uint64_t id_;
  const std::span<const std::byte> payload_;
  // Guarded by the caller's lock.
  Journal* journal_ = nullptr;
  Sequence logged_{};   // that it first joined; 0: none
  bool holds_ = false;  // room for its done
  bool done_ = false;   // its done is committed
};

// Says in the log that an intent's work is finished. It belongs into a transaction of begin_done(),
// or of begin() together with other items. The caller keeps it alive until the intent is released;
// one that took its intent back may go as soon as commit() has returned.
class DoneItem final : public LogItem {
 public:
  explicit DoneItem(IntentItem& intent);

  // Payload that begin() must allow for.
  [[nodiscard]] static std::size_t log_bytes();

 private:
  friend struct IntentAccess;
  void size(ItemSize& size) const override;
  void format(ItemFormatter& formatter) const override;
  Tracking committed(Lsn /*lsn*/) override { return Tracking::kRelease; }
  void release(bool aborted) override;

  IntentItem& intent_;
};

}  // namespace keel

// JournalShrinker: what a pool that runs short gets back from a journal.
//
// I1 First the standby snapshots that only save an allocation; then what the open context and the
//    checkpoints in flight hold, by having them written; last the snapshots of items without a
//    home: without them the log cannot be freed by logging again.
// I2 It holds no lock of the journal while it waits, waits for workers only, and not for long: a
//    caller that holds what a commit or an item's callback waits for gets nothing, late.
// I3 It allocates nothing.
// Threads: of the pool, or any that allocates outside a NoReclaimScope. An item's release() may be
// called on it.
#pragma once

#include "keel/alloc/shrinker.h"
#include "keel/cil/journal.h"

namespace keel {

class JournalShrinker final : public Shrinker {
 public:
  explicit JournalShrinker(Journal::Impl& journal) : journal_(journal) {}

  [[nodiscard]] const char* name() const override { return "journal"; }
  [[nodiscard]] Bytes count() const override;
  Bytes scan(Bytes wanted) override;

 private:
  [[nodiscard]] std::uint64_t in_use() const;
  void trim(bool snapshots_too, std::uint64_t until_used);
  [[nodiscard]] LogVector* take_shadow(LogItem& item, bool snapshots_too);
  void write_all();
  [[nodiscard]] bool is_freed(Sequence sequence) const;

  Journal::Impl& journal_;
};

}  // namespace keel

// StallReport: something in a journal that gets nowhere, what it waits for, and who holds that.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "keel/base/units.h"

namespace keel {

// Handed to JournalConfig::on_stall; valid during the call.
struct StallReport {
  enum class What : std::uint8_t {
    kForce,   // force() of `sequence`: nothing has become stable since
    kBegin,   // the first that waits in begin()
    kCommit,  // a commit that holds a part of the context lock
    kPush,    // a checkpoint in flight
    kClose,   // close(), where it forces nothing
  };
  enum class WaitsFor : std::uint8_t {
    kFormat,            // the items' callbacks in a commit
    kContextLock,       // part `part` of it, which a commit holds; part UINT32_MAX: not known which
    kWrite,             // writes and flushes to the device, of the checkpoint at `lsn` (close: of
                        // the log's state, or JournalConfig::flush_home)
    kCompletion,        // the items' callbacks for the checkpoint at `lsn`, or the AIL
    kClientPush,        // LogItem::push() of an item of type holders[0].type
    kMemory,            // snapshots take all of cil_memory
    kTail,              // log space; the holders are among the items that hold the tail at `lsn`
    kOpenTransactions,  // log space: no item holds the tail, transactions have reserved the rest
    kThread,            // nobody has taken up the push
    kStableCallback,    // close: the callbacks of Journal::on_stable()
  };
  struct Holder {
    std::uint32_t type = 0;  // of the item
    std::uint64_t id = 0;    // of an object item, else 0
  };

  What what = What::kForce;
  WaitsFor waits_for = WaitsFor::kThread;
  std::uint64_t waited_ns = 0;
  Sequence sequence{};  // force, push: which; begin, commit: the current one
  Lsn lsn{};            // of the checkpoint or the tail; 0 if none
  std::uint32_t part = UINT32_MAX;
  std::array<Holder, 4> holders{};
  std::size_t holder_count = 0;   // in `holders`
  std::size_t items_at_tail = 0;  // all that hold it
  const char* line = "";          // all of it, for a person; no final newline
};

[[nodiscard]] const char* to_string(StallReport::What what);
[[nodiscard]] const char* to_string(StallReport::WaitsFor waits_for);

// Writes the report as one line that fits in `bytes`, ended by '\0'; returns its length. Allocates
// nothing: memory may be what is stalled.
std::size_t describe(const StallReport& report, char* text, std::size_t bytes);

}  // namespace keel

// What recovery hands over: whole checkpoints in order, and a report of what it found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel {

// One region's bytes: whole blocks first, then the rest; either may be empty.
struct RecoveredRegion {
  std::span<const std::byte> bulk;
  std::span<const std::byte> rest;

  [[nodiscard]] std::size_t size_bytes() const { return bulk.size() + rest.size(); }
  // Copies the first min(size_bytes(), bytes) bytes; returns how many.
  std::size_t copy_to(void* place, std::size_t bytes) const;
};

class RecoveredItem {
 public:
  RecoveredItem(std::uint32_t type, std::span<const RecoveredRegion> regions)
      : type_(type), regions_(regions) {}
  [[nodiscard]] std::uint32_t type() const { return type_; }
  [[nodiscard]] std::span<const RecoveredRegion> regions() const { return regions_; }

 private:
  std::uint32_t type_;
  std::span<const RecoveredRegion> regions_;
};

// Ranges as they were logged: where in something they stand, and what stands there. In ascending
// order, disjoint, each within what they belong to.
class RecoveredRanges {
 public:
  RecoveredRanges() = default;
  // Takes a table and the regions that it names. nullopt if they are not sound for `size_bytes`.
  [[nodiscard]] static std::optional<RecoveredRanges> from(std::span<const RecoveredRegion> regions,
                                                           std::uint64_t range_count,
                                                           std::uint64_t size_bytes);

  [[nodiscard]] std::size_t count() const { return regions_.empty() ? 0 : regions_.size() - 1; }
  [[nodiscard]] std::uint64_t offset(std::size_t i) const;
  [[nodiscard]] const RecoveredRegion& bytes(std::size_t i) const { return regions_[i + 1]; }
  // Copies each to its place; `whole` holds what they are ranges of.
  void apply_to(std::span<std::byte> whole) const;

 private:
  std::span<const RecoveredRegion> regions_;  // the table, then one for each range
};

// An ObjectItem as it was logged.
struct RecoveredObject {
  std::uint64_t id = 0;
  bool erased = false;
  bool partial = false;          // only `ranges` of it are here
  std::uint64_t size_bytes = 0;  // of the object, 0 if erased
  RecoveredRegion bytes{};       // all of them; empty if erased or partial
  RecoveredRanges ranges{};      // none but if partial

  // nullopt if the item is not an object. Errors in an object item's form: nullopt as well.
  [[nodiscard]] static std::optional<RecoveredObject> from(const RecoveredItem& item);

  // Makes an object what it was when it was logged. The caller has cut it, or grown it with zeros,
  // to size_bytes; an erased one is the caller's to remove.
  // Errors: kInvalidArgument: another size.
  [[nodiscard]] Status apply_to(std::span<std::byte> object) const;
};

// A RangeItem as it was logged.
struct RecoveredRange {
  std::uint64_t id = 0;
  std::uint64_t size_bytes = 0;  // of the memory that it covers
  RecoveredRanges ranges{};

  // nullopt if the item is not a range item, or not a sound one.
  [[nodiscard]] static std::optional<RecoveredRange> from(const RecoveredItem& item);

  // Puts what was logged into the memory, which holds what is home.
  // Errors: kInvalidArgument: another size.
  [[nodiscard]] Status apply_to(std::span<std::byte> memory) const;
};

// An IntentItem as it was logged. It stands until a RecoveredDone of its id follows.
struct RecoveredIntent {
  std::uint64_t id = 0;
  RecoveredRegion payload{};

  [[nodiscard]] static std::optional<RecoveredIntent> from(const RecoveredItem& item);
};

// A DoneItem as it was logged.
struct RecoveredDone {
  std::uint64_t id = 0;

  [[nodiscard]] static std::optional<RecoveredDone> from(const RecoveredItem& item);
};

// One checkpoint, whole and proven. Its memory is recovery's: valid during the handler's call only,
// and not in a child of fork().
struct RecoveredCheckpoint {
  Sequence sequence{};
  Lsn start{};
  Bytes bytes{};  // in the log
  std::uint64_t incarnation = 0;
  std::uint32_t record_count = 0;
  Lsn tail{};  // as recorded when it was written
  Lsn stable{};
  std::span<const RecoveredItem> items;
};

// Called for each checkpoint, oldest first. An error stops recovery and is what open() returns.
using RecoveryHandler = std::function<Status(const RecoveredCheckpoint&)>;

enum class LogEnd : std::uint8_t {
  kClean,    // closed in order, or nothing follows the last checkpoint
  kTorn,     // a checkpoint that was never known to be stable is incomplete: as a crash leaves it
  kDamaged,  // something below what is known to be stable does not prove itself; of a log that is
             // salvaged also: the next block cannot be read
};

struct RecoveryReport {
  LogEnd end = LogEnd::kClean;
  Lsn tail{};                // where reading began
  Lsn head{};                // end of the last good checkpoint
  Lsn stable{};              // highest LSN known to have been stable
  Sequence last_sequence{};  // of the last good checkpoint, 0 if none
  // What lies beyond `head`, as far as records show. Damage below `stable`: [head, stable) was
  // stable and is lost, with it the checkpoints from first_missing to at least stable_sequence.
  // Damage at or beyond it, in a log that is salvaged: what stands at `head` cannot be read, and
  // nothing is known to be lost.
  Sequence first_missing{};     // of the checkpoint that should stand at `head`; clean: 0
  Sequence stable_sequence{};   // newest known to have been stable
  Sequence newest_sequence{};   // newest of which anything was found
  std::uint64_t in_flight = 0;  // found checkpoints not known to have been stable; 64 at most
  std::uint64_t checkpoints = 0;
  std::uint64_t items = 0;
  Bytes bytes{};  // of the good checkpoints
  Bytes read{};   // from the device, scan for witnesses included
  std::uint64_t duration_ns = 0;
  const char* reason = "";  // static storage: why the end is where it is

  // Damage, and some of it is known to have been stable: [head, stable) is no empty range.
  [[nodiscard]] bool is_known_loss() const { return end == LogEnd::kDamaged && head < stable; }
  // One line for a person.
  [[nodiscard]] std::string message() const;
};

[[nodiscard]] const char* to_string(LogEnd end);

struct ScanOptions {
  bool buffered = false;
  // Called now and then with bytes read so far and the most there can be. May be empty. What it
  // throws ends the reading, and passes.
  std::function<void(Bytes done, Bytes most)> progress = {};
  // A block that cannot be read is damage, not the error kIo.
  bool salvage = false;
};

// Reads a log without changing it, as recovery would: every good checkpoint goes to `handler`, the
// report tells the rest; a damaged log is a report, not an Error.
// Errors: those of read_log_info(), kIo, kNoMemory, and what the handler returns.
[[nodiscard]] Result<RecoveryReport> scan_log(const std::string& path,
                                              const RecoveryHandler& handler,
                                              const ScanOptions& options = {});

}  // namespace keel

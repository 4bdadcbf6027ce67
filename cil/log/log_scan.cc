#include "log/log_scan.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "keel/base/no_throw.h"
#include "keel/base/os.h"
#include "log/checkpoint_reader.h"

namespace keel {
namespace {

class Scanner {
 public:
  Scanner(const LogFile& file, CheckpointReader& reader, const ScanProgress& progress)
      : file_(file), reader_(reader), progress_(progress) {
    const format::StateSlot& state = file.state();
    result_.last = state.tail_predecessor;
    result_.report.tail = Lsn(state.tail_lsn);
    result_.report.head = Lsn(state.tail_lsn);
    result_.report.stable = Lsn(state.stable_lsn);
    result_.report.last_sequence = Sequence(state.tail_predecessor.sequence);
  }

  Result<ScanResult> run(const RecoveryHandler& handler) {
    if (auto status = read_checkpoints(handler); !status) {
      return status.error();
    }
    if (auto status = judge_end(); !status) {
      return status.error();
    }
    result_.report.read = reader_.bytes_read();
    return result_;
  }

 private:
  // Where the log would reach its own tail.
  [[nodiscard]] Lsn limit() const {
    return result_.report.tail + Bytes(file_.geometry().data_bytes);
  }
  [[nodiscard]] bool closed_cleanly() const {
    return (file_.state().flags & format::kStateClean) != 0;
  }

  Status read_checkpoints(const RecoveryHandler& handler) {
    RecoveryReport& report = result_.report;
    for (;;) {
      report_progress();
      if (closed_cleanly() && report.head == report.stable) {
        report.reason = "closed in order";
        return {};
      }
      const ChainPosition position{report.head, result_.last, (limit() - report.head).value()};
      if (position.most_bytes < file_.geometry().block_bytes) {
        report.reason = "the log is full to its last block";
        return {};
      }
      auto outcome = reader_.read(position);
      if (!outcome) {
        return outcome.error();
      }
      if (!outcome->proven) {
        report.reason = outcome->reason;
        return {};
      }
      if (auto status = handler(reader_.checkpoint()); !status) {
        return status;
      }
      result_.last = outcome->id;
      report.head += Bytes(outcome->id.bytes);
      report.stable = std::max(report.stable, reader_.checkpoint().stable);
      report.last_sequence = reader_.checkpoint().sequence;
      report.checkpoints += 1;
      report.items += reader_.checkpoint().items.size();
      report.bytes += Bytes(outcome->id.bytes);
    }
  }

  Status judge_end() {
    RecoveryReport& report = result_.report;
    if (closed_cleanly()) {
      report.end = report.head == report.stable ? LogEnd::kClean : LogEnd::kDamaged;
      return {};
    }
    const bool damaged_for_sure = report.head < report.stable;
    bool leftovers = false;
    if (auto status = look_for_witnesses(leftovers); !status) {
      return status;
    }
    if (damaged_for_sure || report.head < report.stable) {
      report.end = LogEnd::kDamaged;
    } else {
      report.end = leftovers ? LogEnd::kTorn : LogEnd::kClean;
    }
    return {};
  }

  // Reads on from the end. `leftovers`: something of a later checkpoint of this incarnation is
  // there.
  Status look_for_witnesses(bool& leftovers) {
    RecoveryReport& report = result_.report;
    const std::uint32_t block = file_.geometry().block_bytes;
    const std::uint64_t incarnation = file_.state().incarnation;
    for (Lsn lsn = report.head; lsn < limit();) {
      report_progress();
      const auto record = reader_.read_record(lsn);
      if (!record) {
        return record.error();
      }
      const bool ours = record->has_value() && (*record)->incarnation == incarnation;
      if (ours) {
        leftovers = true;
        const Lsn vouched(std::min((*record)->stable_lsn, lsn.value()));
        report.stable = std::max(report.stable, vouched);
        lsn += Bytes(format::record_bytes((*record)->packed_bytes, (*record)->bulk_blocks, block));
      } else {
        lsn += Bytes(block);
      }
    }
    return {};
  }

  void report_progress() {
    if (progress_) {
      progress_(reader_.bytes_read(), Bytes(file_.geometry().data_bytes));
    }
  }

  const LogFile& file_;
  CheckpointReader& reader_;
  const ScanProgress& progress_;
  ScanResult result_{};
};

}  // namespace

Result<ScanResult> scan(const LogFile& file, Pool& pool, const RecoveryHandler& handler,
                        const ScanProgress& progress) {
  const std::uint64_t started = os().monotonic_ns();
  auto reader = CheckpointReader::make(file, pool);
  if (!reader) {
    return reader.error();
  }
  Scanner scanner(file, *reader, progress);
  auto result = scanner.run(handler);
  if (result) {
    result->report.duration_ns = os().monotonic_ns() - started;
  }
  return result;
}

Result<RecoveryReport> scan_log(const std::string& path, const RecoveryHandler& handler,
                                const ScanOptions& options) {
  return no_throw("scan a log", [&]() -> Result<RecoveryReport> {
    auto file = LogFile::open(path, DeviceMode::kReadOnly, options.buffered, default_pool());
    if (!file) {
      return file.error();
    }
    auto result = scan(*file, default_pool(), handler, options.progress);
    if (!result) {
      return result.error();
    }
    return result->report;
  });
}

const char* to_string(LogEnd end) {
  switch (end) {
    case LogEnd::kClean: return "clean";
    case LogEnd::kTorn: return "torn";
    case LogEnd::kDamaged: return "damaged";
  }
  return "unknown";
}

std::string RecoveryReport::message() const {
  return std::string(to_string(end)) + " end at LSN " + std::to_string(head.value()) +
         " after sequence " + std::to_string(last_sequence.value()) + " (" + reason +
         "); stable up to LSN " + std::to_string(stable.value()) + "; " +
         std::to_string(checkpoints) + " checkpoints, " + std::to_string(items) + " items, " +
         std::to_string(bytes.value()) + " bytes from LSN " + std::to_string(tail.value());
}

std::size_t RecoveredRegion::copy_to(void* place, std::size_t bytes) const {
  auto* to = static_cast<std::byte*>(place);
  const std::size_t from_bulk = std::min(bytes, bulk.size());
  if (from_bulk != 0) {
    std::memcpy(to, bulk.data(), from_bulk);
  }
  const std::size_t from_rest = std::min(bytes - from_bulk, rest.size());
  if (from_rest != 0) {
    std::memcpy(to + from_bulk, rest.data(), from_rest);
  }
  return from_bulk + from_rest;
}

std::optional<RecoveredObject> RecoveredObject::from(const RecoveredItem& item) {
  format::ObjectHeader header{};
  const auto regions = item.regions();
  if (item.type() != format::kTypeObject || regions.empty() || regions.size() > 2 ||
      regions[0].size_bytes() != sizeof header) {
    return std::nullopt;
  }
  regions[0].copy_to(&header, sizeof header);
  RecoveredObject object;
  object.id = header.id;
  if (regions.size() == 2) {
    object.bytes = regions[1];
  }
  const auto operation = static_cast<format::ObjectOperation>(header.operation);
  object.erased = operation == format::ObjectOperation::kErase;
  const bool sound = (object.erased || operation == format::ObjectOperation::kWrite) &&
                     header.size_bytes == object.bytes.size_bytes() &&
                     !(object.erased && header.size_bytes != 0);
  return sound ? std::optional(object) : std::nullopt;
}

}  // namespace keel

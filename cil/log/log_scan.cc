#include "log/log_scan.h"

#include <algorithm>

#include "keel/base/no_throw.h"
#include "keel/base/os.h"
#include "log/chain_reader.h"
#include "log/stable_evidence.h"
#include "log/witness_search.h"

namespace keel {
namespace {

class Scanner {
 public:
  Scanner(const LogFile& file, ChainReader& chain, const ScanProgress& progress,
          bool past_bad_blocks)
      : file_(file),
        chain_(chain),
        progress_(progress),
        past_bad_blocks_(past_bad_blocks),
        evidence_(file.state()) {
    const format::StateSlot& state = file.state();
    result_.report.tail = Lsn(state.tail_lsn);
    full_ = result_.report.tail + Bytes(file.geometry().data_bytes);
    records_below_ = std::min(full_, Lsn(state.stable_lsn) + reach_of(file.geometry()));
    chain_.set_records_below(records_below_);
    end_ = closed_cleanly() ? Lsn(state.stable_lsn) : full_;
  }

  Result<ScanResult> run(const RecoveryHandler& handler) {
    if (auto status = read_checkpoints(handler); !status) {
      return status.error();
    }
    if (auto status = judge_end(); !status) {
      return status.error();
    }
    complete_report();
    return result_;
  }

 private:
  [[nodiscard]] bool closed_cleanly() const {
    return (file_.state().flags & format::kStateClean) != 0;
  }
  [[nodiscard]] Lsn head() const { return chain_.position().lsn; }

  Status read_checkpoints(const RecoveryHandler& handler) {
    RecoveryReport& report = result_.report;
    for (;;) {
      report_progress();
      if (closed_cleanly() && head() == end_) {
        report.reason = "closed in order";
        return {};
      }
      if (head() >= records_below_) {
        report.reason = head() >= full_ ? "the log is full to its last block"
                                        : "as far as the newest state lets the log reach";
        return {};
      }
      auto outcome = chain_.next(end_);
      if (!outcome && past_bad_blocks_ && outcome.error().code == Errc::kIo) {
        report.reason = "a block that cannot be read";
        unreadable_ = true;
        return {};
      }
      if (!outcome) {
        return outcome.error();
      }
      if (!outcome->proven) {
        report.reason = outcome->reason;
        return {};
      }
      if (auto status = handler(chain_.checkpoint()); !status) {
        return status;
      }
      count(outcome->id);
    }
  }

  void count(const format::CheckpointId& id) {
    RecoveryReport& report = result_.report;
    evidence_.note(id);
    // At most for what came before it, whatever it says: else a forged one that is delivered would
    // make the log's own end damage, also of what a salvage has closed.
    evidence_.vouch(std::min(chain_.checkpoint().stable, chain_.checkpoint().start));
    report.checkpoints += 1;
    report.items += chain_.checkpoint().items.size();
    report.bytes += Bytes(id.bytes);
  }

  Status judge_end() {
    RecoveryReport& report = result_.report;
    if (closed_cleanly()) {
      report.end = head() == evidence_.stable() ? LogEnd::kClean : LogEnd::kDamaged;
      return {};
    }
    const auto leftovers =
        search_witnesses(chain_.reader(), file_, {head(), records_below_, full_}, past_bad_blocks_,
                         evidence_, [this] { report_progress(); });
    if (!leftovers) {
      return leftovers.error();
    }
    // What cannot be read may have been stable.
    if (unreadable_ || head() < evidence_.stable()) {
      report.end = LogEnd::kDamaged;
    } else {
      report.end = *leftovers ? LogEnd::kTorn : LogEnd::kClean;
    }
    return {};
  }

  void complete_report() {
    RecoveryReport& report = result_.report;
    result_.last = chain_.position().predecessor;
    report.head = head();
    report.last_sequence = Sequence(result_.last.sequence);
    report.stable = evidence_.stable();
    report.stable_sequence = evidence_.stable_sequence();
    report.newest_sequence = evidence_.newest();
    report.in_flight = evidence_.in_flight();
    report.read = chain_.reader().bytes_read();
    result_.hashed = chain_.reader().bytes_hashed();
    if (report.end != LogEnd::kClean) {
      report.first_missing = next(report.last_sequence);
    }
  }

  void report_progress() {
    if (progress_) {
      progress_(chain_.reader().bytes_read(), std::min(end_, records_below_) - result_.report.tail);
    }
  }

  const LogFile& file_;
  ChainReader& chain_;
  const ScanProgress& progress_;
  const bool past_bad_blocks_;
  bool unreadable_ = false;  // the chain ends at a block that cannot be read
  StableEvidence evidence_;
  Lsn full_{};           // where the log would reach its own tail
  Lsn end_{};            // where checkpoints must have ended
  Lsn records_below_{};  // where records must begin
  ScanResult result_{};
};

}  // namespace

Result<ScanResult> scan(const LogFile& file, const RecoveryHandler& handler,
                        const ScanProgress& progress, const ReadAheadOptions& reading) {
  const std::uint64_t started = os().monotonic_ns();
  auto chain = ChainReader::make(file, reading);
  if (!chain) {
    return chain.error();
  }
  Scanner scanner(file, *chain, progress, reading.past_bad_blocks);
  auto result = scanner.run(handler);
  if (result) {
    result->report.duration_ns = os().monotonic_ns() - started;
  }
  return result;
}

Result<RecoveryReport> scan_log(const std::string& path, const RecoveryHandler& handler,
                                const ScanOptions& options) {
  return no_throw("scan a log", [&]() -> Result<RecoveryReport> {
    const auto pool = try_default_pool();
    if (!pool) {
      return pool.error();
    }
    auto file = LogFile::open(path, DeviceMode::kReadOnly, options.buffered, **pool);
    if (!file) {
      return file.error();
    }
    auto result = scan(*file, handler, options.progress, {.past_bad_blocks = options.salvage});
    if (!result) {
      return result.error();
    }
    return result->report;
  });
}

}  // namespace keel

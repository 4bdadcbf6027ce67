#include "log_text.h"

#include <array>
#include <cstdio>

namespace keel::tools {
namespace {

void line(const char* name, const std::string& value) {
  std::printf("  %-15s %s\n", name, value.c_str());
}

std::string exact(Bytes bytes) { return human(bytes) + " (" + grouped(bytes.value()) + " bytes)"; }

std::string number(std::uint64_t value) { return std::to_string(value); }

std::string io_text(const LogInfo& info) {
  return info.buffered ? "through the page cache"
                       : "direct, in units of " + number(info.alignment) + " bytes";
}

}  // namespace

std::string hex(std::uint64_t value) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

Json to_json(const LogInfo& info) {
  return {{"uuid", keel::to_string(info.uuid)},
          {"format_version", info.format_version},
          {"created", utc(info.created_realtime_ns)},
          {"file_bytes", info.file.value()},
          {"data_bytes", info.data.value()},
          {"block_bytes", info.block_bytes},
          {"max_checkpoint_bytes", info.max_checkpoint.value()},
          {"alignment", info.alignment},
          {"buffered", info.buffered},
          {"copy_on_write", info.copy_on_write},
          {"valid_superblocks", info.valid_superblocks},
          {"valid_states", info.valid_states},
          {"state_generation", info.state_generation},
          {"incarnation", hex(info.incarnation)},
          {"tail_lsn", info.tail.value()},
          {"stable_lsn", info.stable.value()},
          {"clean", info.clean}};
}

// What was stable and is gone: [from, to), or null.
Json lost_range(const RecoveryReport& report) {
  return report.is_known_loss() ? Json{report.head.value(), report.stable.value()} : Json(nullptr);
}

Json to_json(const RecoveryReport& report) {
  return {{"end", keel::to_string(report.end)},
          {"reason", report.reason},
          {"message", report.message()},
          {"first_missing_sequence", report.first_missing.value()},
          {"stable_sequence", report.stable_sequence.value()},
          {"newest_sequence_seen", report.newest_sequence.value()},
          {"in_flight", report.in_flight},
          {"lost_lsn_range", lost_range(report)},
          {"tail_lsn", report.tail.value()},
          {"head_lsn", report.head.value()},
          {"stable_lsn", report.stable.value()},
          {"last_sequence", report.last_sequence.value()},
          {"checkpoints", report.checkpoints},
          {"items", report.items},
          {"bytes", report.bytes.value()},
          {"read_bytes", report.read.value()},
          {"duration_ns", report.duration_ns}};
}

void print_text(const std::string& path, const LogInfo& info) {
  std::printf("%s\n", printable(path).c_str());
  line("uuid", keel::to_string(info.uuid));
  line("format version", number(info.format_version));
  line("created", utc(info.created_realtime_ns));
  line("file", exact(info.file));
  line("log", exact(info.data) + ", blocks of " + number(info.block_bytes));
  line("max checkpoint", exact(info.max_checkpoint));
  line("I/O", io_text(info));
  line("superblocks", number(static_cast<std::uint64_t>(info.valid_superblocks)) + " of 2 valid");
  line("state slots", number(static_cast<std::uint64_t>(info.valid_states)) +
                          " of 2 valid, generation " + number(info.state_generation));
  line("incarnation", hex(info.incarnation));
  line("tail", "LSN " + number(info.tail.value()));
  line("stable", "LSN " + number(info.stable.value()) + " or further");
  line("closed", info.clean ? "in order" : "no: in use, or its user ended without closing it");
}

void print_text(const RecoveryReport& report) {
  std::printf("  %-15s %s (%s)\n", "end", keel::to_string(report.end), report.reason);
  line("tail", "LSN " + number(report.tail.value()));
  line("head", "LSN " + number(report.head.value()) + ", after sequence " +
                   number(report.last_sequence.value()));
  line("stable", "LSN " + number(report.stable.value()) + ", sequence " +
                     number(report.stable_sequence.value()) + ", or further");
  if (report.end != LogEnd::kClean) {
    line("missing", "from sequence " + number(report.first_missing.value()) + " on; newest seen " +
                        number(report.newest_sequence.value()) + ", in flight " +
                        number(report.in_flight));
  }
  if (report.end == LogEnd::kDamaged) {
    line("lost", report.is_known_loss()
                     ? "what was stable from LSN " + number(report.head.value()) + " to " +
                           number(report.stable.value())
                     : "nothing that is known; what stands at the head cannot be read");
  }
  line("checkpoints", grouped(report.checkpoints) + " with " + grouped(report.items) + " items, " +
                          exact(report.bytes));
}

Result<RecoveryReport> scan_whole(const std::string& path, const ScanOptions& options) {
  Progress progress;
  ScanOptions scan = options;
  scan.progress = [&progress](Bytes done, Bytes most) { progress.show("reading", done, most); };
  return scan_log(
      path, [](const RecoveredCheckpoint&) { return Status{}; }, scan);
}

std::vector<std::string> warnings_of(const LogInfo& info) {
  std::vector<std::string> warnings;
  if (info.copy_on_write) {
    warnings.emplace_back(
        "this file system copies on write: the promise that a commit never meets a full disk is "
        "withdrawn here");
  }
  if (info.untrusted[0] != '\0') {
    warnings.push_back(std::string(info.untrusted) + "; a journal refuses to open it");
  }
  if (info.valid_superblocks == 1) {
    warnings.emplace_back("one of the two superblocks is damaged; the other one is used");
  }
  if (info.valid_states == 1) {
    warnings.emplace_back(
        "one of the two state slots is incomplete, as a crash may leave it; the other one is used");
  }
  return warnings;
}

Json warn_of(const std::string& path, const LogInfo& info) {
  Json list = Json::array();
  for (const std::string& text : warnings_of(info)) {
    warn(path, text);
    list.push_back(text);
  }
  return list;
}

void print_info(const Context& context, const std::string& path, const LogInfo& info) {
  const Json warnings = warn_of(path, info);
  if (context.json) {
    print_json({{"ok", true}, {"path", path}, {"log", to_json(info)}, {"warnings", warnings}});
  } else {
    print_text(path, info);
  }
}

}  // namespace keel::tools

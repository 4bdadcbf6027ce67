// What a log says of itself, and what was found in it, as text and as JSON.
#pragma once

#include <string>
#include <vector>

#include "command.h"
#include "keel/cil/log_file.h"
#include "keel/cil/recovery.h"
#include "output.h"

namespace keel::tools {

[[nodiscard]] Json to_json(const LogInfo& info);
[[nodiscard]] Json to_json(const RecoveryReport& report);
void print_text(const std::string& path, const LogInfo& info);
void print_text(const RecoveryReport& report);

// Proves every checkpoint; shows how far it is on a terminal. Errors: those of scan_log().
[[nodiscard]] Result<RecoveryReport> scan_whole(const std::string& path,
                                                const ScanOptions& options);

// What a user of this log should know; empty if nothing.
[[nodiscard]] std::vector<std::string> warnings_of(const LogInfo& info);
// Prints them to standard error; returns them for JSON.
Json warn_of(const std::string& path, const LogInfo& info);

// The whole answer of a command whose result is the log itself, warnings included.
void print_info(const Context& context, const std::string& path, const LogInfo& info);

// 64-bit random numbers: JSON readers would round them.
[[nodiscard]] std::string hex(std::uint64_t value);

}  // namespace keel::tools

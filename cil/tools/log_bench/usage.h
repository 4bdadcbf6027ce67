// What a run takes from the machine: CPU time of the process, bytes that its disk has written.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace keel::bench {

// User and kernel, of all threads of the process.
[[nodiscard]] double process_cpu_seconds();

// Bytes that the device under `path` has written since it was there, by its own counters: of all
// processes. Nothing where the device has none.
[[nodiscard]] std::optional<std::uint64_t> device_written_bytes(const std::string& path);

}  // namespace keel::bench

// What a run gave, as the members of a JSON object.
#pragma once

#include <nlohmann/json.hpp>

#include "log_bench/load.h"

namespace keel::bench {

// "workload", "threads", "object_bytes", "commits", "seconds", "rate_per_s", "p50_us" to "max_us"
// of a commit, "slowest_thread" and "fastest_thread" (commits) and "fairness" (one over the other),
// "payload_bytes", "payload_mb_per_s", "log_bytes", "disk_bytes", "cpu_seconds",
// "cpu_us_per_commit", "forces", "last_force_ms". Null: not known, or there was no commit to take
// it from.
[[nodiscard]] nlohmann::ordered_json to_json(const LoadPlan& plan, const LoadResult& result);

}  // namespace keel::bench

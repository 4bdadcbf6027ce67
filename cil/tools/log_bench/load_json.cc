#include "log_bench/load_json.h"

#include <algorithm>

#include "keel/measure/ticks.h"

namespace keel::bench {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(bool known, double value) { return known ? Json(value) : Json(); }

}  // namespace

Json to_json(const LoadPlan& plan, const LoadResult& result) {
  const bool any = result.commits != 0 && result.seconds > 0;
  const auto commits = static_cast<double>(result.commits);
  const double us = ns_per_tick() / 1000;
  // A quantile is the middle of a bucket, which the largest may lie below.
  const auto quantile = [&](double q) {
    return or_null(any, std::min(result.ticks.quantile(q), result.ticks.max()) * us);
  };
  const bool hot_set = use_of(plan.workload) == EngineUse::kHotSet;
  return {{"workload", to_string(plan.workload)},
          {"threads", hot_set ? 1 : plan.threads},
          {"object_bytes", plan.object_bytes},
          {"commits", result.commits},
          {"seconds", result.seconds},
          {"rate_per_s", or_null(any, commits / result.seconds)},
          {"p50_us", quantile(0.5)},
          {"p99_us", quantile(0.99)},
          {"p999_us", quantile(0.999)},
          {"max_us", or_null(any, result.ticks.max() * us)},
          {"slowest_thread", result.slowest_thread},
          {"fastest_thread", result.fastest_thread},
          {"fairness", or_null(any, static_cast<double>(result.slowest_thread) /
                                        static_cast<double>(result.fastest_thread))},
          {"payload_bytes", result.payload_bytes},
          {"payload_mb_per_s",
           or_null(any, static_cast<double>(result.payload_bytes) / 1e6 / result.seconds)},
          {"log_bytes", result.log_bytes == 0 ? Json() : Json(result.log_bytes)},
          {"disk_bytes", result.disk_bytes ? Json(*result.disk_bytes) : Json()},
          {"cpu_seconds", result.cpu_seconds},
          {"cpu_us_per_commit", or_null(any, result.cpu_seconds / commits * 1e6)},
          {"forces", result.forces},
          {"last_force_ms", result.force_seconds * 1e3}};
}

}  // namespace keel::bench

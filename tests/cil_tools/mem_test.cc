#include <set>
#include <string>

#include "binary.h"
#include "mem/bench_table.h"
#include "support/skip_case.h"

using namespace keel::tools;
using keel::tools::test::can_watch_children;
using keel::tools::test::run;
using keel::tools::test::run_and_interrupt;

namespace {

// A sanitizer's malloc ends the process at a limit where it is to give nullptr.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr const char* kWorkloads = "fifo,loop,fragmented";
constexpr std::size_t kSteps = 5;
#else
constexpr const char* kWorkloads = "fifo,loop,fragmented,limit";
constexpr std::size_t kSteps = 7;
#endif

}  // namespace

TEST_CASE("mem info says what the machine allows and what a pool is") {
  const auto text = run("mem info", "", false);
  CHECK(text.code == 0);
  CHECK(text.err.empty());
  for (const char* word : {"CPUs", "max_map_count", "shmem_enabled", "RLIMIT_MEMLOCK",
                           "control group limit", "capacity", "rseq", "size classes", "4,096K"}) {
    CAPTURE(word);
    CHECK(text.out.find(word) != std::string::npos);
  }
}

TEST_CASE("mem info as JSON has the machine, and the pool's config and statistics") {
  const auto outcome = run("mem info --json", "", false);
  CHECK(outcome.code == 0);
  const auto json = outcome.json();
  CHECK(json["ok"] == true);
  CHECK(json["machine"]["cpus"] >= json["machine"]["usable_cpus"]);
  CHECK(json["machine"]["max_map_count"] > 0);
  CHECK(json["machine"]["locking"].is_string());
  CHECK(json["pool"]["config"]["capacity_bytes"] > 0);
  CHECK(json["pool"]["config"]["max_mappings"] <= json["machine"]["max_map_count"]);
  CHECK(json["pool"]["restartable_sequences"].is_boolean());
  CHECK(json["pool"]["stats"]["classes"].size() == 64);
  CHECK(json["pool"]["stats"]["populated_bytes"] >= 8 << 20);
}

TEST_CASE("mem info gives the statistics as Prometheus text, and not as JSON at once") {
  const auto outcome = run("mem info --prometheus", "", false);
  CHECK(outcome.code == 0);
  CHECK(outcome.out.rfind("# HELP keel_pool_", 0) == 0);
  CHECK(outcome.out.find("\nkeel_pool_populated_bytes ") != std::string::npos);
  CHECK(run("mem info --prometheus --json", "", false).code == 2);
}

TEST_CASE("mem bench runs each workload on each source and gives rows") {
  const auto outcome =
      run(std::string("mem bench --json --seconds 0.1 --workload ") + kWorkloads, "", false);
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  const auto json = outcome.json();
  CHECK(json["ok"] == true);
  std::set<std::string> seen;
  for (const auto& row : json["rows"]) {
    CAPTURE(row.dump());
    seen.insert(row["workload"].get<std::string>() + " " + row["source"].get<std::string>());
    CHECK(row["operations"] > 0);
    CHECK(row["rate_per_s"] > 0);
    CHECK(row["p50_ns"] <= row["p99_ns"]);
    CHECK(row["p99_ns"] <= row["p999_ns"]);
    CHECK(row["p999_ns"] <= row["max_ns"]);
  }
  CHECK(seen.size() == kSteps + 1);  // The copy beside `fragmented` is a source of its own.
  CHECK(json["rows"][0]["live_bytes"] > 0);
}

TEST_CASE("mem bench prints a table, with the workloads that were asked for") {
  const auto outcome = run("mem bench --seconds 0.05 --threads 1 --workload loop", "", false);
  CHECK(outcome.code == 0);
  CHECK(outcome.out.rfind("workload", 0) == 0);
  CHECK(outcome.out.find("loop        4.0 MiB        malloc") != std::string::npos);
  CHECK(outcome.out.find("fifo") == std::string::npos);
}

TEST_CASE("mem bench that is interrupted prints what it has and exits with 130") {
  if (!can_watch_children()) {
    keel_test::skip_case("this kernel does not list a process's children");
    return;
  }
  const auto outcome =
      run_and_interrupt("mem bench --json --seconds 100 --workload fifo,loop", SIGINT, false);
  CAPTURE(outcome.err);
  CHECK(outcome.code == 130);
  CHECK(outcome.err.empty());
  const auto json = outcome.json();
  CHECK(json["ok"] == false);
  CHECK(json["interrupted"] == true);
  CHECK(json["rows"].size() == 2);  // Of the step that was under way; no other was begun.
}

TEST_CASE("durations are printed for people") {
  CHECK(duration(0) == "0 ns");
  CHECK(duration(61.7) == "62 ns");
  CHECK(duration(1849) == "1.8 us");
  CHECK(duration(123'456) == "123 us");
  CHECK(duration(12'345'678) == "12.3 ms");
  CHECK(duration(999.6) == "1.0 us");
  CHECK(duration(75e9) == "75.0 s");
}

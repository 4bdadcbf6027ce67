// The workloads of keel log bench on an engine of the tests.
#include "log_bench/load.h"

#include <doctest/doctest.h>

#include <atomic>

#include "log_bench/keel_engine.h"

using namespace keel;
using namespace keel::bench;

namespace {

std::atomic<unsigned> commits{0};

class CountingEngine : public Engine {
 public:
  Status commit(unsigned, std::uint64_t, const std::byte*) override {
    ++commits;
    return {};
  }
  Status force() override { return {}; }
  Status close() override { return {}; }
};

}  // namespace

TEST_CASE("a workload that is to stop makes no further commit, however few there were") {
  for (const Workload workload : {Workload::kW1, Workload::kW3, Workload::kW4}) {
    CAPTURE(to_string(workload));
    commits = 0;
    CountingEngine engine;
    LoadPlan plan;
    plan.workload = workload;
    plan.seconds = 10;
    plan.stopped = [] { return commits >= 3; };
    const auto result = run_load(engine, plan);
    REQUIRE(result.ok());
    CHECK(result->commits == 3);
  }
}

TEST_CASE("the memory that a workload takes does not grow with its log without end") {
  EngineConfig config;
  config.use = EngineUse::kAsync;
  config.log = usual_log_bytes(Workload::kW3);
  const Bytes usual = initial_pool_bytes(config);
  config.log = Bytes(std::uint64_t{1} << 40);
  CHECK(initial_pool_bytes(config) > usual);
  CHECK(initial_pool_bytes(config) < Bytes(std::uint64_t{512} << 20));
}

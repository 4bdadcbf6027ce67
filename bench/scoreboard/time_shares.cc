#include "scoreboard/time_shares.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kMayNotRecord = 77;  // exit status of the script

}  // namespace

Result<Figures> time_shares(const Setting& setting, const std::vector<std::string>& options,
                            const std::vector<std::string>& program) {
  std::vector<std::string> arguments{std::string(KEEL_BENCH_SOURCE_DIR) + "/lock_share.sh"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  arguments.push_back(setting.dir);
  arguments.insert(arguments.end(), program.begin(), program.end());
  auto figures = run_for_figures({std::move(arguments)});
  if (!figures) {
    return figures.error().value == kMayNotRecord ? Figures{} : figures;
  }
  if (!setting.smoke && (*figures)["samples"] == 0) {
    return Error{Errc::kNotFound, 0, "perf saw nothing of what the row asks for", 0};
  }
  return figures;
}

}  // namespace keel::bench

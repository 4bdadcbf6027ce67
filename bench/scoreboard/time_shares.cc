#include "scoreboard/time_shares.h"

namespace keel::bench {
namespace {

constexpr std::uint64_t kMayNotRecord = 77;  // exit status of the script

}  // namespace

Result<Figures> time_shares(const std::string& dir, const std::vector<std::string>& options,
                            const std::vector<std::string>& program) {
  std::vector<std::string> arguments{std::string(KEEL_BENCH_SOURCE_DIR) + "/lock_share.sh"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  arguments.push_back(dir);
  arguments.insert(arguments.end(), program.begin(), program.end());
  auto figures = run_for_figures({std::move(arguments)});
  return !figures && figures.error().value == kMayNotRecord ? Figures{} : figures;
}

}  // namespace keel::bench

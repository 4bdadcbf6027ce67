// keel_real_campaign: the campaigns on real kernel paths, in slices of seeds.
//
// A run that is told to stop (Ctrl-C) leaves nothing behind; it can be taken up where it was: each
// slice prints its line, and its last seed is the place.
#include <malloc.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "campaigns.h"
#include "environment.h"

namespace {

constexpr std::uint64_t kSeedsOfLine = 100;

}  // namespace

int main(int argument_count, char** arguments) {
  using namespace keel_test;
  CLI::App app("Campaigns of the journal on real kernel paths");
  std::string only;
  std::uint64_t first = 1;
  std::uint64_t count = 100;
  std::string names;
  for (const RealCampaign& campaign : campaigns()) {
    names += "\n  " + std::string(campaign.name) + ": " + campaign.what;
  }
  app.add_option("--only", only, "One campaign:" + names);
  app.add_option("--first", first, "First seed")->capture_default_str();
  app.add_option("--count", count, "Seeds")->capture_default_str();
  CLI11_PARSE(app, argument_count, arguments);
  // The judge's buffers stay in the heap: else each state costs page faults.
  (void)::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  (void)::mallopt(M_TRIM_THRESHOLD, 256 << 20);
  prepare_environment();
  judge_clocks();
  bool found = false;
  bool ok = true;
  for (const RealCampaign& campaign : campaigns()) {
    if (!only.empty() && only != campaign.name) {
      continue;
    }
    found = true;
    const std::uint64_t end = first + count;
    for (std::uint64_t seed = first; seed < end; seed += kSeedsOfLine) {
      const Tally tally = campaign.run(seed, std::min(kSeedsOfLine, end - seed));
      (void)std::printf("%s\n", tally.line(seed).c_str());
      for (const std::string& failure : tally.failures) {
        (void)std::printf("FAILED %s\n", failure.c_str());
      }
      (void)std::fflush(stdout);
      ok = ok && tally.ok();
      if (!tally.ok() || tally.skipped()) {
        break;
      }
    }
  }
  if (!found) {
    (void)std::fprintf(stderr, "there is no campaign %s\n", only.c_str());
    return 2;
  }
  return ok ? 0 : 1;
}

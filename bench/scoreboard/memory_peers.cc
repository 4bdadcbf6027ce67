#include "scoreboard/memory_peers.h"

#include <cstdio>
#include <set>

#include "scoreboard/driver.h"

namespace keel::bench {
namespace {

struct Setup {
  const char* name;     // as the table shows it
  const char* library;  // to be preloaded; nullptr: the C library's own
  const char* package;
  std::vector<std::string> environment;
  bool memory_only = false;
};

// "pinned": nothing is given back, "thp": huge pages besides. 32 MiB is the most that glibc takes
// as a threshold.
const std::vector<Setup>& setups() {
  static const char* const kGlibc =
      "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=8589934592";
  static const char* const kJemalloc =
      "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1,tcache_max:4194304";
  static const std::vector<Setup> all{
      {"glibc", nullptr, "libc6", {}},
      {"glibc pinned", nullptr, "libc6", {kGlibc}},
      {"glibc pinned thp", nullptr, "libc6", {std::string(kGlibc) + ":glibc.malloc.hugetlb=1"}},
      {"jemalloc", "libjemalloc.so.2", "libjemalloc2", {}},
      {"jemalloc pinned", "libjemalloc.so.2", "libjemalloc2", {kJemalloc}},
      {"jemalloc pinned thp",
       "libjemalloc.so.2",
       "libjemalloc2",
       {std::string(kJemalloc) + ",thp:always"}},
      {"jemalloc background",
       "libjemalloc.so.2",
       "libjemalloc2",
       {"MALLOC_CONF=background_thread:true"},
       true},
      {"mimalloc", "libmimalloc.so.2", "libmimalloc2.0", {}},
      {"mimalloc pinned", "libmimalloc.so.2", "libmimalloc2.0", {"MIMALLOC_ALLOW_DECOMMIT=0"}},
      {"mimalloc pinned thp",
       "libmimalloc.so.2",
       "libmimalloc2.0",
       {"MIMALLOC_ALLOW_DECOMMIT=0", "MIMALLOC_LARGE_OS_PAGES=1"}},
      {"tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4", {}},
      {"tcmalloc pinned",
       "libtcmalloc_minimal.so.4",
       "libtcmalloc-minimal4",
       {"TCMALLOC_RELEASE_RATE=0", "TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES=268435456"}},
      {"tcmalloc decommit",
       "libtcmalloc_minimal.so.4",
       "libtcmalloc-minimal4",
       {"TCMALLOC_AGGRESSIVE_DECOMMIT=1"},
       true},
      {"tbbmalloc", "libtbbmalloc_proxy.so.2", "libtbbmalloc2", {}},
      {"tbbmalloc thp",
       "libtbbmalloc_proxy.so.2",
       "libtbbmalloc2",
       {"TBB_MALLOC_USE_HUGE_PAGES=1"}},
  };
  return all;
}

void say_missing(const Setup& setup) {
  static std::set<std::string> said;
  if (said.insert(setup.package).second) {
    std::fprintf(stderr, "scoreboard: %s is not installed (third_party/setup.sh bench); skipped\n",
                 setup.package);
  }
}

}  // namespace

Result<Figures> run_driver(std::vector<std::string> arguments,
                           std::vector<std::string> peer_environment, const std::string& expected) {
  arguments.insert(arguments.begin(), sibling_program("memory_driver"));
  if (!expected.empty()) {
    arguments.insert(arguments.end(), {"--expect", expected});
  }
  return run_for_figures({std::move(arguments), std::move(peer_environment)});
}

Study driver_study(const Setting& setting, std::vector<std::string> arguments, PeerSet set,
                   bool static_pool) {
  if (setting.smoke) {
    arguments.emplace_back("--smoke");
  }
  const auto with_backend = [arguments](const char* backend) {
    auto all = arguments;
    all.insert(all.end(), {"--backend", backend});
    return all;
  };
  Study study;
  study.ours_once = setting.smoke;
  study.ours = [all = with_backend("keel")] { return run_driver(all); };
  for (const Setup& setup : setups()) {
    if ((setup.memory_only && set != PeerSet::kMemory) ||
        (setting.smoke && !setup.environment.empty())) {
      continue;
    }
    std::vector<std::string> environment = setup.environment;
    const std::string library = setup.library == nullptr ? "" : find_library(setup.library);
    if (setup.library != nullptr) {
      if (library.empty()) {
        say_missing(setup);
        continue;
      }
      environment.push_back("LD_PRELOAD=" + library);
    }
    study.peers.push_back({setup.name, [all = with_backend("malloc"), environment, library] {
                             return run_driver(all, environment, library);
                           }});
  }
  if (static_pool) {
    study.peers.push_back(
        {"static pool", [all = with_backend("static")] { return run_driver(all); }, true});
  }
  return study;
}

}  // namespace keel::bench

// keel mem info: what a pool of this machine can count on, and what a default one is.

#include <cstdio>

#include "command.h"
#include "keel/alloc/pool.h"
#include "mem/machine.h"
#include "output.h"

namespace keel::tools {
namespace {

// Populated before the pool is looked at: else nothing could have become a huge page.
constexpr Bytes kPopulated{std::uint64_t{8} << 20};

struct Options {
  bool prometheus = false;
};

Json to_json(const PoolFacts& facts, const PoolStats& stats) {
  const PoolConfig& config = facts.config;
  return {{"config",
           {{"capacity_bytes", config.capacity_bytes},
            {"chunk_bytes", config.chunk_bytes},
            {"window_bytes", config.window_bytes},
            {"kvmalloc_max_bytes", config.kvmalloc_max_bytes},
            {"max_mappings", stats.max_mappings},
            {"lock_memory", config.lock_memory},
            {"dump_memory", config.dump_memory},
            {"background", config.background},
            {"hardened", config.hardened},
            {"quarantine_bytes", config.quarantine_bytes}}},
          {"cpus", facts.cpus},
          {"restartable_sequences", facts.restartable_sequences},
          {"valgrind", facts.watched},
          {"huge_advice_taken", facts.huge_advice_taken},
          {"huge_bytes", facts.huge.value()},
          {"stats", Json::parse(to_json(stats))}};
}

void print_classes(const PoolStats& stats) {
  std::printf("  %-17s", "size classes");
  unsigned column = 0;
  for (const SizeClassStats& of : stats.classes) {
    if (column++ == 8) {
      std::printf("\n%20s", "");
      column = 1;
    }
    std::printf(" %7s", (grouped(of.size.value() >> 10) + "K").c_str());
  }
  std::printf("\n");
}

void print_text(const PoolFacts& facts, const PoolStats& stats) {
  const PoolConfig& config = facts.config;
  std::printf("a pool with the default settings\n");
  std::printf("  %-17s %s, in chunks of %s\n", "capacity",
              human(Bytes(config.capacity_bytes)).c_str(),
              human(Bytes(config.chunk_bytes)).c_str());
  std::printf("  %-17s %s of addresses, %s mappings\n", "window",
              human(Bytes(config.window_bytes)).c_str(), grouped(stats.max_mappings).c_str());
  std::printf("  %-17s up to %s\n", "kvmalloc", human(Bytes(config.kvmalloc_max_bytes)).c_str());
  std::printf("  %-17s of %u CPUs, %s\n", "caches", facts.cpus,
              facts.restartable_sequences ? "without locks (rseq)" : "with a lock each (no rseq)");
  std::printf("  %-17s advice %s; %s of %s\n", "huge pages",
              facts.huge_advice_taken ? "taken" : "refused", human(facts.huge).c_str(),
              human(stats.populated).c_str());
  std::printf("  %-17s %s of records and tables\n", "footprint", human(stats.metadata).c_str());
  print_classes(stats);
}

int run(const Context& context, const Options& options) {
  auto pool = Pool::create({});
  require(pool, "a pool with the default settings");
  require((*pool)->reserve(kPopulated), "a pool with the default settings");
  const PoolFacts facts = (*pool)->facts();
  const PoolStats stats = (*pool)->stats();
  if (options.prometheus) {
    std::fputs(to_prometheus(stats).c_str(), stdout);
    return kOk;
  }
  const Machine machine = read_machine();
  if (context.json) {
    print_json({{"ok", true}, {"machine", to_json(machine)}, {"pool", to_json(facts, stats)}});
  } else {
    print_text(machine);
    print_text(facts, stats);
  }
  return kOk;
}

}  // namespace

void add_mem_info(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, Options& options) {
    app.add_flag("--prometheus", options.prometheus,
                 "Print the pool's statistics as Prometheus text");
  };
  CLI::App* app = add_command<Options>(parent, context, "info",
                                       "Print what a memory pool can count on here", define, run);
  app->get_option("--prometheus")->excludes("--json");
}

}  // namespace keel::tools

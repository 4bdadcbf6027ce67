#include "mem/machine.h"

#include <sys/resource.h>
#include <sys/utsname.h>

#include <cstdio>
#include <fstream>

#include "keel/alloc/pool.h"
#include "keel/base/percpu.h"
#include "keel/measure/process.h"
#include "keel/vmap/system_limits.h"

namespace keel::tools {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::string kernel_release() {
  struct utsname name {};
  return ::uname(&name) == 0 ? std::string(name.sysname) + " " + name.release : "unknown";
}

// The word in brackets of "always within_size [advise] never".
std::string chosen_word(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const auto from = line.find('[');
  const auto to = line.find(']', from);
  return from == std::string::npos || to == std::string::npos
             ? "unknown"
             : line.substr(from + 1, to - from - 1);
}

std::string locking_result() {
  const auto pool = Pool::create({.capacity_bytes = 2 * kMiB,
                                  .window_bytes = 4 * kMiB,
                                  .initial_bytes = 2 * kMiB,
                                  .lock_memory = true,
                                  .background = false});
  if (pool.ok()) {
    return "works";
  }
  // The limit, mostly, which create() can only report as memory that it could not populate.
  return pool.error().message();
}

std::optional<Bytes> lock_limit() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::nullopt;
  }
  return Bytes(limit.rlim_cur);
}

std::string or_none(const std::optional<Bytes>& bytes) { return bytes ? human(*bytes) : "none"; }

Json or_null(const std::optional<Bytes>& bytes) { return bytes ? Json(bytes->value()) : Json(); }

}  // namespace

Machine read_machine() {
  return {.kernel = kernel_release(),
          .cpus = possible_cpus(),
          .usable_cpus = bench::usable_cpus(),
          .memory = machine_memory(),
          .group_limit = control_group_limit(),
          .max_map_count = max_map_count(),
          .shmem_huge_pages = chosen_word("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
          .lock_most = lock_limit(),
          .locking = locking_result()};
}

Json to_json(const Machine& machine) {
  return {{"kernel", machine.kernel},
          {"cpus", machine.cpus},
          {"usable_cpus", machine.usable_cpus},
          {"memory_bytes", machine.memory.value()},
          {"control_group_limit_bytes", or_null(machine.group_limit)},
          {"max_map_count", machine.max_map_count},
          {"shmem_huge_pages", machine.shmem_huge_pages},
          {"memlock_limit_bytes", or_null(machine.lock_most)},
          {"locking", machine.locking}};
}

void print_text(const Machine& machine) {
  std::printf("machine\n");
  std::printf("  %-17s %s\n", "kernel", machine.kernel.c_str());
  std::printf("  %-17s %u, %u usable\n", "CPUs", machine.cpus, machine.usable_cpus);
  std::printf("  %-17s %s, control group limit %s\n", "memory", human(machine.memory).c_str(),
              or_none(machine.group_limit).c_str());
  std::printf("  %-17s %s (vm.max_map_count)\n", "mappings",
              grouped(machine.max_map_count).c_str());
  std::printf("  %-17s %s (shmem_enabled)\n", "huge pages", machine.shmem_huge_pages.c_str());
  std::printf("  %-17s %s; limit %s (RLIMIT_MEMLOCK)\n", "locked memory",
              printable(machine.locking).c_str(), or_none(machine.lock_most).c_str());
}

}  // namespace keel::tools

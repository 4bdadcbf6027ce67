#include "keel/measure/process.h"

#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace keel::bench {

std::uint64_t resident_bytes() {
  const int fd = ::open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return 0;
  }
  char text[2048];
  const ssize_t bytes = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  text[bytes > 0 ? bytes : 0] = '\0';
  const char* line = std::strstr(text, "\nPss:");
  return line == nullptr ? 0 : std::strtoull(line + 5, nullptr, 10) * 1024;
}

std::uint64_t minor_faults() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_minflt);
}

bool pin_to_cpu(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return ::sched_setaffinity(0, sizeof set, &set) == 0;
}

ScopedPin::ScopedPin(unsigned cpu) {
  static_assert(sizeof(cpu_set_t) == sizeof before_);
  auto* set = new (before_) cpu_set_t;
  pinned_ = ::sched_getaffinity(0, sizeof *set, set) == 0 && pin_to_cpu(cpu);
}

ScopedPin::~ScopedPin() {
  if (pinned_) {
    ::sched_setaffinity(0, sizeof before_, std::launder(reinterpret_cast<cpu_set_t*>(before_)));
  }
}

unsigned usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 1;
}

bool is_loaded(const std::string& name) {
  struct Search {
    const std::string& name;
    bool found;
  } search{name, false};
  ::dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* argument) {
        auto* wanted = static_cast<Search*>(argument);
        wanted->found |= std::strstr(object->dlpi_name, wanted->name.c_str()) != nullptr;
        return 0;
      },
      &search);
  return search.found;
}

}  // namespace keel::bench

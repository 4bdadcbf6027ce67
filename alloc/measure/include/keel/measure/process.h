// What a measuring process asks of the system about itself. None of it allocates.
#pragma once

#include <cstdint>
#include <string>

namespace keel::bench {

// Resident memory as Pss: a page that is mapped n times (by anyone) counts 1/n each time, so that
// an alias of a page adds nothing. 0 if /proc cannot be read. Walks the page tables: about a
// millisecond for 100 MiB.
[[nodiscard]] std::uint64_t resident_bytes();

// Page faults of the process that needed no disk.
[[nodiscard]] std::uint64_t minor_faults();

// Binds the calling thread to one CPU; false where that is not allowed or the CPU is not there.
bool pin_to_cpu(unsigned cpu);

// Binds the calling thread while it lives, and lets it go where it could go before.
class ScopedPin {
 public:
  explicit ScopedPin(unsigned cpu);
  ~ScopedPin();
  ScopedPin(const ScopedPin&) = delete;
  ScopedPin& operator=(const ScopedPin&) = delete;

 private:
  alignas(8) unsigned char before_[128];  // a cpu_set_t, which only <sched.h> knows
  bool pinned_ = false;
};

// CPUs that the calling thread may run on.
[[nodiscard]] unsigned usable_cpus();

// True if a shared object whose path contains `name` is loaded.
[[nodiscard]] bool is_loaded(const std::string& name);

}  // namespace keel::bench

// SimTrace: what happened in a simulation, as a running hash and as text of the last events.
//
// Equal seeds must give equal hashes. So nothing goes in that depends on where memory lies, on real
// time, or on the machine: no pointers, no names of files outside /sim.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "keel/base/thread_scheduler.h"

namespace keel {

class SimTrace {
 public:
  struct Event {
    std::uint64_t step = 0;
    std::uint64_t now_ns = 0;
    std::uint32_t thread = 0;
    const char* what = "";   // static; its characters are hashed
    const char* where = "";  // same
    std::uint64_t a = 0;
    std::uint64_t b = 0;
  };

  // With KEEL_SIM_TRACE=path in the environment every event goes to a file too, path.1 for the
  // process's first trace: to compare two runs that should be the same.
  SimTrace();
  ~SimTrace();
  SimTrace(const SimTrace&) = delete;
  SimTrace& operator=(const SimTrace&) = delete;

  void add(const Event& event);
  [[nodiscard]] std::uint64_t hash() const { return hash_; }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  // The newest `most`, a line each, oldest first.
  void print(std::FILE* to, std::size_t most) const;
  // Those before and after that step; of one that is kept no more, how to see it.
  void print_around(std::FILE* to, std::uint64_t step) const;

 private:
  void mix(std::uint64_t value);
  void mix(const char* text);
  static void print(std::FILE* to, const Event& event);

  static constexpr std::size_t kKept = 32768;
  std::vector<Event> ring_ = std::vector<Event>(kKept);
  std::uint64_t count_ = 0;
  std::FILE* file_ = nullptr;
  std::uint64_t hash_ = 0x9e3779b97f4a7c15U;
};

[[nodiscard]] const char* to_string(ThreadPoint point);

}  // namespace keel

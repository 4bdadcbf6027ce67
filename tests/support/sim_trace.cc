#include "support/sim_trace.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

namespace keel {

const char* to_string(ThreadPoint point) {
  switch (point) {
    case ThreadPoint::kLock: return "lock";
    case ThreadPoint::kTryLock: return "try_lock";
    case ThreadPoint::kUnlock: return "unlock";
    case ThreadPoint::kCondVar: return "condition";
    case ThreadPoint::kWaitWord: return "wait_word";
    case ThreadPoint::kNotify: return "notify";
    case ThreadPoint::kYield: return "yield";
    case ThreadPoint::kStart: return "start";
    case ThreadPoint::kJoin: return "join";
    case ThreadPoint::kEnd: return "end";
    case ThreadPoint::kSerial: return "serial";
    case ThreadPoint::kIo: return "io";
    case ThreadPoint::kSleep: return "sleep";
    case ThreadPoint::kAtomic: return "atomic";
  }
  return "?";
}

SimTrace::SimTrace() {
  static std::atomic<int> traces{0};
  if (const char* path = std::getenv("KEEL_SIM_TRACE"); path != nullptr) {
    file_ = std::fopen((path + ("." + std::to_string(++traces))).c_str(), "w");
  }
}

SimTrace::~SimTrace() {
  if (file_ != nullptr) {
    (void)std::fclose(file_);
  }
}

void SimTrace::mix(std::uint64_t value) {
  hash_ = (hash_ ^ value) * 0x9fb21c651e98df25U;
  hash_ ^= hash_ >> 32;
}

void SimTrace::mix(const char* text) {
  // Texts tell kinds apart; the first eight characters do.
  std::uint64_t packed = 0;
  for (int i = 0; i < 8 && text[i] != '\0'; ++i) {
    packed = packed << 8 | static_cast<unsigned char>(text[i]);
  }
  mix(packed);
}

void SimTrace::add(const Event& event) {
  ring_[count_++ % kKept] = event;
  mix(event.step << 8 ^ event.thread);
  mix(event.now_ns);
  mix(event.what);
  mix(event.a);
  mix(event.b);
  if (file_ != nullptr) {
    print(file_, event);
  }
}

void SimTrace::print(std::FILE* to, const Event& event) {
  (void)std::fprintf(to, "  %8llu  %12llu ns  T%-2u  %-12s %-12s %llu %llu\n",
                     static_cast<unsigned long long>(event.step),
                     static_cast<unsigned long long>(event.now_ns), event.thread, event.what,
                     event.where, static_cast<unsigned long long>(event.a),
                     static_cast<unsigned long long>(event.b));
}

void SimTrace::print(std::FILE* to, std::size_t most) const {
  const std::uint64_t shown = std::min<std::uint64_t>({most, kKept, count_});
  for (std::uint64_t i = count_ - shown; i < count_; ++i) {
    print(to, ring_[i % kKept]);
  }
}

void SimTrace::print_around(std::FILE* to, std::uint64_t step) const {
  constexpr std::uint64_t kBefore = 40, kAfter = 10;
  const std::uint64_t oldest = count_ - std::min<std::uint64_t>(kKept, count_);
  std::uint64_t at = oldest;
  while (at < count_ && ring_[at % kKept].step < step) {
    ++at;
  }
  if (at == oldest && oldest != 0) {
    (void)std::fprintf(to, "what led to step %llu is shown by KEEL_SIM_STOP=%llu\n",
                       static_cast<unsigned long long>(step),
                       static_cast<unsigned long long>(step));
    return;
  }
  const std::uint64_t begin = std::max(oldest, at - std::min(at, kBefore));
  const std::uint64_t end = std::min(count_, at + kAfter);
  (void)std::fprintf(to, "around step %llu:\n", static_cast<unsigned long long>(step));
  for (std::uint64_t i = begin; i < end; ++i) {
    print(to, ring_[i % kKept]);
  }
}

}  // namespace keel

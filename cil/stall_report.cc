#include "keel/cil/stall_report.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>

namespace keel {
namespace {

// Text that stops when the room is used up.
class Line {
 public:
  Line(char* text, std::size_t bytes) : text_(text), bytes_(bytes) {}

  [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) {
    std::va_list values;
    va_start(values, format);
    const int length = std::vsnprintf(text_ + used_, bytes_ - used_, format, values);
    va_end(values);
    used_ = std::min(bytes_ - 1, used_ + static_cast<std::size_t>(std::max(length, 0)));
  }
  [[nodiscard]] std::size_t length() const { return used_; }

 private:
  char* text_;
  std::size_t bytes_;
  std::size_t used_ = 0;
};

}  // namespace

const char* to_string(StallReport::What what) {
  switch (what) {
    case StallReport::What::kForce: return "force";
    case StallReport::What::kBegin: return "begin";
    case StallReport::What::kCommit: return "commit";
    case StallReport::What::kPush: return "push";
    case StallReport::What::kClose: return "close";
  }
  return "unknown";
}

const char* to_string(StallReport::WaitsFor waits_for) {
  switch (waits_for) {
    case StallReport::WaitsFor::kFormat: return "its items' format()";
    case StallReport::WaitsFor::kContextLock: return "the context lock, which a commit holds";
    case StallReport::WaitsFor::kWrite: return "the device";
    case StallReport::WaitsFor::kCompletion: return "the items' callbacks";
    case StallReport::WaitsFor::kClientPush: return "a client's push()";
    case StallReport::WaitsFor::kMemory: return "cil_memory, all in use";
    case StallReport::WaitsFor::kTail: return "log space behind the tail";
    case StallReport::WaitsFor::kOpenTransactions: return "space of open transactions";
    case StallReport::WaitsFor::kThread: return "a thread that pushes";
    case StallReport::WaitsFor::kStableCallback: return "the callbacks of on_stable()";
  }
  return "unknown";
}

std::size_t describe(const StallReport& report, char* text, std::size_t bytes) {
  if (bytes == 0) {
    return 0;  // not even the end of a line fits
  }
  Line line(text, bytes);
  line.add("%s stalled for %" PRIu64 " ms at sequence %" PRIu64 ", waiting for %s",
           to_string(report.what), report.waited_ns / 1'000'000, report.sequence.value(),
           to_string(report.waits_for));
  if (report.part != UINT32_MAX) {
    line.add(" (part %" PRIu32 ")", report.part);
  }
  if (report.lsn != Lsn{}) {
    line.add(" at LSN %" PRIu64, report.lsn.value());
  }
  if (report.items_at_tail != 0) {
    line.add(", held by %zu items", report.items_at_tail);
  }
  for (std::size_t i = 0; i < report.holder_count; ++i) {
    const StallReport::Holder& holder = report.holders[i];
    line.add("%s type %" PRIu32 " id %" PRIu64, i == 0 ? ":" : ",", holder.type, holder.id);
  }
  return line.length();
}

}  // namespace keel

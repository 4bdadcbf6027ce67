#include "keel/base/check.h"

#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace keel {
namespace {
// Relaxed everywhere: the handler is a function pointer, nothing is published with it.
std::atomic<BugHandler> g_handler{abort_on_bug};
}  // namespace

const char* to_string(Bug bug) {
  switch (bug) {
    case Bug::kUnknownAddress: return "unknown address";
    case Bug::kInteriorPointer: return "interior pointer";
    case Bug::kDoubleFree: return "double free";
    case Bug::kDirectMapAddress: return "direct-map address";
    case Bug::kWrongSize: return "wrong size";
    case Bug::kOverrun: return "overrun";
    case Bug::kAllocationInNoAllocScope: return "allocation inside a NoAllocScope";
    case Bug::kItemInUse: return "log item in use";
    case Bug::kNestedTransaction: return "nested transaction";
    case Bug::kForceInCallback: return "force inside a callback of on_stable";
  }
  return "unknown bug";
}

BugHandler set_bug_handler(BugHandler handler) {
  return g_handler.exchange(handler != nullptr ? handler : abort_on_bug, std::memory_order_relaxed);
}

void report_bug(const BugReport& report) { g_handler.load(std::memory_order_relaxed)(report); }

void abort_on_bug(const BugReport& report) {
  // In pieces: what is not known of this bug is not printed as zeros.
  std::fprintf(stderr, "keel: bug in the caller of %s: %s", report.call, to_string(report.bug));
  if (report.address != 0) {
    std::fprintf(stderr, ": address 0x%" PRIx64, report.address);
  }
  if (report.area_start != 0) {
    std::fprintf(stderr, ", area 0x%" PRIx64 " + %" PRIu64 " bytes, owner '%s'", report.area_start,
                 report.area_bytes, report.owner);
  }
  std::fputs("\n", stderr);
  std::abort();
}

void check_failed(const char* file, int line, const char* condition, const char* text,
                  std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t d) {
  std::fprintf(stderr,
               "keel: %s:%d: check failed: %s: %s (0x%" PRIx64 "=%" PRIu64 ", 0x%" PRIx64
               "=%" PRIu64 ", 0x%" PRIx64 "=%" PRIu64 ", 0x%" PRIx64 "=%" PRIu64 ")\n",
               file, line, condition, text, a, a, b, b, c, c, d, d);
  std::abort();
}

}  // namespace keel

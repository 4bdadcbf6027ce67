// Asserts in three levels, and reports of callers' bugs.
//
// KEEL_CHECK   always compiled in; for what must never be wrong in production.
// KEEL_ASSERT  debug builds (KEEL_DEBUG); for what costs too much on hot paths.
// KEEL_AUDIT   builds with KEEL_AUDITS; whole-structure walks, O(n) and more.
//
// The first two take a condition, a static text and up to four values that are printed in hex and
// decimal, and abort if it does not hold; KEEL_AUDIT takes a statement. report_bug() is for a
// caller's bug that keel survives (a wrong unmap, a double free): the handler is called, and if it
// returns, the call is refused with nothing changed.
#pragma once

#include <cstdint>

namespace keel {

enum class Bug : std::uint8_t {
  kUnknownAddress,    // not an address that keel gave out
  kInteriorPointer,   // inside a live buffer or area, not its start
  kDoubleFree,        // freed or unmapped before
  kDirectMapAddress,  // an address of the direct map given to unmap()
  kWrongSize,         // freed with another size than it was asked for
  kOverrun,           // bytes behind the buffer were changed (hardened pools)
  kAllocationInNoAllocScope,
  kItemInUse,  // a log item freed while pinned or tracked by a journal
  kNestedTransaction,
  kForceInCallback,  // a callback of Journal::on_stable() forces or closes its journal
};

// What is known of a caller's bug. Pointers are valid during the handler's call only.
struct BugReport {
  Bug bug;
  const char* call;              // the function that was called wrongly
  std::uint64_t address = 0;     // the address given
  std::uint64_t area_start = 0;  // the live or last area that it hits, 0 if none
  std::uint64_t area_bytes = 0;
  const char* owner = "";  // that area's owner tag
};

// Prints the report to stderr and aborts. Threads: any.
[[noreturn]] void abort_on_bug(const BugReport& report);

using BugHandler = void (*)(const BugReport& report);

// Replaces the handler (nullptr: by the default, abort_on_bug); returns the one before.
// Threads: any.
BugHandler set_bug_handler(BugHandler handler);

// Calls the handler. Returns only if the handler does.
void report_bug(const BugReport& report);

[[nodiscard]] const char* to_string(Bug bug);

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const char* text,
                               std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0,
                               std::uint64_t d = 0);

}  // namespace keel

#define KEEL_CHECK(condition, ...)                                       \
  do {                                                                   \
    if (!(condition)) [[unlikely]] {                                     \
      ::keel::check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__); \
    }                                                                    \
  } while (false)

// Switched off they still compile, so that they do not rot and what they alone use is not unused.
#if defined(KEEL_DEBUG)
#define KEEL_ASSERT(condition, ...) KEEL_CHECK(condition, __VA_ARGS__)
#else
#define KEEL_ASSERT(condition, ...)       \
  do {                                    \
    if (false) {                          \
      KEEL_CHECK(condition, __VA_ARGS__); \
    }                                     \
  } while (false)
#endif

#if defined(KEEL_AUDITS)
#define KEEL_AUDIT(statement) \
  do {                        \
    statement;                \
  } while (false)
#else
#define KEEL_AUDIT(statement) \
  do {                        \
    if (false) {              \
      statement;              \
    }                         \
  } while (false)
#endif

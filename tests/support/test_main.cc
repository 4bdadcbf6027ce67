#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#if defined(__SANITIZE_THREAD__)
// A fork takes all locks of the jemalloc inside keel::alloc at once, more than ThreadSanitizer's
// deadlock detector can follow; keel's own locks have ranks, which are checked in every test build.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "detect_deadlocks=0"; }
#endif

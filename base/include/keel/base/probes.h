// KEEL_PROBE: a point that perf, bpftrace or systemtap can watch in a running program (USDT).
//
// A probe is one nop and a note in the binary that says where its arguments lie; nothing happens
// there until somebody attaches. Arguments are numbers or pointers, at most 12; they are worked out
// even when nobody watches, so give what is at hand. Without <sys/sdt.h> (systemtap-sdt-dev) at
// build time a probe is nothing.
#pragma once

#if defined(__has_include)
#if __has_include(<sys/sdt.h>)
#define KEEL_HAVE_PROBES 1
#define SDT_USE_VARIADIC 1
#include <sys/sdt.h>
#endif
#endif

#if defined(KEEL_HAVE_PROBES)
// KEEL_PROBE(purge, pages) is the probe keel:purge.
#define KEEL_PROBE(...) STAP_PROBEV(keel, __VA_ARGS__)
#else
#define KEEL_PROBE(...) static_cast<void>(0)
#endif

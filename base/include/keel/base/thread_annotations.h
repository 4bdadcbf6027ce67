// Names for clang's thread-safety attributes; empty under other compilers.
#pragma once

#if defined(__clang__)
#define KEEL_TSA(x) __attribute__((x))
#else
#define KEEL_TSA(x)
#endif

#define KEEL_CAPABILITY(name) KEEL_TSA(capability(name))
#define KEEL_SCOPED_CAPABILITY KEEL_TSA(scoped_lockable)
#define KEEL_GUARDED_BY(x) KEEL_TSA(guarded_by(x))
#define KEEL_PT_GUARDED_BY(x) KEEL_TSA(pt_guarded_by(x))
#define KEEL_REQUIRES(...) KEEL_TSA(requires_capability(__VA_ARGS__))
#define KEEL_REQUIRES_SHARED(...) KEEL_TSA(requires_shared_capability(__VA_ARGS__))
#define KEEL_ACQUIRE(...) KEEL_TSA(acquire_capability(__VA_ARGS__))
#define KEEL_ACQUIRE_SHARED(...) KEEL_TSA(acquire_shared_capability(__VA_ARGS__))
#define KEEL_RELEASE(...) KEEL_TSA(release_capability(__VA_ARGS__))
#define KEEL_RELEASE_SHARED(...) KEEL_TSA(release_shared_capability(__VA_ARGS__))
#define KEEL_TRY_ACQUIRE(...) KEEL_TSA(try_acquire_capability(__VA_ARGS__))
#define KEEL_EXCLUDES(...) KEEL_TSA(locks_excluded(__VA_ARGS__))
#define KEEL_NO_THREAD_SAFETY_ANALYSIS KEEL_TSA(no_thread_safety_analysis)

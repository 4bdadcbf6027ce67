#include "thread_refusal.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

#include "support/test_seed.h"

namespace keel_test {
namespace {

std::atomic<int> allowed_starts{-1};  // -1: all
std::atomic<int> refused_starts{0};

}  // namespace

ThreadRefusal::ThreadRefusal(int allowed) {
  refused_starts = 0;
  allowed_starts = allowed;
}
ThreadRefusal::~ThreadRefusal() { allowed_starts = -1; }
int ThreadRefusal::refused() const { return refused_starts; }

#if defined(KEEL_TEST_SANITIZED)
bool ThreadRefusal::works() { return false; }
#else
bool ThreadRefusal::works() { return true; }
#endif

}  // namespace keel_test

#if !defined(KEEL_TEST_SANITIZED)
// Stands before the C library's in this program, also for std::thread's.
extern "C" __attribute__((visibility("default"))) int pthread_create(
    pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto real = reinterpret_cast<Create>(::dlsym(RTLD_NEXT, "pthread_create"));
  int left = keel_test::allowed_starts.load();
  while (left > 0 && !keel_test::allowed_starts.compare_exchange_weak(left, left - 1)) {
  }
  if (left == 0) {
    ++keel_test::refused_starts;
    return EAGAIN;
  }
  return real(thread, attributes, start, argument);
}
#endif

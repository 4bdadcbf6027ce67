#include "interrupt.h"

#include <atomic>
#include <string>

#include "output.h"

namespace keel::tools {
namespace {

// Relaxed: nothing else is passed with it.
std::atomic<int> noted{0};
static_assert(std::atomic<int>::is_always_lock_free, "written by a signal handler");

void note(int signal) {
  int none = 0;
  noted.compare_exchange_strong(none, signal, std::memory_order_relaxed);
}

}  // namespace

Interrupt::Interrupt() {
  noted.store(0, std::memory_order_relaxed);
  struct sigaction action {};
  action.sa_handler = note;
  ::sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (std::size_t i = 0; i < kCount; ++i) {
    ::sigaction(kSignals[i], nullptr, &before_[i]);
    // What the caller had ignored (nohup) stays ignored.
    if (before_[i].sa_handler != SIG_IGN) {
      ::sigaction(kSignals[i], &action, nullptr);
    }
  }
}

Interrupt::~Interrupt() {
  for (std::size_t i = 0; i < kCount; ++i) {
    ::sigaction(kSignals[i], &before_[i], nullptr);
  }
  noted.store(0, std::memory_order_relaxed);
}

int Interrupt::signal() { return noted.load(std::memory_order_relaxed); }

void Interrupt::check(const char* left) {
  if (came()) {
    throw Failure(exit_code(), "", std::string("interrupted; ") + left, "interrupted");
  }
}

}  // namespace keel::tools

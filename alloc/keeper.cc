#include "keeper.h"

#include <pthread.h>

#include <csignal>
#include <system_error>

namespace keel {
namespace {
constexpr std::uint64_t kRoundNs = 100'000'000;
}

bool Keeper::start() {
  // Signals are the program's own threads' business.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_.emplace([this] { run(); });
  } catch (const std::system_error&) {  // No thread to be had.
  } catch (const std::bad_alloc&) {
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread_.has_value();
}

void Keeper::stop() {
  if (!thread_) {
    return;
  }
  {
    MutexLock lock(lock_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_->join();
  thread_.reset();
}

void Keeper::wake() {
  low_.store(true, std::memory_order_relaxed);  // A hint, see note_low().
  {
    MutexLock lock(lock_);
    if (woken_) {
      return;
    }
    woken_ = true;
  }
  wake_.notify_one();
}

void Keeper::run() {
  (void)pthread_setname_np(pthread_self(), "keel-keeper");  // Only a name.
  for (bool busy = true;;) {
    {
      MutexLock lock(lock_);
      resting_.store(!busy, std::memory_order_relaxed);  // A hint, see note_activity().
      while (!woken_ && !stop_) {
        if (!busy) {
          wake_.wait(lock_);
        } else if (!wake_.wait_for(lock_, kRoundNs)) {
          break;
        }
      }
      if (stop_) {
        return;
      }
      woken_ = false;
    }
    low_.store(false, std::memory_order_relaxed);  // A hint, see note_low().
    busy = work_.upkeep();
  }
}

}  // namespace keel

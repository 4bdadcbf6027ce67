// ForkGuard: tells the process that made it from a child forked later, in one load.
//
// getpid() would cost a system call on every commit, and pthread_atfork misses a bare clone(). A
// page with MADV_WIPEONFORK is zeroed in the child by the kernel itself.
#pragma once

#include <atomic>
#include <cstdint>

#include "keel/base/result.h"

namespace keel {

class ForkGuard {
 public:
  ForkGuard() = default;
  ~ForkGuard();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

  // Errors: kNoMemory, kSystem.
  [[nodiscard]] Status arm();
  // True until arm(), and after it in the process that called it.
  [[nodiscard]] bool same_process() const { return page_ == nullptr || *page_ != 0; }
  // A word of the owner's own that reads 0 in a forked child, whatever it was. After arm().
  [[nodiscard]] std::atomic<std::uint32_t>* wiped_word() const { return word_; }

 private:
  std::atomic<std::uint32_t>* word_ = nullptr;
  volatile unsigned char* page_ = nullptr;
};

}  // namespace keel

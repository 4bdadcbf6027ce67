// What keeps the way to the log free of waits for memory: what is asked, and what comes of a
// refusal.
#include "log/lock_memory.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "keel/alloc/pool.h"
#include "keel/base/os.h"
#include "support/death.h"
#include "support/fault_os.h"
#include "support/skip_case.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

// A line of /proc/self/status, in kB.
long status_kb(const char* name) {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    if (word == name) {
      long value = 0;
      file >> value;
      return value;
    }
  }
  return -1;
}

class RecordingOs : public Os {
 public:
  int mlockall(int flags) override {
    flags_ = flags;
    return 0;
  }
  int flags_ = 0;
};

}  // namespace

TEST_CASE("memory is locked as it is touched, now and later, a refusal is an error value") {
  RecordingOs recording;
  {
    const ScopedOs scope(recording);
    CHECK(lock_process_memory().ok());
  }
  CHECK(recording.flags_ == (MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
  struct Case {
    int error;
    Errc code;
  };
  for (const Case& one : {Case{EPERM, Errc::kPermission}, Case{ENOMEM, Errc::kNoMemory},
                          Case{EINVAL, Errc::kUnsupported}, Case{ENOSYS, Errc::kUnsupported}}) {
    FaultOs faults;
    const ScopedOs scope(faults);
    faults.fail_from(1, mask_of(OsCall::kMlock) | mask_of(OsCall::kIoFlusher), one.error);
    for (const Status& status : {lock_process_memory(), become_log_thread()}) {
      REQUIRE_FALSE(status.ok());
      CHECK(status.error().code == one.code);
      CHECK(status.error().sys_errno == one.error);
    }
  }
}

TEST_CASE("locking fills no pool to its capacity, and what the pool had still works") {
  const Ending ending = run_in_child([] {
    PoolConfig config;
    auto pool = Pool::create(config);
    if (!pool.ok()) {
      std::fprintf(stderr, "no pool");
      ::_exit(9);
    }
    const long before = status_kb("VmRSS:");
    if (const Status locked = lock_process_memory(); !locked.ok()) {
      std::fprintf(stderr, "%s", locked.error().message().c_str());
      ::_exit(3);
    }
#if defined(KEEL_TEST_SANITIZED)
    // A sanitizer's own mlockall does nothing.
    const bool is_locked = true;
#else
    const bool is_locked = status_kb("VmLck:") > 0;
#endif
    if (!is_locked || status_kb("VmRSS:") > before + (64L << 10)) {
      std::fprintf(stderr, "resident %ld kB before, %ld after", before, status_kb("VmRSS:"));
      ::_exit(8);
    }
    for (int round = 0; round < 20; ++round) {
      void* memory = (*pool)->kvmalloc(std::size_t{8} << 20);
      if (memory == nullptr) {
        std::fprintf(stderr, "no memory");
        ::_exit(7);
      }
      std::memset(memory, round, std::size_t{8} << 20);
      (*pool)->kvfree(memory);
    }
    // The machine may forbid it; it must not do harm.
    (void)become_log_thread();
  });
  if (ending.exit_code == 3) {
    skip_case(ending.errors);
    return;
  }
  CAPTURE(ending.errors);
  CHECK(ending.exit_code == 0);
}

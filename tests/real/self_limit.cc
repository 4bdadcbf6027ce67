#include "self_limit.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <vector>

#include "keel/base/check.h"

namespace keel_test {

void impose_limit(const WriterPlan& plan) {
  struct stat st {};
  (void)::stat(plan.log.c_str(), &st);
  const auto to = [&](int what, std::uint64_t value) {
    struct rlimit now {};
    KEEL_CHECK(::getrlimit(static_cast<__rlimit_resource>(what), &now) == 0, "getrlimit");
    now.rlim_cur = std::min<std::uint64_t>(value, now.rlim_max);
    KEEL_CHECK(::setrlimit(static_cast<__rlimit_resource>(what), &now) == 0, "setrlimit");
  };
  (void)std::signal(SIGXFSZ, plan.ignore_xfsz ? SIG_IGN : SIG_DFL);
  if (plan.limited == "file") {
    to(RLIMIT_FSIZE, static_cast<std::uint64_t>(st.st_size) - plan.limit);
  } else if (plan.limited == "data") {
    to(RLIMIT_DATA, plan.limit);
  } else if (plan.limited == "nofile") {
    to(RLIMIT_NOFILE, plan.limit);
  } else if (plan.limited == "nproc") {
    to(RLIMIT_NPROC, plan.limit);
  } else if (plan.limited == "memlock") {
    to(RLIMIT_MEMLOCK, plan.limit);
  } else if (plan.limited == "maps") {
    // Single pages, so that none joins its neighbour, until no mapping is left but `limit`.
    std::vector<void*> taken;
    for (;;) {
      const int protection = taken.size() % 2 == 0 ? PROT_READ : PROT_NONE;
      void* page = ::mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (page == MAP_FAILED) {
        break;
      }
      taken.push_back(page);
    }
    for (std::uint64_t i = 0; i < plan.limit && i < taken.size(); ++i) {
      (void)::munmap(taken[taken.size() - 1 - i], 4096);
    }
  }
}

}  // namespace keel_test

// Processes that the tests on real kernel paths start: the fault file system, writers, the reaper,
// and the first process of a virtual machine.
#include <cstdio>
#include <string>
#include <vector>

#include "guest.h"
#include "pool_user.h"
#include "reaper.h"
#include "writer.h"
#if KEEL_HAVE_FUSE
#include "faultfs/daemon.h"
#endif

int main(int count, char** words) {
  using namespace keel_test;
  if (is_guest()) {
    run_guest({words + 1, words + count});
  }
  const std::string verb = count > 1 ? words[1] : "";
  const std::vector<std::string> rest(words + (count > 1 ? 2 : 1), words + count);
  if (verb == "reap") {
    return run_reaper();
  }
  if (verb == "pool") {
    return run_pool_user(WriterPlan::from(rest));
  }
  if (verb == "write") {
    return run_writer(WriterPlan::from(rest));
  }
#if KEEL_HAVE_FUSE
  if (verb == "faultfs" && rest.size() == 3) {
    const auto client =
        rest[2] == "loop" ? faultfs::Client::kLoopDevice : faultfs::Client::kProcess;
    return faultfs::run_daemon(rest[0].c_str(), 3, rest[1].c_str(), client);
  }
#endif
  (void)std::fprintf(
      stderr, "usage: %s reap | write NAME=VALUE... | faultfs DIRECTORY LOG CLIENT\n", words[0]);
  return 2;
}

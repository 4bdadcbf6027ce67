// What the demo leaves behind when a signal comes at the worst of moments: the calls that make and
// remove its files are those below, which send one.
#include "demo/cleanup.h"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <cstdlib>

#include "binary.h"
#include "output.h"
#include "support/death.h"

using keel::tools::Failure;
using keel::tools::Scratch;
using keel::tools::test::TestDirectory;
using keel::tools::test::write_file;

namespace {

enum class At { kNowhere, kMade, kRemoving };
At g_signal_at = At::kNowhere;

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

// In place of the C library's own, for all of this program.
extern "C" char* mkdtemp(char* name) {
  char* const made = next<char*(char*)>("mkdtemp")(name);
  if (g_signal_at == At::kMade) {
    (void)::kill(::getpid(), SIGTERM);
  }
  return made;
}
extern "C" int unlink(const char* path) noexcept {
  if (g_signal_at == At::kRemoving) {
    g_signal_at = At::kNowhere;
    (void)::kill(::getpid(), SIGTERM);
  }
  return next<int(const char*)>("unlink")(path);
}

TEST_CASE("a signal that comes while the demo's directory is made or removed leaves nothing") {
  for (const At at : {At::kMade, At::kRemoving}) {
    CAPTURE(static_cast<int>(at));
    const TestDirectory directory;
    const auto ending = keel_test::run_in_child([&] {
      ::setenv("TMPDIR", directory.root().c_str(), 1);
      g_signal_at = at == At::kMade ? at : At::kNowhere;
      {
        const Scratch scratch("");
        write_file(scratch.log(), "a log");
        g_signal_at = at;
      }
    });
    CHECK(ending.signal == SIGTERM);
    CHECK(directory.names().empty());
  }
}

TEST_CASE("a directory whose log would have too long a name is not left behind") {
  const TestDirectory directory;
  std::string deep = directory.root();
  // The directory's own name fits, with the log's it does not.
  while (deep.size() + 256 < PATH_MAX - sizeof "/keel-demo-XXXXXX") {
    deep += "/" + std::string(200, 'd');
  }
  deep += "/" + std::string(PATH_MAX - sizeof "/keel-demo-XXXXXX" - deep.size() - 1, 'd');
  std::filesystem::create_directories(deep);
  const auto ending = keel_test::run_in_child([&] {
    ::setenv("TMPDIR", deep.c_str(), 1);
    try {
      const Scratch scratch("");
    } catch (const Failure&) {
      ::_exit(7);
    }
  });
  CHECK(ending.exit_code == 7);
  CHECK(std::filesystem::is_empty(deep));
}

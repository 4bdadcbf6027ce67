// keel log create: interrupted where the file has its name before it is whole, refused before
// anything is written, without /proc.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>

#include "binary.h"
#include "keel/base/os.h"
#include "keel/cil/log_file.h"
#include "support/as_user.h"
#include "support/skip_case.h"

using namespace keel;
using namespace keel::tools::test;

namespace {

// A file system without O_TMPFILE; a signal comes with the first write.
class NamedFirst : public Os {
 public:
  bool signals = true;

  int open(const char* path, int flags, mode_t mode) override {
    return (flags & O_TMPFILE) == O_TMPFILE ? -EOPNOTSUPP : Os::open(path, flags, mode);
  }
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    if (std::exchange(signals, false)) {
      std::raise(SIGINT);
    }
    return Os::pwritev2(fd, parts, count, offset, flags);
  }
};

class CountedWrites : public Os {
 public:
  unsigned writes = 0;

  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    ++writes;
    return Os::pwritev2(fd, parts, count, offset, flags);
  }
};

// That a file without a name gets one by its descriptor alone: root may, from Linux 6.10 on others
// too.
bool can_link_by_descriptor(const TestDirectory& directory) {
  const int fd = ::open(directory.root().c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  const std::string name = directory.path("probe");
  const bool linked = fd >= 0 && ::linkat(fd, "", AT_FDCWD, name.c_str(), AT_EMPTY_PATH) == 0;
  (void)::unlink(name.c_str());
  (void)::close(fd);
  return linked;
}

int create(const std::string& path) {
  return run_here({"log", "create", "--size", "8M", "--buffered", path}).code;
}

}  // namespace

TEST_CASE("create that is interrupted leaves no name, where the name comes first") {
  const TestDirectory directory;
  // What create does not take would end this process.
  const auto before = std::signal(SIGINT, [](int) {});
  NamedFirst named_first;
  const ScopedOs scope(named_first);
  CHECK(create(directory.path("log")) == 130);
  CHECK(directory.names() == "");
  CHECK(create(directory.path("log")) == 0);
  CHECK(directory.names() == "log");
  std::signal(SIGINT, before);
}

TEST_CASE("create of a path that ends without a name writes nothing") {
  const TestDirectory directory;
  CountedWrites os;
  const ScopedOs scope(os);
  for (const std::string& path : {std::string(), directory.path("missing/")}) {
    CAPTURE(path);
    const Outcome outcome = run_here({"log", "create", "--size", "8M", "--buffered", path});
    CHECK(outcome.code == 2);
    CHECK(outcome.err.find("the path of a new log ends with its name\n") != std::string::npos);
    CHECK(os.writes == 0);
  }
  CHECK(create(directory.root() + "/") == 4);
  CHECK(directory.names().empty());
}

TEST_CASE("create in a directory whose new name it could not sync writes nothing") {
  if (keel_test::have_no_plain_user()) {
    return;
  }
  const TestDirectory directory;
  REQUIRE(::chmod(directory.root().c_str(), 0711) == 0);
  const std::string box = directory.path("box");
  REQUIRE(::mkdir(box.c_str(), 0700) == 0);
  if (keel_test::is_root()) {
    REQUIRE(::chown(box.c_str(), keel_test::kNobody, keel_test::kNobody) == 0);
  }
  REQUIRE(::chmod(box.c_str(), 0300) == 0);
  const auto ending = keel_test::run_as_plain_user([&] {
    CountedWrites os;
    const ScopedOs scope(os);
    const auto made = create_log(box + "/log", {.size = kMinLogBytes, .buffered = true});
    ::_exit(!made && made.error().code == Errc::kPermission && os.writes == 0 ? 0 : 1);
  });
  REQUIRE(::chmod(box.c_str(), 0700) == 0);
  CHECK(ending.exit_code == 0);
  CHECK(::rmdir(box.c_str()) == 0);
}

TEST_CASE("create does without /proc") {
  const TestDirectory directory;
  if (!can_link_by_descriptor(directory)) {
    keel_test::skip_case("this kernel lets this user not link a file by its descriptor");
    return;
  }
  const std::string before =
      R"(unshare --user --map-root-user --mount sh -c 'mount -t tmpfs none /proc && "$@"' sh)";
  if (std::system((before + " true 2> " + directory.path("said")).c_str()) != 0) {
    keel_test::skip_case("this user may not mount: " + read_file(directory.path("said")));
    return;
  }
  const std::string log = directory.path("log");
  const Outcome outcome = run("log create --size 8M " + log, before);
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(run("log verify " + log).code == 0);
}

// keel log create that is interrupted, where the file has its name before it is whole.
#include <doctest/doctest.h>
#include <fcntl.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <utility>

#include "binary.h"
#include "keel/base/os.h"

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

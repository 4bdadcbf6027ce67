// Making a log: never over anything, never with a mode or an owner that its user did not mean.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "keel/base/os.h"
#include "log/log_device.h"
#include "log_path_cases.h"
#include "probe.h"
#include "support/as_user.h"
#include "support/scratch_directory.h"

using namespace keel;
using namespace keel_test;

namespace {

// A file system that has files without a name, or not.
class NamesOs : public Os {
 public:
  explicit NamesOs(bool unnamed) : unnamed_(unnamed) {}
  int open(const char* path, int flags, mode_t mode) override {
    const bool refused = (flags & O_TMPFILE) == O_TMPFILE && !unnamed_;
    return refused ? -EOPNOTSUPP : Os::open(path, flags, mode);
  }

 private:
  const bool unnamed_;
};

}  // namespace

TEST_CASE("a log is made with mode 0600 whatever the umask, and opens again") {
  if (have_no_plain_user()) {
    return;
  }
  const ScratchDirectory scratch;
  give_away(scratch);
  const Ending ending = run_as_plain_user([&] {
    for (const bool unnamed : {true, false}) {
      for (const mode_t mask : {0000U, 0022U, 0077U, 0177U, 0200U, 0277U, 0400U, 0600U, 0777U}) {
        // With or without O_TMPFILE; at no moment is there a file of another mode.
        class MakingOs final : public NamesOs {
         public:
          using NamesOs::NamesOs;
          int open(const char* path, int flags, mode_t mode) override {
            const bool tmpfile = (flags & O_TMPFILE) == O_TMPFILE;
            if ((tmpfile || (flags & O_CREAT) != 0) && mode != 0600) {
              ::_exit(4);
            }
            return NamesOs::open(path, flags, mode);
          }
        } making(unnamed);
        const ScopedOs scope(making);
        const std::string path =
            scratch /
            ("log-" + std::to_string(mask) + "-" + std::to_string(unnamed ? 1 : 0)).c_str();
        (void)::umask(mask);
        {
          auto made = LogDevice::create(path, true);
          if (!made.ok() || !(*made)->allocate(8192).ok() || !(*made)->publish().ok()) {
            ::_exit(2);
          }
        }
        struct stat found {};
        if (::stat(path.c_str(), &found) != 0 || (found.st_mode & 07777U) != 0600 ||
            open_once(path, DeviceMode::kReadWrite) != "ok") {
          (void)std::fprintf(stderr, "umask %o: mode %o\n", mask, found.st_mode & 07777U);
          ::_exit(3);
        }
      }
    }
  });
  CAPTURE(ending.errors);
  CHECK(ending.exit_code == 0);
}

TEST_CASE("a log is not made over anything, nor through a link, and what is there stays") {
  const ScratchDirectory scratch;
  const Reopened reopened(scratch);
  for (const PathCase& one : kind_cases()) {
    one.make(scratch / one.name);
    const std::string path = path_of(one, scratch);
    if (portrait_of(path) == "nothing" || path[0] != scratch.path[0] ||
        path.rfind(scratch.path, 0) != 0) {
      continue;
    }
    CAPTURE(one.name);
    const std::string before = portrait_of(path);
    for (const bool unnamed : {true, false}) {
      CAPTURE(unnamed);
      NamesOs os(unnamed);
      const ScopedOs scope(os);
      auto made = LogDevice::create(path, true);
      const Status status = made.ok() ? (*made)->publish() : Status(made.error());
      REQUIRE_FALSE(status.ok());
      CHECK(status.error().code == Errc::kExists);
      made = Error{};
      CHECK(portrait_of(path) == before);
      CHECK(portrait_of(scratch / "nowhere") == "nothing");
    }
  }
}

TEST_CASE("in a directory that may not be written to no log is made") {
  if (have_no_plain_user()) {
    return;
  }
  const ScratchDirectory scratch;
  give_away(scratch);
  REQUIRE(::chmod(scratch.path.c_str(), 0500) == 0);
  const Ending ending = run_as_plain_user([&] {
    const auto made = LogDevice::create(scratch / "log", true);
    ::_exit(!made.ok() && made.error().code == Errc::kPermission ? 0 : 1);
  });
  REQUIRE(::chmod(scratch.path.c_str(), 0700) == 0);
  CHECK(ending.exit_code == 0);
}

TEST_CASE("where the file system makes a new file somebody else's, no log is left") {
  class ForeignOs : public SimDisk {
   public:
    int fstat(int fd, struct stat* out) override {
      const int result = SimDisk::fstat(fd, out);
      out->st_uid = ::geteuid() + 7;
      return result;
    }
  };
  ForeignOs disk;
  const ScopedOs scope(disk);
  const auto made = create_log(kLogPath, {.size = kMinLogBytes});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().code == Errc::kUntrusted);
  CHECK_FALSE(disk.exists(kLogPath));
}

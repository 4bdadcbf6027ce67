// Which files a log may be: a matrix of what can stand at a path, whose it is and who may write to
// it, opened for writing and for reading, by root and by a user without privileges. Whatever is
// refused is left as it was, and a pipe or a device is not even opened.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "keel/base/os.h"
#include "log/log_device.h"
#include "log_path_cases.h"
#include "probe.h"
#include "support/as_user.h"
#include "support/scratch_directory.h"
#include "support/skip_case.h"
#include "support/tried.h"

using namespace keel;
using namespace keel_test;

namespace {

// The mode and the owner of a file; a user without privileges owns it unless the case says more.
std::vector<PathCase> mode_cases() {
  std::vector<PathCase> cases;
  const auto own = [&cases](const char* name, mode_t mode, OpenWant write, OpenWant read) {
    // Root reads all, and writes to nobody else's.
    cases.push_back({name, own_file(mode), write, read, kForeign, kOpens});
  };
  own("own-0600", 0600, kOpens, kOpens);
  own("own-0640", 0640, kOpens, kOpens);
  own("own-0644", 0644, kOpens, kOpens);
  own("own-0604", 0604, kOpens, kOpens);
  own("own-0700", 0700, kOpens, kOpens);
  own("own-0711", 0711, kOpens, kOpens);
  own("own-4600", 04600, kOpens, kOpens);
  own("own-1600", 01600, kOpens, kOpens);
  own("own-0400", 0400, kDenied, kOpens);
  own("own-0444", 0444, kDenied, kOpens);
  own("own-0200", 0200, kDenied, kDenied);
  own("own-0000", 0000, kDenied, kDenied);
  own("own-0620", 0620, kGroup, kOpens);
  own("own-0660", 0660, kGroup, kOpens);
  own("own-0664", 0664, kGroup, kOpens);
  own("own-2660", 02660, kGroup, kOpens);
  own("own-0602", 0602, kAnybody, kOpens);
  own("own-0606", 0606, kAnybody, kOpens);
  own("own-0622", 0622, kAnybody, kOpens);
  own("own-0666", 0666, kAnybody, kOpens);
  own("own-0777", 0777, kAnybody, kOpens);
  const auto owned = [&cases](const char* name, uid_t user, mode_t mode, OpenWant write,
                              OpenWant read, OpenWant root_write) {
    cases.push_back(
        {name, file_of(user, mode), write, read, root_write, kOpens, /*needs_root=*/true});
  };
  owned("root-0600", 0, 0600, kDenied, kDenied, kOpens);
  owned("root-0640", 0, 0640, kDenied, kDenied, kOpens);
  owned("root-0644", 0, 0644, kDenied, kOpens, kOpens);
  owned("root-0400", 0, 0400, kDenied, kDenied, kOpens);
  owned("root-0620", 0, 0620, kDenied, kDenied, kGroup);
  owned("root-0660", 0, 0660, kDenied, kDenied, kGroup);
  owned("root-0646", 0, 0646, kAnybody, kOpens, kAnybody);
  owned("root-0666", 0, 0666, kAnybody, kOpens, kAnybody);
  owned("other-0600", 1, 0600, kDenied, kDenied, kForeign);
  owned("other-0644", 1, 0644, kDenied, kOpens, kForeign);
  owned("other-0606", 1, 0606, kForeign, kOpens, kForeign);
  owned("other-0666", 1, 0666, kForeign, kOpens, kForeign);
  owned("other-0777", 1, 0777, kForeign, kOpens, kForeign);
  return cases;
}

std::uint64_t g_tried = 0;

// Opens all in a child that `as_root` or not; what it answers is checked here.
void check_all(const std::vector<PathCase>& cases, const ScratchDirectory& scratch, bool as_root) {
  std::vector<std::string> before;
  for (const PathCase& one : cases) {
    before.push_back(portrait_of(path_of(one, scratch)));
  }
  const auto act = [&] {
    for (const PathCase& one : cases) {
      for (const DeviceMode mode : {DeviceMode::kReadWrite, DeviceMode::kReadOnly}) {
        (void)std::fprintf(stderr, "%s\n", open_once(path_of(one, scratch), mode).c_str());
      }
    }
  };
  const Ending ending = as_root ? run_in_child(act) : run_as_plain_user(act);
  REQUIRE(ending.exit_code == 0);
  std::istringstream answers(ending.errors);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const PathCase& one = cases[i];
    CAPTURE(one.name);
    CAPTURE(as_root);
    std::string write, read;
    REQUIRE(std::getline(answers, write));
    REQUIRE(std::getline(answers, read));
    CAPTURE(write);
    CAPTURE(read);
    CHECK(meets(as_root ? one.root_write : one.user_write, write));
    CHECK(meets(as_root ? one.root_read : one.user_read, read));
    if (path_of(one, scratch).rfind("/dev", 0) != 0 && path_of(one, scratch)[1] != 'p') {
      CHECK(portrait_of(path_of(one, scratch)) == before[i]);
    }
    g_tried += 2;
  }
}

std::vector<PathCase> make_those_possible(std::vector<PathCase> cases,
                                          const ScratchDirectory& scratch) {
  std::vector<PathCase> possible;
  for (PathCase& one : cases) {
    if (one.needs_root && !is_root()) {
      MESSAGE("skipped: root makes it: " << std::string(one.name));
      continue;
    }
    one.make(scratch / one.name);
    possible.push_back(std::move(one));
  }
  return possible;
}

void run_matrix(std::vector<PathCase> cases, const char* property) {
  if (have_no_plain_user()) {
    return;
  }
  g_tried = 0;
  const ScratchDirectory scratch;
  const Reopened reopened(scratch);
  give_away(scratch);
  const mode_t umask_before = ::umask(0);
  cases = make_those_possible(std::move(cases), scratch);
  (void)::umask(umask_before);
  check_all(cases, scratch, false);
  if (is_root()) {
    check_all(cases, scratch, true);
  }
  say_tried(property, g_tried);
}

// Says how each path was opened.
class OpensOs : public Os {
 public:
  int open(const char* path, int flags, mode_t mode) override {
    opened += (flags & O_PATH) != 0 ? "look " : "open ";
    return Os::open(path, flags, mode);
  }
  std::string opened;
};

}  // namespace

TEST_CASE("only the user's own file or root's, which nobody else may write to, takes a journal") {
  run_matrix(mode_cases(), "ownership.modes");
}

TEST_CASE("links of either kind, pipes, sockets, directories and devices are never a log") {
  run_matrix(kind_cases(), "ownership.kinds");
}

TEST_CASE("what is no log by its kind is not opened at all, only looked at") {
  if (have_no_plain_user()) {
    return;
  }
  const ScratchDirectory scratch;
  const Reopened reopened(scratch);
  for (const PathCase& one : kind_cases()) {
    CAPTURE(one.name);
    one.make(scratch / one.name);
    for (const DeviceMode mode : {DeviceMode::kReadWrite, DeviceMode::kReadOnly}) {
      OpensOs os;
      const ScopedOs scope(os);
      (void)LogDevice::open(path_of(one, scratch), mode, true);
      const bool regular =
          one.user_read.code == std::nullopt || one.user_read.text == std::string(kNames.text);
      CHECK(os.opened == (regular ? "look open " : "look "));
    }
  }
}

TEST_CASE("a directory that may not be searched hides its log, with the reason") {
  if (have_no_plain_user()) {
    return;
  }
  const ScratchDirectory scratch;
  give_away(scratch);
  const std::string inner = scratch / "inner";
  REQUIRE(::mkdir(inner.c_str(), 0700) == 0);
  make_file(inner + "/log", 0600);
  REQUIRE(::chmod(inner.c_str(), 0000) == 0);
  const Ending ending = run_as_plain_user([&] {
    const bool right = meets(kDenied, open_once(inner + "/log", DeviceMode::kReadWrite)) &&
                       meets(kDenied, open_once(inner + "/log", DeviceMode::kReadOnly));
    ::_exit(right ? 0 : 1);
  });
  REQUIRE(::chmod(inner.c_str(), 0700) == 0);
  CHECK(ending.exit_code == 0);
}

TEST_CASE("an immutable or an append-only file is refused to writers and can be read") {
  const ScratchDirectory scratch;
  std::string refused;
  for (const int flag : {FS_IMMUTABLE_FL, FS_APPEND_FL}) {
    const std::string path = scratch / (flag == FS_APPEND_FL ? "append" : "immutable");
    std::ofstream(path) << std::string(8192, 'k');
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    int flags = 0;
    const bool read = ::ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0;
    int set = flags | flag;
    if (!read || ::ioctl(fd, FS_IOC_SETFLAGS, &set) != 0) {
      refused = std::string("no such attribute can be set here: ") + std::strerror(errno);
      (void)::close(fd);
      continue;
    }
    const std::string before = portrait_of(path);
    CHECK(meets({Errc::kPermission, "Operation not permitted"},
                open_once(path, DeviceMode::kReadWrite)));
    CHECK(open_once(path, DeviceMode::kReadOnly) == "ok");
    CHECK(portrait_of(path) == before);
    CHECK(::ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0);
    (void)::close(fd);
  }
  if (!refused.empty()) {
    skip_case(refused);
  }
}

TEST_CASE("on a read-only file system a log can be read, not opened for writing, nor made") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  std::ofstream(log) << std::string(8192, 'k');
  REQUIRE(::chmod(log.c_str(), 0600) == 0);
  constexpr int kNoMount = 76;
  const Ending ending = run_in_child([&] {
    // In a mount namespace of its own, which ends with it.
    const char* place = scratch.path.c_str();
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount(place, place, nullptr, MS_BIND, nullptr) != 0 ||
        ::mount(nullptr, place, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0) {
      ::_exit(kNoMount);
    }
    const auto made = LogDevice::create(scratch / "new", true);
    const bool right = meets({Errc::kPermission, "Read-only file system"},
                             open_once(log, DeviceMode::kReadWrite)) &&
                       open_once(log, DeviceMode::kReadOnly) == "ok" && !made.ok() &&
                       made.error().code == Errc::kPermission;
    ::_exit(right ? 0 : 1);
  });
  if (ending.exit_code == kNoMount) {
    skip_case("no mount namespace can be made here");
    return;
  }
  CHECK(ending.exit_code == 0);
}

TEST_CASE("root's file is trusted by everybody, a user's by nobody else, not even root") {
  // Users are numbers here: what this process is, and who owns the file.
  class UserOs : public SimDisk {
   public:
    uid_t geteuid() override { return user; }
    uid_t user = 0;
  };
  struct Users {
    uid_t process, owner;
    bool trusted;
  };
  for (const Users& one : {Users{0, 0, true},
                           {1000, 1000, true},
                           {1000, 0, true},
                           {0, 1000, false},
                           {1000, 1001, false},
                           {1000, kNobody, false}}) {
    CAPTURE(one.process);
    CAPTURE(one.owner);
    UserOs disk;
    const ScopedOs scope(disk);
    disk.user = ::geteuid();
    REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
    disk.set_owner(kLogPath, 0600, one.owner);
    disk.user = one.process;
    const auto journal = Journal::open(kLogPath, {}, kIgnore);
    CHECK(journal.ok() == one.trusted);
    if (!journal.ok()) {
      CHECK(journal.error().code == Errc::kUntrusted);
      CHECK(journal.error().value == one.owner);
      const auto info = read_log_info(kLogPath);
      REQUIRE(info.ok());
      CHECK(std::string(info->untrusted) == journal.error().what);
      CHECK(scan_log(kLogPath, kIgnore).ok());
    }
  }
}

TEST_CASE("a block device's group may write to it, and nobody else but its owner and root") {
  struct Modes {
    mode_t mode;
    bool trusted;
  };
  for (const Modes& one :
       {Modes{0600, true}, {0660, true}, {0664, true}, {0662, false}, {0666, false}}) {
    CAPTURE(one.mode);
    SimDisk disk;
    const ScopedOs scope(disk);
    disk.add_block_device("/sim/disk", 4U << 20);
    LogConfig config;
    config.size = Bytes(0);
    REQUIRE(create_log("/sim/disk", config).ok());
    disk.set_owner("/sim/disk", one.mode, 0);
    {
      const auto journal = Journal::open("/sim/disk", {}, kIgnore);
      CHECK(journal.ok() == one.trusted);
      CHECK((journal.ok() || journal.error().code == Errc::kUntrusted));
    }
    if (!one.trusted) {
      config.overwrite = true;
      const auto over = create_log("/sim/disk", config);
      REQUIRE_FALSE(over.ok());
      CHECK(over.error().code == Errc::kUntrusted);
    }
    CHECK(read_log_info("/sim/disk").ok());
    disk.set_owner("/sim/disk", one.mode, ::geteuid() + 7);
    CHECK_FALSE(Journal::open("/sim/disk", {}, kIgnore).ok());
  }
}

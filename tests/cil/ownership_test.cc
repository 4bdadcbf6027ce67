// Which files a log may be: a matrix of what can stand at a path, whose it is and who may write to
// it, opened for writing and for reading, by root and by a user without privileges. Whatever is
// refused is left as it was, and a pipe or a device is not even opened.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "keel/base/os.h"
#include "log/log_device.h"
#include "probe.h"
#include "support/as_user.h"
#include "support/scratch_directory.h"
#include "support/tried.h"

using namespace keel;
using namespace keel_test;

namespace {

// What an opening answers: an error and a part of its text, or neither.
struct Want {
  std::optional<Errc> code;
  const char* text = "";
};
const Want kOpens{};
const Want kDenied{Errc::kPermission, "Permission denied"};
const Want kForeign{Errc::kUntrusted, "belongs to another user"};
const Want kGroup{Errc::kUntrusted, "group may write"};
const Want kAnybody{Errc::kUntrusted, "anybody may write"};
const Want kLink{Errc::kNotALog, "symbolic link"};
const Want kNames{Errc::kNotALog, "more than one name"};
const Want kDirectory{Errc::kNotALog, "is a directory"};
const Want kSpecial{Errc::kNotALog, "neither a regular file nor a block device"};
const Want kMissing{Errc::kNotFound, "open the log"};

struct Case {
  const char* name;  // also of the file
  std::function<void(const std::string& path)> make;
  Want user_write, user_read, root_write, root_read;
  bool needs_root = false;  // to make it
  std::string path{};       // if it is not name
};

// A file of the plain user's.
void make_file(const std::string& path, mode_t mode) {
  std::ofstream(path) << std::string(8192, 'k');
  if (is_root()) {
    REQUIRE(::chown(path.c_str(), plain_user(), plain_user()) == 0);
  }
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

auto file(mode_t mode) {
  return [mode](const std::string& path) { make_file(path, mode); };
}
auto file_of(uid_t user, mode_t mode) {
  return [user, mode](const std::string& path) {
    make_file(path, mode);
    REQUIRE(::chown(path.c_str(), user, user) == 0);
  };
}
auto link_to(const char* target) {
  return [target](const std::string& path) { REQUIRE(::symlink(target, path.c_str()) == 0); };
}
auto make_hard_links(int count) {
  return [count](const std::string& path) {
    make_file(path, 0600);
    for (int i = 0; i < count; ++i) {
      REQUIRE(::link(path.c_str(), (path + "." + std::to_string(i)).c_str()) == 0);
    }
  };
}
auto fifo(mode_t mode) {
  return [mode](const std::string& path) { REQUIRE(::mkfifo(path.c_str(), mode) == 0); };
}
auto directory(mode_t mode) {
  return [mode](const std::string& path) { REQUIRE(::mkdir(path.c_str(), mode) == 0); };
}
void make_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  REQUIRE(::bind(fd, reinterpret_cast<struct sockaddr*>(&address), sizeof address) == 0);
  (void)::close(fd);
}
void make_nothing(const std::string& /*path*/) {}

// The mode and the owner of a file; a user without privileges owns it unless the case says more.
std::vector<Case> mode_cases() {
  std::vector<Case> cases;
  const auto own = [&cases](const char* name, mode_t mode, Want write, Want read) {
    // Root reads all, and writes to nobody else's.
    cases.push_back({name, file(mode), write, read, kForeign, kOpens});
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
  const auto owned = [&cases](const char* name, uid_t user, mode_t mode, Want write, Want read,
                              Want root_write) {
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

// What else can stand at a path. "target" is made first.
std::vector<Case> kind_cases() {
  std::vector<Case> cases;
  const auto all = [&cases](const char* name, std::function<void(const std::string&)> make,
                            Want want, std::string path = "") {
    cases.push_back({name, std::move(make), want, want, want, want, false, std::move(path)});
  };
  cases.push_back({"target", file(0600), kOpens, kOpens, kForeign, kOpens});
  all("link", link_to("target"), kLink);
  all("link-to-nothing", link_to("nowhere"), kLink);
  all("link-to-itself", link_to("link-to-itself"), kLink);
  all("link-to-a-link", link_to("link"), kLink);
  all("link-to-a-directory", link_to("."), kLink);
  all("link-to-a-pipe", link_to("pipe"), kLink);
  all("link-to-a-device", link_to("/dev/zero"), kLink);
  all("stdin", make_nothing, kLink, "/dev/stdin");
  all("a-descriptor", make_nothing, kLink, "/proc/self/fd/0");
  all("two-names", make_hard_links(1), kNames);
  all("other-name", make_nothing, kNames, "two-names.0");
  all("three-names", make_hard_links(2), kNames);
  all("pipe", fifo(0600), kSpecial);
  all("pipe-0000", fifo(0000), kSpecial);
  all("socket", make_socket, kSpecial);
  all("directory", directory(0700), kDirectory);
  all("directory-0000", directory(0000), kDirectory);
  all("null", make_nothing, kSpecial, "/dev/null");
  all("zero", make_nothing, kSpecial, "/dev/zero");
  all("full", make_nothing, kSpecial, "/dev/full");
  all("root", make_nothing, kDirectory, "/");
  all("nowhere", make_nothing, kMissing);
  all("in-nowhere", make_nothing, kMissing, "nowhere/log");
  all("below-a-file", make_nothing, kMissing, "target/log");
  all("with-a-slash", make_nothing, kMissing, "target/");
  all("too-long", make_nothing, {Errc::kSystem, "too long"}, std::string(300, 'n'));
  return cases;
}

std::string path_of(const Case& one, const ScratchDirectory& scratch) {
  const std::string name = one.path.empty() ? one.name : one.path;
  return name[0] == '/' ? name : scratch / name.c_str();
}

// Lets a directory that may not be searched be removed with the scratch directory, by its owner.
class Reopened {
 public:
  explicit Reopened(const ScratchDirectory& scratch) : path_(scratch / "directory-0000") {}
  ~Reopened() { (void)::chmod(path_.c_str(), 0700); }
  Reopened(const Reopened&) = delete;
  Reopened& operator=(const Reopened&) = delete;

 private:
  const std::string path_;
};

// "ok", or the error as text.
std::string open_once(const std::string& path, DeviceMode mode) {
  const auto opened = LogDevice::open(path, mode, true);
  return opened.ok() ? "ok" : opened.error().message();
}

bool meets(const Want& want, const std::string& answer) {
  return want.code ? answer.rfind(to_string(*want.code), 0) == 0 &&
                         answer.find(want.text) != std::string::npos
                   : answer == "ok";
}

std::uint64_t g_tried = 0;

// Opens all in a child that `as_root` or not; what it answers is checked here.
void check_all(const std::vector<Case>& cases, const ScratchDirectory& scratch, bool as_root) {
  std::vector<std::string> before;
  for (const Case& one : cases) {
    before.push_back(portrait_of(path_of(one, scratch)));
  }
  const auto act = [&] {
    for (const Case& one : cases) {
      for (const DeviceMode mode : {DeviceMode::kReadWrite, DeviceMode::kReadOnly}) {
        (void)std::fprintf(stderr, "%s\n", open_once(path_of(one, scratch), mode).c_str());
      }
    }
  };
  const Ending ending = as_root ? run_in_child(act) : run_as_plain_user(act);
  if (ending.exit_code == kCannotBecome) {
    MESSAGE("skipped: root cannot become another user here");
    return;
  }
  REQUIRE(ending.exit_code == 0);
  std::istringstream answers(ending.errors);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Case& one = cases[i];
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

void give_away(const ScratchDirectory& scratch) {
  if (is_root()) {
    REQUIRE(::chown(scratch.path.c_str(), plain_user(), plain_user()) == 0);
  }
}

std::vector<Case> make_those_possible(std::vector<Case> cases, const ScratchDirectory& scratch) {
  std::vector<Case> possible;
  for (Case& one : cases) {
    if (one.needs_root && !is_root()) {
      MESSAGE("skipped: root makes it: " << one.name);
      continue;
    }
    one.make(scratch / one.name);
    possible.push_back(std::move(one));
  }
  return possible;
}

void run_matrix(std::vector<Case> cases, const char* property) {
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
  const ScratchDirectory scratch;
  const Reopened reopened(scratch);
  for (const Case& one : kind_cases()) {
    CAPTURE(one.name);
    one.make(scratch / one.name);
    for (const DeviceMode mode : {DeviceMode::kReadWrite, DeviceMode::kReadOnly}) {
      OpensOs os;
      const ScopedOs scope(os);
      (void)LogDevice::open(path_of(one, scratch), mode, true);
      const bool regular = one.user_read.code == std::nullopt || one.user_read.text == kNames.text;
      CHECK(os.opened == (regular ? "look open " : "look "));
    }
  }
}

TEST_CASE("a directory that may not be searched hides its log, with the reason") {
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
  CHECK((ending.exit_code == 0 || ending.exit_code == kCannotBecome));
}

TEST_CASE("an immutable or an append-only file is refused to writers and can be read") {
  const ScratchDirectory scratch;
  for (const int flag : {FS_IMMUTABLE_FL, FS_APPEND_FL}) {
    const std::string path = scratch / (flag == FS_APPEND_FL ? "append" : "immutable");
    std::ofstream(path) << std::string(8192, 'k');
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    int flags = 0;
    const bool read = ::ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0;
    int set = flags | flag;
    if (!read || ::ioctl(fd, FS_IOC_SETFLAGS, &set) != 0) {
      MESSAGE("skipped: no such attribute can be set here: " << std::strerror(errno));
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
    MESSAGE("skipped: no mount namespace can be made here");
    return;
  }
  CHECK(ending.exit_code == 0);
}

TEST_CASE("a log is made with mode 0600 whatever the umask, and opens again") {
  const ScratchDirectory scratch;
  give_away(scratch);
  const Ending ending = run_as_plain_user([&] {
    for (const bool unnamed : {true, false}) {
      for (const mode_t mask : {0000U, 0022U, 0077U, 0177U, 0200U, 0277U, 0400U, 0600U, 0777U}) {
        // With or without O_TMPFILE; at no moment is there a file of another mode.
        class MakingOs : public Os {
         public:
          explicit MakingOs(bool unnamed) : unnamed_(unnamed) {}
          int open(const char* path, int flags, mode_t mode) override {
            const bool tmpfile = (flags & O_TMPFILE) == O_TMPFILE;
            if ((tmpfile || (flags & O_CREAT) != 0) && mode != 0600) {
              ::_exit(4);
            }
            return tmpfile && !unnamed_ ? -EOPNOTSUPP : Os::open(path, flags, mode);
          }

         private:
          const bool unnamed_;
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
  CHECK((ending.exit_code == 0 || ending.exit_code == kCannotBecome));
}

TEST_CASE("a log is not made over anything, nor through a link, and what is there stays") {
  const ScratchDirectory scratch;
  const Reopened reopened(scratch);
  for (const Case& one : kind_cases()) {
    one.make(scratch / one.name);
    const std::string path = path_of(one, scratch);
    if (portrait_of(path) == "nothing" || path[0] != scratch.path[0] ||
        path.rfind(scratch.path, 0) != 0) {
      continue;
    }
    CAPTURE(one.name);
    const std::string before = portrait_of(path);
    auto made = LogDevice::create(path, true);
    const Status status = made.ok() ? (*made)->publish() : Status(made.error());
    REQUIRE_FALSE(status.ok());
    CHECK(status.error().code == Errc::kExists);
    made = Error{};
    CHECK(portrait_of(path) == before);
    CHECK(portrait_of(scratch / "nowhere") == "nothing");
  }
}

TEST_CASE("in a directory that may not be written to no log is made") {
  const ScratchDirectory scratch;
  give_away(scratch);
  REQUIRE(::chmod(scratch.path.c_str(), 0500) == 0);
  const Ending ending = run_as_plain_user([&] {
    const auto made = LogDevice::create(scratch / "log", true);
    ::_exit(!made.ok() && made.error().code == Errc::kPermission ? 0 : 1);
  });
  REQUIRE(::chmod(scratch.path.c_str(), 0700) == 0);
  CHECK((ending.exit_code == 0 || ending.exit_code == kCannotBecome));
}

namespace {

// Lets something happen to the file at the path just after it was looked at, or just before it is
// locked.
class SwapOs : public Os {
 public:
  enum class At : std::uint8_t { kLook, kLock };
  SwapOs(At at, std::function<void()> act) : at_(at), act_(std::move(act)) {}

  int open(const char* path, int flags, mode_t mode) override {
    const int fd = Os::open(path, flags, mode);
    if ((flags & O_PATH) != 0) {
      act(At::kLook);
    }
    return fd;
  }
  int lock_exclusive(int fd) override {
    act(At::kLock);
    return Os::lock_exclusive(fd);
  }
  int lock_shared(int fd) override {
    act(At::kLock);
    return Os::lock_shared(fd);
  }

 private:
  void act(At at) {
    if (at == at_ && act_) {
      act_();
      act_ = nullptr;
    }
  }
  At at_;
  std::function<void()> act_;
};

}  // namespace

TEST_CASE("whatever takes the file's place between the look, the opening and the lock is judged") {
  struct Swap {
    const char* name;
    SwapOs::At at;
    std::function<void(const std::string&)> act;  // to the path
    Want write, read;
  };
  const auto over = [](std::function<void(const std::string&)> make) {
    return [make = std::move(make)](const std::string& path) {
      make(path + ".new");
      REQUIRE(::rename((path + ".new").c_str(), path.c_str()) == 0);
    };
  };
  const auto mode = [](mode_t bits) {
    return [bits](const std::string& path) { REQUIRE(::chmod(path.c_str(), bits) == 0); };
  };
  const auto own = [](const std::string& path) {
    std::ofstream(path) << std::string(8192, 'o');
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
  };
  const auto second_name = [](const std::string& path) {
    REQUIRE(::link(path.c_str(), (path + ".2").c_str()) == 0);
  };
  const auto gone = [](const std::string& path) { REQUIRE(::unlink(path.c_str()) == 0); };
  const auto directory_there = [](const std::string& path) {
    REQUIRE(::unlink(path.c_str()) == 0);
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
  };
  constexpr auto kLook = SwapOs::At::kLook;
  constexpr auto kLock = SwapOs::At::kLock;
  const Want lost{Errc::kNotALog, "lost its name"};
  const Want root_or_nobody = kOpens;
  const std::vector<Swap> swaps{
      {"look-link", kLook, over(link_to("/etc/hostname")), kLink, kLink},
      {"look-pipe", kLook, over(fifo(0600)), kSpecial, kSpecial},
      {"look-directory", kLook, directory_there, kDirectory, kDirectory},
      {"look-names", kLook, second_name, kNames, kNames},
      {"look-0666", kLook, mode(0666), kAnybody, kOpens},
      {"look-0660", kLook, mode(0660), kGroup, kOpens},
      {"look-gone", kLook, gone, kMissing, kMissing},
      {"look-another", kLook, over(own), root_or_nobody, kOpens},
      {"lock-gone", kLock, gone, lost, lost},
      {"lock-another", kLock, over(own), lost, lost},
      {"lock-link", kLock, over(link_to("/etc/hostname")), lost, lost},
      {"lock-names", kLock, second_name, kNames, kNames},
      {"lock-0666", kLock, mode(0666), kAnybody, kOpens},
      {"lock-0660", kLock, mode(0660), kGroup, kOpens},
  };
  for (const Swap& swap : swaps) {
    for (const DeviceMode device_mode : {DeviceMode::kReadWrite, DeviceMode::kReadOnly}) {
      CAPTURE(swap.name);
      const ScratchDirectory scratch;
      const std::string path = scratch / "log";
      own(path);
      const std::string victim = portrait_of("/etc/hostname");
      std::string answer;
      // In a child, which an opening that waits for a pipe's other end does not outlive.
      const Ending ending = run_in_child([&] {
        ::alarm(20);
        SwapOs os(swap.at, [&] { swap.act(path); });
        const ScopedOs scope(os);
        (void)std::fputs(open_once(path, device_mode).c_str(), stderr);
      });
      CAPTURE(ending.errors);
      CHECK(ending.exit_code == 0);
      CHECK(meets(device_mode == DeviceMode::kReadWrite ? swap.write : swap.read, ending.errors));
      CHECK(portrait_of("/etc/hostname") == victim);
    }
  }
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

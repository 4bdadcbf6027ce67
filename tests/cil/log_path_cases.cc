#include "log_path_cases.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <utility>

#include "support/as_user.h"

using namespace keel;

namespace keel_test {
namespace {

MakePath make_hard_links(int count) {
  return [count](const std::string& path) {
    make_file(path, 0600);
    for (int i = 0; i < count; ++i) {
      REQUIRE(::link(path.c_str(), (path + "." + std::to_string(i)).c_str()) == 0);
    }
  };
}

MakePath directory(mode_t mode) {
  return [mode](const std::string& path) { REQUIRE(::mkdir(path.c_str(), mode) == 0); };
}

// Not by bind(), which takes short paths only.
void make_socket(const std::string& path) {
  REQUIRE(::mknod(path.c_str(), S_IFSOCK | 0755, 0) == 0);
}

void make_nothing(const std::string& /*path*/) {}

}  // namespace

void make_file(const std::string& path, mode_t mode) {
  std::ofstream(path) << std::string(8192, 'k');
  if (is_root()) {
    REQUIRE(::chown(path.c_str(), plain_user(), plain_user()) == 0);
  }
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

MakePath own_file(mode_t mode) {
  return [mode](const std::string& path) { make_file(path, mode); };
}

MakePath file_of(uid_t user, mode_t mode) {
  return [user, mode](const std::string& path) {
    make_file(path, mode);
    REQUIRE(::chown(path.c_str(), user, user) == 0);
  };
}

MakePath link_to(const char* target) {
  return [target](const std::string& path) { REQUIRE(::symlink(target, path.c_str()) == 0); };
}

MakePath fifo(mode_t mode) {
  return [mode](const std::string& path) { REQUIRE(::mkfifo(path.c_str(), mode) == 0); };
}

std::vector<PathCase> kind_cases() {
  std::vector<PathCase> cases;
  const auto all = [&cases](const char* name, std::function<void(const std::string&)> make,
                            OpenWant want, std::string path = "") {
    cases.push_back({name, std::move(make), want, want, want, want, false, std::move(path)});
  };
  cases.push_back({"target", own_file(0600), kOpens, kOpens, kForeign, kOpens});
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

std::string path_of(const PathCase& one, const ScratchDirectory& scratch) {
  const std::string name = one.path.empty() ? one.name : one.path;
  return name[0] == '/' ? name : scratch / name.c_str();
}

std::string open_once(const std::string& path, DeviceMode mode) {
  const auto opened = LogDevice::open(path, mode, true);
  return opened.ok() ? "ok" : opened.error().message();
}

bool meets(const OpenWant& want, const std::string& answer) {
  return want.code ? answer.rfind(to_string(*want.code), 0) == 0 &&
                         answer.find(want.text) != std::string::npos
                   : answer == "ok";
}

void give_away(const ScratchDirectory& scratch) {
  if (is_root()) {
    REQUIRE(::chown(scratch.path.c_str(), plain_user(), plain_user()) == 0);
  }
}

}  // namespace keel_test

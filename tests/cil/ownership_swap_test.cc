// What takes a log's place while it is being opened: between the look, the opening and the lock.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "keel/base/os.h"
#include "log/log_device.h"
#include "log_path_cases.h"
#include "support/as_user.h"
#include "support/scratch_directory.h"

using namespace keel;
using namespace keel_test;

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
    OpenWant write, read;
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
  const OpenWant lost{Errc::kNotALog, "lost its name"};
  const OpenWant root_or_nobody = kOpens;
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

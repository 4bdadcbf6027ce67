// What the tests on real kernel paths need of a machine, and how nothing of it is left behind:
// mounts in a mount namespace of our own, loop devices that detach themselves, children that die
// with us, and a reaper process for directories and control groups, which lives until our end of a
// pipe is closed, however that comes about.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "support/scratch_directory.h"

namespace keel_test {

// Starts the reaper and takes the mount namespace, once. To be called before other threads start.
void prepare_environment();

[[nodiscard]] bool is_root();
inline constexpr const char* kWhyNoMount = "mounting a file system takes root";
// True if the program is found on PATH or in the system's sbin directories.
[[nodiscard]] bool have_program(const std::string& name);
// Runs a command line with the shell, its output to nowhere; its exit code.
int run_command(const std::string& line);

// What the reaper is to undo if we cannot: kind "dir" or "group", and a path.
void reap_later(const std::string& kind, const std::string& what);
void reap_no_more(const std::string& kind, const std::string& what);

// "" if files of the directory can be read and written past the page cache, else why not.
[[nodiscard]] std::string why_no_direct_io(const std::string& directory);

// /dev/shm if so many bytes fit there beside a ledger and a log there can be judged (tmpfs has
// direct I/O since Linux 6.6), else "".
[[nodiscard]] std::string memory_root(std::uint64_t bytes = 0);

// A directory on a disk (KEEL_REAL_DIR, else /var/tmp) or below `root`, gone with it, also if we
// are killed.
class Scratch {
 public:
  explicit Scratch(const std::string& root = {});
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path() + "/" + name; }
  [[nodiscard]] const std::string& path() const { return directory_->path; }

 private:
  std::optional<ScratchDirectory> directory_;
};

// The program of all helpers, beside the one that runs.
[[nodiscard]] std::string helper_path();

// A process of any program, which dies with us.
class Child {
 public:
  // `words`: the program and its arguments. `control`: becomes descriptor 3 of it; -1: none.
  // `output`: of a file that gets what it says; without one its errors go to nowhere unless
  // KEEL_REAL_VERBOSE is set.
  explicit Child(const std::vector<std::string>& words, int control = -1, bool dies_with_us = true,
                 const std::string& output = {});
  ~Child();  // kills and waits
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  // The exit code, 128 + the signal.
  int wait();
  void signal(int number);
  // The code, or -1 if it has not ended.
  int poll();
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int code_ = -1;
};

// One of the helper binary.
class Helper : public Child {
 public:
  // `before`: words of a command that starts it.
  explicit Helper(const std::vector<std::string>& arguments, int control = -1,
                  bool dies_with_us = true, const std::vector<std::string>& before = {});
};

// A mounted file system, unmounted with it.
class Mounted {
 public:
  [[nodiscard]] static std::unique_ptr<Mounted> mount(const std::string& device,
                                                      const std::string& directory,
                                                      const std::string& type,
                                                      const std::string& options, std::string& why);
  ~Mounted();
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const {
    return directory_ + "/" + name;
  }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  // False if it is in use.
  bool unmount();
  // The file system stops as if the machine had crashed; `flush_log`: after writing its own log.
  [[nodiscard]] bool shut_down(bool flush_log);
  // All of it is on its device.
  [[nodiscard]] bool sync();
  [[nodiscard]] bool freeze();
  bool thaw();

 private:
  Mounted() = default;
  std::string directory_;
  bool mounted_ = false;
};

// Makes a file system of the type ("ext4", "xfs") on what is at `path`; false, and `why`.
[[nodiscard]] bool make_file_system(const std::string& type, const std::string& path,
                                    std::string& why, const std::string& extra = {});
// Makes a sparse file.
void make_sparse(const std::string& path, std::uint64_t bytes);
// Makes a file whose room is taken at once, where the file system can do so: a loop device calls
// written what a sparse one finds no room for. False, and `why`, if there is none.
[[nodiscard]] bool make_whole(const std::string& path, std::uint64_t bytes, std::string& why);
// Enough for the smallest file system of the type.
[[nodiscard]] std::uint64_t least_bytes(const std::string& type);

}  // namespace keel_test

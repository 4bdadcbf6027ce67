// What can stand at the path of a log, for tests of which files a log may be: how it is made, and
// what opening it answers to its owner, a user without privileges, and to root.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "keel/base/result.h"
#include "log/log_device.h"
#include "support/scratch_directory.h"

namespace keel_test {

// What an opening answers: an error and a part of its text, or neither.
struct OpenWant {
  std::optional<keel::Errc> code;
  const char* text = "";
};
inline const OpenWant kOpens{};
inline const OpenWant kDenied{keel::Errc::kPermission, "Permission denied"};
inline const OpenWant kForeign{keel::Errc::kUntrusted, "belongs to another user"};
inline const OpenWant kGroup{keel::Errc::kUntrusted, "group may write"};
inline const OpenWant kAnybody{keel::Errc::kUntrusted, "anybody may write"};
inline const OpenWant kLink{keel::Errc::kNotALog, "symbolic link"};
inline const OpenWant kNames{keel::Errc::kNotALog, "more than one name"};
inline const OpenWant kDirectory{keel::Errc::kNotALog, "is a directory"};
inline const OpenWant kSpecial{keel::Errc::kNotALog, "neither a regular file nor a block device"};
inline const OpenWant kMissing{keel::Errc::kNotFound, "open the log"};

using MakePath = std::function<void(const std::string& path)>;

struct PathCase {
  const char* name;  // also of the file
  MakePath make;
  OpenWant user_write, user_read, root_write, root_read;
  bool needs_root = false;  // to make it
  std::string path{};       // if it is not name
};

// A file of the plain user's.
void make_file(const std::string& path, mode_t mode);
[[nodiscard]] MakePath own_file(mode_t mode);
[[nodiscard]] MakePath file_of(uid_t user, mode_t mode);
[[nodiscard]] MakePath link_to(const char* target);
[[nodiscard]] MakePath fifo(mode_t mode);

// What can stand at a path beside a file of some mode and owner. "target" is made first.
[[nodiscard]] std::vector<PathCase> kind_cases();

[[nodiscard]] std::string path_of(const PathCase& one, const ScratchDirectory& scratch);

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
[[nodiscard]] std::string open_once(const std::string& path, keel::DeviceMode mode);

[[nodiscard]] bool meets(const OpenWant& want, const std::string& answer);

// To the plain user.
void give_away(const ScratchDirectory& scratch);

}  // namespace keel_test

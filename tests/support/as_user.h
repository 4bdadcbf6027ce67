// Runs code as a user without privileges: what root may do, permissions do not stop.
#pragma once

#include <doctest/doctest.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "support/death.h"
#include "support/skip_case.h"

namespace keel_test {

inline constexpr uid_t kNobody = 65534;

inline bool is_root() { return ::geteuid() == 0; }

// For a child of run_in_child(): gives up root for good. False if that cannot be.
inline bool become(uid_t user) {
  return ::geteuid() == user ||
         (::setgroups(0, nullptr) == 0 && ::setresgid(user, user, user) == 0 &&
          ::setresuid(user, user, user) == 0);
}

// The user as whom a test runs that has to be one without privileges.
inline uid_t plain_user() { return is_root() ? kNobody : ::geteuid(); }

// As run_in_child(), as plain_user(). Exit code kCannotBecome: this system does not let root be
// anybody else, or whoever that is cannot reach the directory of temporary files.
inline constexpr int kCannotBecome = 77;
[[nodiscard]] inline Ending run_as_plain_user(const std::function<void()>& act) {
  const std::string files = std::filesystem::temp_directory_path();
  return run_in_child([&] {
    if (!become(plain_user()) || ::access(files.c_str(), X_OK) != 0) {
      ::_exit(kCannotBecome);
    }
    act();
  });
}

// True, and the case is skipped, where that child could not be who it was to be.
[[nodiscard]] inline bool could_not_become(const Ending& ending) {
  if (ending.exit_code == kCannotBecome) {
    skip_case("root cannot become another user here, or not one who can reach TMPDIR");
  }
  return ending.exit_code == kCannotBecome;
}

// The same, for a case that gives files away before it is that user.
[[nodiscard]] inline bool have_no_plain_user() {
  return could_not_become(run_as_plain_user([] {}));
}

// Everything about a file that opening it must not change, its bytes included. Of a symbolic link,
// of itself.
[[nodiscard]] inline std::string portrait_of(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    return "nothing";
  }
  std::string text;
  for (const auto value :
       {static_cast<std::int64_t>(found.st_mode), static_cast<std::int64_t>(found.st_uid),
        static_cast<std::int64_t>(found.st_gid), static_cast<std::int64_t>(found.st_nlink),
        static_cast<std::int64_t>(found.st_ino), static_cast<std::int64_t>(found.st_size),
        static_cast<std::int64_t>(found.st_mtim.tv_sec),
        static_cast<std::int64_t>(found.st_mtim.tv_nsec),
        static_cast<std::int64_t>(found.st_ctim.tv_sec),
        static_cast<std::int64_t>(found.st_ctim.tv_nsec)}) {
    text += std::to_string(value) + " ";
  }
  if (S_ISREG(found.st_mode)) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    for (int c = file == nullptr ? EOF : std::fgetc(file); c != EOF; c = std::fgetc(file)) {
      text += static_cast<char>(c);
    }
    if (file != nullptr) {
      (void)std::fclose(file);
    }
  }
  return text;
}

}  // namespace keel_test

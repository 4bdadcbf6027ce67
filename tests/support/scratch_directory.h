// A directory of the real file system, gone with it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "keel/base/check.h"

namespace keel_test {

struct ScratchDirectory {
  // Its name begins so and ends at random.
  explicit ScratchDirectory(const std::string& prefix = std::filesystem::temp_directory_path() /
                                                        "keel")
      : path(prefix + "-XXXXXX") {
    KEEL_CHECK(::mkdtemp(path.data()) != nullptr, "a scratch directory");
  }
  ~ScratchDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path, error);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] std::string operator/(const char* name) const { return path + "/" + name; }

  std::string path;
};

}  // namespace keel_test

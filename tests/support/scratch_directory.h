// A directory of the real file system, gone with it.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace keel_test {

struct ScratchDirectory {
  ScratchDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "keel-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~ScratchDirectory() { std::filesystem::remove_all(path); }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] std::string operator/(const char* name) const { return path + "/" + name; }

  std::string path;
};

}  // namespace keel_test

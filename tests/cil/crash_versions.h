// Versions of the crash lab's objects: a number stands for an object's content, so that what
// recovery delivers can be told from everything else that was ever committed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "crash_lab.h"

namespace keel_test::crash_lab {

// Unique over all lives of a run. 0: the object never was.
using Version = std::uint64_t;
// Versions from here on are of large objects.
inline constexpr Version kLargeVersions = Version{1} << 40;
using Versions = std::array<Version, kCrashObjects>;

[[nodiscard]] bool is_erasure(Version version);
[[nodiscard]] std::size_t size_of(Version version);
// Empty for an erasure.
[[nodiscard]] std::string content_of(Version version);

// What was made anew for each look at it costs more than reading the log. Threads: one.
class KnownContents {
 public:
  [[nodiscard]] const std::string& of(Version version);
  // To be called when nobody has a content.
  void trim();

 private:
  static constexpr std::size_t kMostBytes = std::size_t{64} << 20;
  std::unordered_map<Version, std::string> contents_;
  std::size_t bytes_ = 0;
};

}  // namespace keel_test::crash_lab

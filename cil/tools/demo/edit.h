// What an object holds at each version: version 1 is the file's bytes, and version v is version v -
// 1 with one edit, which depends on (seed, object, v) only. So the parent can compute every state
// from the files, and an edit that was lost shows in all later versions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace keel::tools {

// An object never grows further than this beyond its part of the file.
inline constexpr std::size_t kMostGrowthBytes = 4096;

// Takes `bytes` from version `version` - 1 to `version`, which is 2 or more.
void apply_edit(std::vector<std::byte>& bytes, std::size_t file_bytes, std::uint64_t seed,
                std::uint32_t object, std::uint32_t version);

}  // namespace keel::tools

// Which parts of which files the demo ingests. The parent makes the plan and hands it to the child;
// both read the files themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "keel/base/units.h"

namespace keel::tools {

inline constexpr std::uint32_t kMostObjectBytes = 1U << 20;

struct PlannedFile {
  std::string path;
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;  // since 1970: tells whether it changed meanwhile
  std::uint32_t first_object = 0;
  std::uint32_t object_count = 0;
};

// A part of a file; number i in the plan is object i + 1 in the log.
struct PlannedObject {
  std::uint32_t file = 0;
  std::uint32_t size_bytes = 0;
  std::uint64_t offset = 0;
};

struct Plan {
  std::vector<PlannedFile> files;
  std::vector<PlannedObject> objects;
  Bytes bytes{};
  std::uint64_t unreadable = 0;  // files and directories passed over
};

// Walks the tree in the order of the names, without following symbolic links, until `limit` bytes
// are taken. Throws Failure: not there, not a directory, unreadable, nothing in it.
[[nodiscard]] Plan make_plan(const std::string& directory, Bytes limit);

// The plan as one string of bytes, for a child of the same binary.
[[nodiscard]] std::string encode(const Plan& plan);
// Throws Failure if it is cut short.
[[nodiscard]] Plan decode_plan(const std::string& bytes);

// Reads one file of the plan, whole. Throws Failure, also if the file has changed.
[[nodiscard]] std::vector<std::byte> read_planned(const PlannedFile& file);
// Reads one object's part of its file.
[[nodiscard]] std::vector<std::byte> read_planned(const Plan& plan, const PlannedObject& object);

}  // namespace keel::tools

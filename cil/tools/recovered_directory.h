// RecoveredDirectory: what a log holds, as a directory of files.
//
// I1 All is built in a directory of another name beside the one asked for; publish() syncs it and
//    gives it its name in one step. So under the final name stands all of it or nothing, whatever
//    ends the process.
// I2 Without publish() nothing stays.
// I3 Objects are applied in the order of the log; how one is applied stands in apply() alone.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "keel/cil/recovery.h"

namespace keel::tools {

class RecoveredDirectory {
 public:
  // `path` must be absent or an empty directory. Throws Failure.
  explicit RecoveredDirectory(const std::string& path);
  ~RecoveredDirectory();
  RecoveredDirectory(const RecoveredDirectory&) = delete;
  RecoveredDirectory& operator=(const RecoveredDirectory&) = delete;

  // All of these throw Failure, the first write that fails ends it.
  void add(const RecoveredCheckpoint& checkpoint);
  void publish();

  [[nodiscard]] std::uint64_t objects() const { return objects_; }
  [[nodiscard]] std::uint64_t other_items() const { return other_items_; }

  // The file of an object: its id in 16 hex digits.
  [[nodiscard]] static std::string name_of(std::uint64_t id);
  static constexpr char kOtherItems[] = "items.jsonl";

 private:
  void apply(const RecoveredObject& object);
  void write_whole(const std::string& name, const RecoveredRegion& bytes);
  void add_other(const RecoveredCheckpoint& checkpoint, const RecoveredItem& item);
  void close_other();

  const std::string path_;
  std::string building_;  // empty: published
  int directory_ = -1;    // building_, open
  std::FILE* other_ = nullptr;
  std::uint64_t objects_ = 0;
  std::uint64_t other_items_ = 0;
};

}  // namespace keel::tools

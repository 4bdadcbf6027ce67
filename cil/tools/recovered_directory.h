// RecoveredDirectory: what a log holds, as a directory of files.
//
// I1 All is built in a directory of another name beside the one asked for; publish() syncs it and
//    gives it its name in one step. So under the final name stands all of it or nothing, whatever
//    ends the process.
// I2 Without publish() nothing stays.
// I3 Objects are applied in the order of the log; how one is applied stands in apply() alone.
// I4 An object of which the log holds only ranges has a file of another name, and beside it one
//    that lists them: those bytes, and no others, are to be laid over what is home. (Holes would
//    not tell: a file system has them by the block.) So no file of a whole object's name lacks a
//    byte.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <unordered_map>

#include "keel/cil/recovery.h"
#include "range_list.h"

namespace keel::tools {

class RecoveredDirectory {
 public:
  // `path` must be absent, or an empty directory that another one can take the place of: it has a
  // name of its own and is no mount point. Throws Failure.
  explicit RecoveredDirectory(const std::string& path);
  ~RecoveredDirectory();
  RecoveredDirectory(const RecoveredDirectory&) = delete;
  RecoveredDirectory& operator=(const RecoveredDirectory&) = delete;

  // All of these throw Failure, the first write that fails ends it.
  void add(const RecoveredCheckpoint& checkpoint);
  void publish();

  [[nodiscard]] std::uint64_t objects() const { return objects_; }  // partial ones too
  [[nodiscard]] std::uint64_t partial_objects() const { return partial_.size(); }
  [[nodiscard]] std::uint64_t other_items() const { return other_items_; }

  // The file of an object: its id in 16 hex digits.
  [[nodiscard]] static std::string name_of(std::uint64_t id);
  // The files of one that the log does not hold whole: its name, and one of these. The first has
  // the object's size and what is known in its place, the second a line "offset length" for each
  // range that is known.
  static constexpr char kPartial[] = ".partial";
  static constexpr char kRanges[] = ".ranges";
  static constexpr char kOtherItems[] = "items.jsonl";

 private:
  void open_directories();
  void leave();
  void apply(const RecoveredObject& object);
  [[nodiscard]] bool exists(const std::string& name) const;
  void remove(const std::string& name);
  [[nodiscard]] int open_file(const std::string& name, int more_flags);
  void close_file(int fd, int error);
  void write_whole(const std::string& name, const RecoveredRegion& bytes);
  void write_ranges(const std::string& name, const RecoveredObject& object);
  void note_ranges(const RecoveredObject& object);
  void list_ranges();
  void add_other(const RecoveredCheckpoint& checkpoint, const RecoveredItem& item);
  void close_other();

  const std::string path_;
  int parent_ = -1;       // the directory that it stands in, open
  std::string building_;  // empty: published
  int directory_ = -1;    // building_, open
  std::FILE* other_ = nullptr;
  std::uint64_t objects_ = 0;
  std::unordered_map<std::uint64_t, RangeList> partial_;  // by the object's id
  std::uint64_t other_items_ = 0;
};

}  // namespace keel::tools

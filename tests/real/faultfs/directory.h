// Directory: the one flat directory of faultfs: inodes and their names. It knows nothing of FUSE.
//
// I1 An inode is there while it has a name or the kernel has looked it up more often than it has
//    forgotten it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "faultfs/store.h"

namespace faultfs {

using InodeNumber = std::uint64_t;
inline constexpr InodeNumber kNoInode = 0;
inline constexpr InodeNumber kRootInode = 1;  // the directory itself, which has no Inode

struct Inode {
  FaultFile file;
  mode_t mode = 0600;
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint64_t lookups = 0;
  bool named = true;
};

class Directory {
 public:
  [[nodiscard]] Inode* inode(InodeNumber number);  // nullptr: none
  // kNoInode: none.
  [[nodiscard]] InodeNumber number_of(const std::string& name) const;
  [[nodiscard]] const std::map<std::string, InodeNumber>& names() const { return names_; }

  // The name must be free.
  InodeNumber make(const std::string& name, mode_t mode, uid_t uid, gid_t gid);
  // The name must be there.
  void unlink(const std::string& name);
  void forget(InodeNumber number, std::uint64_t lookups);

 private:
  std::map<std::string, InodeNumber> names_;
  std::map<InodeNumber, std::unique_ptr<Inode>> inodes_;
  InodeNumber next_ = kRootInode + 1;
};

}  // namespace faultfs

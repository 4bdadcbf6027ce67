#include "faultfs/directory.h"

#include <algorithm>
#include <utility>

namespace faultfs {

Inode* Directory::inode(InodeNumber number) {
  const auto found = inodes_.find(number);
  return found == inodes_.end() ? nullptr : found->second.get();
}

InodeNumber Directory::number_of(const std::string& name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? kNoInode : found->second;
}

InodeNumber Directory::make(const std::string& name, mode_t mode, uid_t uid, gid_t gid) {
  const InodeNumber number = next_++;
  auto inode = std::make_unique<Inode>();
  inode->mode = mode & 07777U;
  inode->uid = uid;
  inode->gid = gid;
  inodes_[number] = std::move(inode);
  names_[name] = number;
  return number;
}

void Directory::unlink(const std::string& name) {
  const InodeNumber number = number_of(name);
  names_.erase(name);
  inode(number)->named = false;
  forget(number, 0);
}

void Directory::forget(InodeNumber number, std::uint64_t lookups) {
  Inode* found = inode(number);
  if (found == nullptr) {
    return;
  }
  found->lookups -= std::min(lookups, found->lookups);
  if (found->lookups == 0 && !found->named) {
    inodes_.erase(number);
  }
}

}  // namespace faultfs

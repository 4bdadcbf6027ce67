#include "faultfs/operations.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <type_traits>

namespace faultfs {
namespace {

static_assert(std::is_same_v<InodeNumber, fuse_ino_t> && kRootInode == FUSE_ROOT_ID);

FileSystem& file_system_of(fuse_req_t request) {
  return *static_cast<FileSystem*>(fuse_req_userdata(request));
}

Directory& directory_of(fuse_req_t request) { return file_system_of(request).directory; }

FaultIo& io_of(fuse_req_t request) { return file_system_of(request).io; }

struct stat stat_of(fuse_ino_t ino, const Inode* inode) {
  struct stat st {};
  st.st_ino = ino;
  st.st_mode = inode == nullptr ? (S_IFDIR | 0700) : (S_IFREG | inode->mode);
  st.st_nlink = inode == nullptr ? 2 : 1;
  st.st_blksize = 4096;
  if (inode == nullptr) {
    st.st_uid = ::getuid();
    st.st_gid = ::getgid();
  } else {
    st.st_size = static_cast<off_t>(inode->file.size());
    st.st_blocks = (st.st_size + 511) / 512;
    st.st_uid = inode->uid;
    st.st_gid = inode->gid;
  }
  return st;
}

fuse_entry_param entry_of(Directory& directory, fuse_ino_t ino) {
  fuse_entry_param entry{};
  Inode* inode = directory.inode(ino);
  ++inode->lookups;
  entry.ino = ino;
  entry.attr = stat_of(ino, inode);
  return entry;  // timeouts 0: what is read is always what is here
}

void on_init(void* data, fuse_conn_info* connection) {
  connection->max_write = 1U << 20U;
  // With it the kernel makes EIO of a short direct write.
  const auto makes_eio = static_cast<unsigned>(FUSE_CAP_ASYNC_DIO);
  if (static_cast<const FileSystem*>(data)->short_writes) {
    connection->want &= ~makes_eio;
  } else {
    connection->want |= makes_eio & connection->capable;
  }
}

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Directory& directory = directory_of(request);
  const fuse_ino_t ino = parent == kRootInode ? directory.number_of(name) : kNoInode;
  if (ino == kNoInode) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  const fuse_entry_param entry = entry_of(directory, ino);
  (void)fuse_reply_entry(request, &entry);
}

void on_forget(fuse_req_t request, fuse_ino_t ino, std::uint64_t lookups) {
  directory_of(request).forget(ino, lookups);
  fuse_reply_none(request);
}

void on_getattr(fuse_req_t request, fuse_ino_t ino, fuse_file_info* /*info*/) {
  const Inode* inode = directory_of(request).inode(ino);
  if (inode == nullptr && ino != kRootInode) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  const struct stat st = stat_of(ino, inode);
  (void)fuse_reply_attr(request, &st, 0);
}

void on_setattr(fuse_req_t request, fuse_ino_t ino, struct stat* wanted, int which,
                fuse_file_info* info) {
  Inode* inode = directory_of(request).inode(ino);
  if (inode != nullptr && (which & FUSE_SET_ATTR_SIZE) != 0) {
    inode->file.resize(static_cast<std::uint64_t>(wanted->st_size));
  }
  if (inode != nullptr && (which & FUSE_SET_ATTR_MODE) != 0) {
    inode->mode = wanted->st_mode & 07777U;
  }
  on_getattr(request, ino, info);
}

void on_open(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* info) {
  (void)fuse_reply_open(request, info);
}

void on_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* info) {
  Directory& directory = directory_of(request);
  if (parent != kRootInode) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  const fuse_ctx* who = fuse_req_ctx(request);
  fuse_ino_t ino = directory.number_of(name);
  if (ino == kNoInode) {
    ino = directory.make(name, mode, who->uid, who->gid);
  }
  const fuse_entry_param entry = entry_of(directory, ino);
  (void)fuse_reply_create(request, &entry, info);
}

void on_unlink(fuse_req_t request, fuse_ino_t /*parent*/, const char* name) {
  Directory& directory = directory_of(request);
  if (directory.number_of(name) == kNoInode) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  directory.unlink(name);
  (void)fuse_reply_err(request, 0);
}

void on_read(fuse_req_t request, fuse_ino_t ino, std::size_t bytes, off_t offset,
             fuse_file_info* /*info*/) {
  io_of(request).read(request, ino, bytes, static_cast<std::uint64_t>(offset));
}

// RWF_DSYNC and O_DSYNC come as a flag of the write.
void on_write(fuse_req_t request, fuse_ino_t ino, const char* data, std::size_t bytes, off_t offset,
              fuse_file_info* info) {
  const bool durable = (info->flags & O_DSYNC) != 0;
  io_of(request).write(request, ino, std::string(data, bytes), static_cast<std::uint64_t>(offset),
                       durable);
}

void on_fsync(fuse_req_t request, fuse_ino_t ino, int /*data_only*/, fuse_file_info* /*info*/) {
  io_of(request).fsync(request, ino);
}

void on_fsync_directory(fuse_req_t request, fuse_ino_t /*ino*/, int /*data_only*/,
                        fuse_file_info* /*info*/) {
  (void)fuse_reply_err(request, 0);
}

void on_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t bytes,
                  fuse_file_info* /*info*/) {
  if (mode != 0) {
    (void)fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  if (io_of(request).refuses_space()) {
    (void)fuse_reply_err(request, ENOSPC);
    return;
  }
  Inode* inode = directory_of(request).inode(ino);
  inode->file.resize(std::max(inode->file.size(), static_cast<std::uint64_t>(offset + bytes)));
  (void)fuse_reply_err(request, 0);
}

void on_readdir(fuse_req_t request, fuse_ino_t /*ino*/, std::size_t bytes, off_t offset,
                fuse_file_info* /*info*/) {
  Directory& directory = directory_of(request);
  std::string out(bytes, '\0');
  std::size_t used = 0;
  off_t index = 0;
  for (const auto& [name, ino] : directory.names()) {
    if (index++ < offset) {
      continue;
    }
    const struct stat st = stat_of(ino, directory.inode(ino));
    const std::size_t takes =
        fuse_add_direntry(request, out.data() + used, bytes - used, name.c_str(), &st, index);
    if (takes > bytes - used) {
      break;
    }
    used += takes;
  }
  (void)fuse_reply_buf(request, out.data(), used);
}

void on_statfs(fuse_req_t request, fuse_ino_t /*ino*/) {
  struct statvfs st {};
  st.f_bsize = st.f_frsize = 4096;
  st.f_blocks = st.f_bfree = st.f_bavail = 1U << 20U;
  st.f_namemax = 255;
  (void)fuse_reply_statfs(request, &st);
}

}  // namespace

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.forget = on_forget;
  ops.getattr = on_getattr;
  ops.setattr = on_setattr;
  ops.open = on_open;
  ops.create = on_create;
  ops.unlink = on_unlink;
  ops.read = on_read;
  ops.write = on_write;
  ops.fsync = on_fsync;
  ops.fsyncdir = on_fsync_directory;
  ops.fallocate = on_fallocate;
  ops.readdir = on_readdir;
  ops.statfs = on_statfs;
  return ops;
}

}  // namespace faultfs

// The table of what the kernel asks of faultfs through FUSE. Names and attributes are answered at
// once; reads, writes and fsyncs are FaultIo's.
#pragma once

#include "faultfs/directory.h"
#include "faultfs/fault_io.h"
#include "faultfs/fuse.h"

namespace faultfs {

// What a session of FUSE has for its user data.
struct FileSystem {
  Directory& directory;
  FaultIo& io;
  bool short_writes;  // may be seen, or are errors (daemon.h, Client)
};

[[nodiscard]] fuse_lowlevel_ops operations();

}  // namespace faultfs

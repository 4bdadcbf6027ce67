#include "log/lock_memory.h"

#include <sys/mman.h>

#include <cerrno>

#include "keel/base/os.h"

namespace keel {
namespace {

Status status_of(int result, const char* act) {
  if (result >= 0) {
    return {};
  }
  // An older kernel takes what it does not know for a wrong argument.
  return result == -EINVAL || result == -ENOSYS ? Error{Errc::kUnsupported, -result, act, 0}
                                                : system_error(-result, act);
}

}  // namespace

Status lock_process_memory() {
  return status_of(os().mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT),
                   "lock the process's memory");
}

Status become_log_thread() {
  return status_of(os().set_io_flusher(), "mark the log's thread as one that frees memory");
}

}  // namespace keel

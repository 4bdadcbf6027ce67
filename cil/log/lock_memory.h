// Keeping the way to the log free of the kernel's own waits for memory, where that is permitted.
//
// A commit that is forced while memory is short must not wait for a page to be read back, nor for a
// write-back that waits for this very log. Both calls narrow that; neither is needed for
// correctness.
#pragma once

#include "keel/base/result.h"

namespace keel {

// Pages of this process stay in memory once they are there, those mapped later too: nothing is ever
// read back from a file or from swap. Pages not yet touched come at the first touch (a populated
// pool has them), since locking in advance would fill every pool to its capacity. It holds for the
// whole process and until it ends; a forked child starts without.
// With a limit (RLIMIT_MEMLOCK) that suffices today, later mappings beyond it fail: give a process
// CAP_IPC_LOCK or no limit.
// Threads: any. Errors: kPermission (no right to lock any), kNoMemory (more is mapped than
// RLIMIT_MEMLOCK allows), kUnsupported. After an error nothing is locked that was not before.
// Source: mlockall(2).
[[nodiscard]] Status lock_process_memory();

// What the calling thread asks the kernel for is taken without waiting for writes to a disk, as of
// a thread that memory reclaim itself may be waiting for. Call it first in a thread that writes a
// log.
// Errors: kPermission (no CAP_SYS_RESOURCE), kUnsupported (Linux before 5.6).
// Source: PR_SET_IO_FLUSHER in prctl(2), PF_MEMALLOC_NOIO.
[[nodiscard]] Status become_log_thread();

}  // namespace keel

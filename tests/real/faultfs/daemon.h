// The faultfs daemon: one flat directory of files in memory, mounted through FUSE, that does to the
// file under test what it is told on its control socket (control.h has the commands).
//
// From the top down: the daemon's loop; control.h, what it is told, and operations.h, what the
// kernel asks; fault_io.h, reads, writes and fsyncs under rules; directory.h, moments.h and
// rules.h, its state; store.h, a file as a disk would hold it.
#pragma once

namespace faultfs {

// Who does I/O on the files. The kernel makes of a direct write that is larger than what FUSE takes
// in one request several, and if a later one fails it returns the count of those before. Processes
// are to see that. A loop device must not: it takes any count for the whole write, and what was
// refused would be lost with nobody told (Linux up to 6.18 at least).
enum class Client { kProcess, kLoopDevice };

// Runs until it is told to quit, the other end of the control socket closes, or the file system is
// unmounted. `log`: where it says what it did to operations; nullptr: nowhere. Returns the exit
// code; the first packet on the socket is "ok" once it is mounted, or "error" and why not.
int run_daemon(const char* directory, int control, const char* log, Client client);

}  // namespace faultfs

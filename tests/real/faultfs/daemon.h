// The faultfs daemon: one flat directory of files in memory, mounted through FUSE, that does to the
// file under test what it is told on its control socket.
//
// Control: one command a packet, one answer a packet ("ok ..." or "error ...").
//   ledger PATH BYTES         copied with every snapshot
//   target NAME               the file under test; "log" at first
//   rule OP FIRST LAST ACTION ARGUMENT
//   clear                     no rules, counts from 0; power on
//   snapshots MOST SEED       a uniform sample of the moments before and after each change
//   cut MODE SEED             in place: what is pending is lost, or not
//   image NAME INDEX MODE SEED  NAME becomes what a cut leaves of that snapshot; power on
//   moments                   how many snapshots there are, the bytes of a ledger's part in each
//   save INDEX PATH           that snapshot, whole, into a file elsewhere
//   promises INDEX            the ledger's part, raw
//   power off|on              off: everything fails with EIO
//   release                   answers what hangs
//   hung                      answers once an operation hangs
//   stats                     what was done
//   quit
#pragma once

namespace faultfs {

// Runs until it is told to quit, the other end of the control socket closes, or the file system is
// unmounted. `log`: where it says what it did to operations; nullptr: nowhere. Returns the exit
// code; the first packet on the socket is "ok" once it is mounted, or "error" and why not.
int run_daemon(const char* directory, int control, const char* log);

}  // namespace faultfs

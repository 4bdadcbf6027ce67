// Control: what the daemon is told on its socket. One command a packet, one answer a packet
// ("ok ..." or "error ...").
//
//   ledger PATH BYTES         copied with every snapshot
//   target NAME               the file under test; "log" at first
//   rule OP FIRST LAST ACTION ARGUMENT
//   clear                     no rules, counts from 0; power and space are back
//   snapshots MOST SEED       a uniform sample of the moments before and after each change
//   cut MODE SEED             in place: what is pending is lost, or not
//   image NAME INDEX MODE SEED  NAME becomes what a cut leaves of that snapshot; power on
//   moments                   ends the sample: how many snapshots there are, of how many moments
//   save INDEX PATH           that snapshot, whole, into a file elsewhere
//   promises INDEX            the ledger's part of that snapshot, raw
//   power off|on              off: everything fails with EIO
//   nospace                   fallocate() fails with ENOSPC
//   release                   answers what hangs
//   hung                      answers once an operation hangs
//   stats                     writes, reads, fsyncs and faults
//   quit
#pragma once

#include <sstream>
#include <string>

#include "faultfs/directory.h"
#include "faultfs/fault_io.h"
#include "faultfs/moments.h"

namespace faultfs {

class Control {
 public:
  Control(int socket, Directory& directory, Moments& moments, FaultIo& io)
      : socket_(socket), directory_(directory), moments_(moments), io_(io) {}

  // Reads one command and does it; false at the end.
  [[nodiscard]] bool serve();
  void answer(const std::string& text);

 private:
  // Each reads its arguments and gives the answer; empty: it comes later.
  std::string ledger(std::istringstream& in);
  std::string target(std::istringstream& in);
  std::string rule(std::istringstream& in);
  std::string clear(std::istringstream& in);
  std::string snapshots(std::istringstream& in);
  std::string cut(std::istringstream& in);
  std::string image(std::istringstream& in);
  std::string moments(std::istringstream& in);
  std::string save_moment(std::istringstream& in);
  std::string promises(std::istringstream& in);
  std::string power(std::istringstream& in);
  std::string no_space(std::istringstream& in);
  std::string release(std::istringstream& in);
  std::string hung(std::istringstream& in);
  std::string stats(std::istringstream& in);

  std::string command(const std::string& line);

  const int socket_;
  Directory& directory_;
  Moments& moments_;
  FaultIo& io_;
};

}  // namespace faultfs

// The writer: a process that commits transactions whose contents the ledger tells, forces some,
// writes objects home, until it is done, killed, or meets an error; then it sees whether anything
// still succeeds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace keel_test {

struct WriterPlan {
  std::string log;
  std::string ledger;
  std::uint64_t seed = 1;
  std::uint32_t threads = 1;
  std::uint32_t transactions = 100;  // of each thread
  std::uint32_t depth = 0;
  bool uring = false;
  bool large = false;            // objects of up to 400 KiB
  std::uint32_t force = 4;       // one of so many commits is forced; 1: all
  std::uint32_t hungry_mib = 0;  // so much memory is touched, bit by bit, beside the journal
  std::uint64_t stall_ms = 0;    // watchdog; 0: as it comes
  // "fsize", "data", "nofile", "nproc", "memlock" or "": what is limited, to `limit`, once the
  // journal is open (`late`) or before. "file" limits files to their present size less `limit`.
  std::string limited;
  std::uint64_t limit = 0;
  bool late = true;
  bool ignore_xfsz = true;

  [[nodiscard]] std::vector<std::string> words() const;
  [[nodiscard]] static WriterPlan from(const std::vector<std::string>& words);
};

// Exit codes of the writer.
inline constexpr int kWriterDone = 0;
inline constexpr int kWriterFailed = 10;     // met an error, and everything failed from then on
inline constexpr int kWriterNotOpened = 11;  // the journal could not be opened
inline constexpr int kWriterUnsound = 12;    // something succeeded after the error

int run_writer(const WriterPlan& plan);

}  // namespace keel_test

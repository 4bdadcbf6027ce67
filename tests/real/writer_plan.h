// What a writer is to do, and how it goes through a command line.
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
  bool buffered = false;         // through the page cache
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
  bool lock_memory = false;  // of the journal, or of the pool that is used alone
  bool gated = false;        // once it has its log open it waits for Ledger::go

  // Threads, depth, mode and so on, the same for the same `random`; io_uring only where there is
  // one. The log and the ledger are the caller's.
  [[nodiscard]] static WriterPlan draw(std::uint64_t& random);
  // Whether the log is covered in each rest of a millisecond, so after every force on a slow disk.
  [[nodiscard]] bool covers() const { return seed % 3 == 0; }
  [[nodiscard]] std::vector<std::string> words() const;
  [[nodiscard]] static WriterPlan from(const std::vector<std::string>& words);
};

// "" if the kernel gives this process an io_uring, else why not (a container's filter, a sysctl).
[[nodiscard]] const std::string& why_no_uring();

}  // namespace keel_test

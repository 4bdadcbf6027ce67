// Memory that the ingesting process shares with the one that will kill it: what it has committed.
//
// The kernel keeps the pages when the writer dies, so whatever was stored is there, and what was
// not stored is merely not known. Acknowledgements do not go this way but through the pipe
// (message.h).
//
// I1 A worker stores a transaction's sequence, then counts it (release); who sees the count
//    (acquire) sees the sequence.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "demo/record.h"
#include "keel/base/units.h"

namespace keel::tools {

// Transactions of one worker in one life; one that has noted so many ends.
inline constexpr std::uint64_t kMostNotes = std::uint64_t{1} << 18;

struct WorkerNotes {
  std::uint64_t base;                    // transactions before this life; set by the parent
  std::atomic<std::uint64_t> committed;  // in this life
  std::array<std::atomic<std::uint64_t>, kMostNotes> sequences;

  [[nodiscard]] Sequence last_sequence(std::uint64_t count) const {
    return Sequence(sequences[count - 1].load(std::memory_order_relaxed));
  }
};

// All zero at the start. Relaxed where nothing else depends on the value.
struct Notes {
  std::atomic<std::uint64_t> log_used;  // bytes of the log, as last seen
  std::atomic<std::uint64_t> left;      // objects that nobody has begun to ingest
  std::atomic<std::uint32_t> forcing;   // workers inside force()
  std::array<WorkerNotes, kMostThreads> workers;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// The mapping of the notes and the descriptor that a child inherits.
class Notebook {
 public:
  // Both throw Failure.
  static Notebook create();
  static Notebook attach(int fd);

  Notebook(Notebook&& other) noexcept;
  Notebook(const Notebook&) = delete;
  Notebook& operator=(const Notebook&) = delete;
  ~Notebook();

  [[nodiscard]] Notes& notes() const { return *notes_; }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  explicit Notebook(int fd);

  int fd_;
  Notes* notes_ = nullptr;
};

}  // namespace keel::tools

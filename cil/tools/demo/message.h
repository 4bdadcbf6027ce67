// What the ingesting process tells the parent, through a pipe.
//
// A message is written in one piece (at most PIPE_BUF) and stays in the pipe when its writer is
// killed. So an acknowledgement that the parent reads was given, whole; one that the kill prevented
// was not given, and nobody relies on it.
#pragma once

#include <limits.h>

#include <array>
#include <cstdint>
#include <type_traits>

#include "demo/record.h"
#include "keel/alloc/pool.h"
#include "keel/cil/journal.h"

namespace keel::tools {

enum class MessageKind : std::uint32_t {
  kOpened,  // the log is recovered; `covered` is what was found in it
  kForced,  // stable: `sequence`, and of each worker its transactions up to `covered`
  kDone,    // the share of the log is used up; waits to be killed
  kFailed,  // `text` says why; waits to be killed
};

struct Message {
  MessageKind kind{};
  std::int32_t exit_code = 0;                         // kFailed
  std::uint64_t sequence = 0;                         // kForced
  std::uint64_t force_ns = 0;                         // kForced
  std::array<std::uint64_t, kMostThreads> covered{};  // counted over all lives
  JournalStats journal{};
  PoolStats pool{};
  std::array<char, 512> text{};  // ends with 0
};
static_assert(std::is_trivially_copyable_v<Message> && sizeof(Message) <= PIPE_BUF);

}  // namespace keel::tools

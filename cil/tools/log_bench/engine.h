// Engine: what a workload drives, a journal or a store that keeps a log, behind three calls.
//
// I1 An engine is opened for one use, which says what commit() promises. That keeps the choice of
//    settings in the engine and out of the workload.
// I2 Nothing is closed unless close() is called: the destructor of an engine frees memory, and a
//    process that ends without either leaves its files as a crash does.
// Threads: commit() by `threads` threads at a time, each with a number of its own; force() by any,
// beside them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "keel/base/result.h"
#include "keel/base/units.h"

namespace keel::bench {

enum class EngineUse : std::uint8_t {
  kDurable,  // commit() returns when the commit is stable; each thread has one object
  kAsync,    // commit() does not wait; every commit is of a new key
  kHotSet,   // commit() does not wait; keys are below EngineConfig::objects
};

struct EngineConfig {
  std::string dir;  // for its files
  EngineUse use = EngineUse::kDurable;
  unsigned threads = 1;
  std::size_t object_bytes = 256;
  std::size_t objects = 1000;                // of kHotSet
  Bytes log{std::uint64_t{64} << 20};        // of an engine whose log has a size
  bool fresh = true;                         // false: open what an earlier run has left
  bool retry_contiguous = false;             // JournalConfig's; keel only
  std::function<void(Bytes, Bytes)> made{};  // progress of writing a new log; may be empty
};

class Engine {
 public:
  Engine() = default;
  virtual ~Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Commits `object_bytes` bytes as the object `key`. The bytes are the caller's again when it
  // returns.
  [[nodiscard]] virtual Status commit(unsigned thread, std::uint64_t key,
                                      const std::byte* bytes) = 0;
  // Everything committed before the call is stable when it returns.
  [[nodiscard]] virtual Status force() = 0;
  // No thread may be in a call.
  [[nodiscard]] virtual Status close() = 0;
  // Bytes written to the log so far, where the engine counts them; else 0.
  [[nodiscard]] virtual std::uint64_t log_bytes() const { return 0; }
  // What the library's own open took, recovery included.
  [[nodiscard]] double open_seconds() const { return open_seconds_; }

 protected:
  double open_seconds_ = 0;
};

using EngineResult = Result<std::unique_ptr<Engine>>;

}  // namespace keel::bench

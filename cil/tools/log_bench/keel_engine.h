// The engine `keel`: a Journal driven through its public interface.
//
// Durable use: each thread has one item. Hot set: an item for each key. Async: each thread has a
// ring of items; a commit takes the oldest, which must have left the log by then, gives it the new
// key, and commits. A ring is large enough that this waits only where the log would as well.
#pragma once

#include <memory>

#include "keel/alloc/pool.h"
#include "keel/cil/journal.h"
#include "log_bench/engine.h"

namespace keel::bench {

// What a pool that an engine makes for itself takes at once, of whatever size its log is.
[[nodiscard]] Bytes initial_pool_bytes(const EngineConfig& config);

class KeelEngine : public Engine {
 public:
  // Makes the log DIR/keel-bench.log if the config says `fresh` (an error if it is there), then
  // opens it.
  // `pool`: nullptr for one of its own. Errors: those of create_log(), Pool::create() and
  // Journal::open().
  [[nodiscard]] static Result<std::unique_ptr<KeelEngine>> open(
      const EngineConfig& config, std::shared_ptr<Pool> pool = nullptr, bool buffered = false);
  ~KeelEngine() override;

  [[nodiscard]] Status commit(unsigned thread, std::uint64_t key, const std::byte* bytes) override;
  [[nodiscard]] Status force() override;
  [[nodiscard]] Status close() override;
  [[nodiscard]] std::uint64_t log_bytes() const override;

  [[nodiscard]] Journal& journal() { return *journal_; }
  [[nodiscard]] Pool& pool() { return *pool_; }
  // The newest sequence that a commit of this thread has joined.
  [[nodiscard]] Sequence last_sequence(unsigned thread) const;

  // Where the log is.
  [[nodiscard]] static std::string log_path(const std::string& dir);

 private:
  class KeyItem;
  struct ThreadItems;

  KeelEngine(const EngineConfig& config, std::shared_ptr<Pool> pool);
  void make_items();
  [[nodiscard]] Result<KeyItem*> item_for(ThreadItems& mine, std::uint64_t key);

  const EngineConfig config_;
  std::shared_ptr<Pool> pool_;  // outlives the items, which outlive the journal
  std::unique_ptr<ThreadItems[]> items_;
  std::unique_ptr<Journal> journal_;
};

}  // namespace keel::bench

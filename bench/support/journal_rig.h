// A journal on a fresh log with its own pool, and objects to commit: what every journal bench
// needs.
//
// I1 Object i is `object_bytes` bytes at i * object_bytes of one touched buffer, so that a peer
//    that copies objects reads the very same memory.
// I2 The pool is populated when create() returns: no commit pays for growth.
// Threads: commit() and settle() from any, for different objects.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>

#include "keel/alloc/pool.h"
#include "keel/base/result.h"
#include "keel/base/units.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"

namespace keel::bench {

// Page-aligned, written once. Aborts if there is no memory.
class TouchedBytes {
 public:
  explicit TouchedBytes(std::size_t bytes);
  [[nodiscard]] std::byte* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_;
};

struct RigConfig {
  Bytes log{std::uint64_t{128} << 20};
  Bytes max_checkpoint{};  // 0: create_log()'s choice
  std::size_t pool_bytes = std::size_t{128} << 20;
  std::size_t objects = 0;
  std::size_t object_bytes = 0;

  bool operator==(const RigConfig&) const = default;
};

class JournalRig {
 public:
  // Makes the log `name` in `dir`, in place of one that is there.
  [[nodiscard]] static Result<std::unique_ptr<JournalRig>> create(const std::string& dir,
                                                                  const std::string& name,
                                                                  const RigConfig& config);
  ~JournalRig();
  JournalRig(const JournalRig&) = delete;
  JournalRig& operator=(const JournalRig&) = delete;

  [[nodiscard]] Journal& journal() { return *journal_; }
  [[nodiscard]] std::size_t object_count() const { return items_.size(); }
  [[nodiscard]] std::byte* object(std::size_t index) const {
    return bytes_.data() + index * object_bytes_;
  }
  [[nodiscard]] std::size_t object_bytes() const { return object_bytes_; }

  // One transaction of object `index`, from begin() to commit().
  [[nodiscard]] Result<Sequence> commit(std::size_t index);
  // The same for objects [first, first + count), a transaction each; the last one's sequence.
  [[nodiscard]] Result<Sequence> commit_each(std::size_t first, std::size_t count);
  // Forces all, then releases objects [first, first + count): the next commit of each is its first.
  [[nodiscard]] Status settle(std::size_t first, std::size_t count);
  // Waits until the push thread has freed what it wrote; it does that after it has woken the
  // waiters. For a measurement of memory alone. Nobody else may use the rig meanwhile.
  void quiesce() const;
  // The log's file stays when the rig goes.
  void keep_log() { keep_log_ = true; }

 private:
  JournalRig(std::string path, std::unique_ptr<Pool> pool, const RigConfig& config);

  const std::string path_;
  const std::size_t object_bytes_;
  bool keep_log_ = false;
  std::unique_ptr<Pool> pool_;  // outlives the items, which outlive the journal
  TouchedBytes bytes_;
  std::deque<ObjectItem> items_;
  std::unique_ptr<Journal> journal_;
};

}  // namespace keel::bench

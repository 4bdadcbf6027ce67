// The ideal log for a hot set: objects merged by hand. A commit copies its object into a table and
// marks it; a force copies what is marked out of the table and writes it, while commits go on.

#include <mutex>
#include <utility>
#include <vector>

#include "compare/ideal.h"

namespace keel::bench {
namespace {

class IdealHotSet : public Engine {
 public:
  IdealHotSet(const EngineConfig& config, std::unique_ptr<IdealRing> ring)
      : object_bytes_(config.object_bytes),
        ring_(std::move(ring)),
        table_(config.objects * config.object_bytes),
        out_(config.objects * (config.object_bytes + sizeof(RecordHead))),
        is_dirty_(config.objects) {
    dirty_.reserve(config.objects);
  }

  Status commit(unsigned, std::uint64_t key, const std::byte* bytes) override {
    const std::lock_guard lock(mutex_);
    __builtin_memcpy(table_.data() + key * object_bytes_, bytes, object_bytes_);
    if (is_dirty_[key] == 0) {
      is_dirty_[key] = 1;
      dirty_.push_back(key);
    }
    return {};
  }

  Status force() override {
    const std::lock_guard force_lock(force_mutex_);
    const std::size_t bytes = gather();
    if (bytes == 0) {
      return {};
    }
    const RecordHead sealed{hash_of(out_.data(), bytes), bytes};
    __builtin_memcpy(out_.data(), &sealed, sizeof sealed);
    return ring_->write(out_.data(), whole_blocks(bytes), true);
  }
  Status close() override { return force(); }

 private:
  // Bytes of what was marked, in out_.
  std::size_t gather() {
    const std::lock_guard lock(mutex_);
    std::size_t at = 0;
    for (const std::uint64_t key : dirty_) {
      const RecordHead head{0, key};
      __builtin_memcpy(out_.data() + at, &head, sizeof head);
      __builtin_memcpy(out_.data() + at + sizeof head, table_.data() + key * object_bytes_,
                       object_bytes_);
      at += sizeof head + object_bytes_;
      is_dirty_[key] = 0;
    }
    dirty_.clear();
    return at;
  }

  const std::size_t object_bytes_;
  const std::unique_ptr<IdealRing> ring_;
  std::mutex force_mutex_;  // outside the other
  std::mutex mutex_;
  IoBuffer table_;
  IoBuffer out_;
  std::vector<char> is_dirty_;
  std::vector<std::uint64_t> dirty_;
};

}  // namespace

EngineResult open_ideal_hot_set(const EngineConfig& config, std::unique_ptr<IdealRing> ring) {
  return std::unique_ptr<Engine>(new IdealHotSet(config, std::move(ring)));
}

}  // namespace keel::bench

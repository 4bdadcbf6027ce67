// The ideal log, durable: leader group commit with one group write in flight.
//
// Two groups: one gathers, one is written. Who finds no write in flight leads at once; else the
// first of the gathering group leads it when the write before it is done. A leader hands on the
// lead before it wakes its own group, so that the device has work while many threads wake.
//
// I1 A group gathers again only when its last round is stable; members wait for their round's
//    number, so one that sleeps through several rounds of its group still wakes rightly.

#include <mutex>
#include <utility>

#include "compare/ideal.h"

namespace keel::bench {
namespace {

struct Group {
  explicit Group(std::size_t bytes) : buffer(bytes) {}

  IoBuffer buffer;
  std::size_t used = 0;
  std::uint32_t members = 0;
  std::uint32_t round = 1;
  std::atomic<std::uint32_t> stable{0};  // newest round that is
  std::atomic<std::uint32_t> lead{0};    // newest round whose first member is to lead
};

class IdealDurable : public Engine {
 public:
  IdealDurable(const EngineConfig& config, std::unique_ptr<IdealRing> ring)
      : record_bytes_(config.object_bytes),
        ring_(std::move(ring)),
        first_(most_bytes(config)),
        second_(most_bytes(config)) {}

  Status commit(unsigned, std::uint64_t key, const std::byte* bytes) override {
    std::unique_lock lock(mutex_);
    Group& group = *gathering_;
    const std::uint32_t round = group.round;
    const bool is_first = group.members == 0;
    append(group, key, bytes);
    if (!writing_) {
      writing_ = true;
      return lead(group, std::move(lock));
    }
    lock.unlock();
    if (is_first) {
      wait(group.lead, round);
      lock.lock();
      return lead(group, std::move(lock));
    }
    wait(group.stable, round);
    return {};
  }
  Status force() override { return {}; }
  Status close() override { return {}; }

 private:
  // A thread has one commit under way: all of them fit.
  static std::size_t most_bytes(const EngineConfig& config) {
    return whole_blocks(config.threads * (config.object_bytes + sizeof(RecordHead)));
  }

  void append(Group& group, std::uint64_t key, const std::byte* bytes) const {
    std::byte* place = group.buffer.data() + group.used;
    const RecordHead head{0, key};
    __builtin_memcpy(place, &head, sizeof head);
    __builtin_memcpy(place + sizeof head, bytes, record_bytes_);
    group.used += sizeof head + record_bytes_;
    ++group.members;
  }

  // Writes the gathering group; `writing_` is set, by the caller or by who has handed on the lead.
  Status lead(Group& group, std::unique_lock<std::mutex> lock) {
    Group& other = &group == &first_ ? second_ : first_;
    other.used = 0;
    other.members = 0;
    ++other.round;
    gathering_ = &other;
    // What the group is now: its next round may begin as soon as the lead is handed on.
    const std::uint32_t round = group.round;
    const std::uint32_t members = group.members;
    lock.unlock();
    const RecordHead sealed{hash_of(group.buffer.data(), group.used), round};
    __builtin_memcpy(group.buffer.data(), &sealed, sizeof sealed);
    const Status status = ring_->write(group.buffer.data(), whole_blocks(group.used), true);
    lock.lock();
    const bool handed_on = other.members != 0;
    writing_ = handed_on;
    const std::uint32_t next_round = other.round;
    lock.unlock();
    if (handed_on) {
      announce(other.lead, next_round, 1);
    }
    if (members > 1) {
      announce(group.stable, round, static_cast<int>(members));
    }
    return status;
  }

  static void announce(std::atomic<std::uint32_t>& word, std::uint32_t round, int sleepers) {
    word.store(round, std::memory_order_release);  // pairs with wait()
    futex_wake(word, sleepers);
  }
  static void wait(std::atomic<std::uint32_t>& word, std::uint32_t round) {
    for (;;) {
      const std::uint32_t now = word.load(std::memory_order_acquire);
      if (static_cast<std::int32_t>(now - round) >= 0) {
        return;
      }
      futex_wait(word, now);
    }
  }

  const std::size_t record_bytes_;
  const std::unique_ptr<IdealRing> ring_;
  std::mutex mutex_;
  Group first_;
  Group second_;
  Group* gathering_ = &first_;
  bool writing_ = false;
};

}  // namespace

EngineResult open_ideal_durable(const EngineConfig& config, std::unique_ptr<IdealRing> ring) {
  return std::unique_ptr<Engine>(new IdealDurable(config, std::move(ring)));
}

}  // namespace keel::bench

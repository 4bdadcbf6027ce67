#include "support/journal_rig.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "keel/base/os.h"

namespace keel::bench {

TouchedBytes::TouchedBytes(std::size_t bytes) : bytes_(round_up(bytes, kPageBytes)) {
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes_)));
  KEEL_CHECK(data_ != nullptr, "no memory for the bench's own buffer", bytes_);
  for (std::size_t page = 0; page * kPageBytes < bytes_; ++page) {
    std::memset(data_.get() + page * kPageBytes, static_cast<int>(page & 0xff), kPageBytes);
  }
}

void TouchedBytes::Free::operator()(std::byte* data) const { std::free(data); }

JournalRig::JournalRig(std::string path, std::unique_ptr<Pool> pool, const RigConfig& config)
    : path_(std::move(path)),
      object_bytes_(config.object_bytes),
      pool_(std::move(pool)),
      bytes_(std::max<std::size_t>(1, config.objects * config.object_bytes)) {
  for (std::size_t i = 0; i < config.objects; ++i) {
    items_.emplace_back(i + 1).set(object(i), object_bytes_);
  }
}

JournalRig::~JournalRig() {
  journal_.reset();
  if (!keep_log_) {
    (void)::unlink(path_.c_str());
  }
}

Result<std::unique_ptr<JournalRig>> JournalRig::create(const std::string& dir,
                                                       const std::string& name,
                                                       const RigConfig& config) {
  const std::string path = dir + "/" + name;
  (void)::unlink(path.c_str());
  auto log = create_log(path, {.size = config.log, .max_checkpoint = config.max_checkpoint});
  if (!log) {
    return log.error();
  }
  auto pool =
      Pool::create({.capacity_bytes = config.pool_bytes, .initial_bytes = config.pool_bytes});
  if (!pool) {
    return pool.error();
  }
  std::unique_ptr<JournalRig> rig(new JournalRig(path, std::move(*pool), config));
  JournalConfig journal_config;
  journal_config.pool = rig->pool_.get();
  auto journal =
      Journal::open(path, journal_config, [](const RecoveredCheckpoint&) { return Status{}; });
  if (!journal) {
    return journal.error();
  }
  rig->journal_ = std::move(*journal);
  return rig;
}

Result<Sequence> JournalRig::commit(std::size_t index) {
  auto transaction = journal_->begin(ObjectItem::log_bytes(object_bytes_), 1);
  if (!transaction) {
    return transaction.error();
  }
  if (auto status = transaction->log(items_[index]); !status) {
    return status.error();
  }
  return transaction->commit();
}

Result<Sequence> JournalRig::commit_each(std::size_t first, std::size_t count) {
  Result<Sequence> sequence = Sequence{};
  for (std::size_t i = first; i < first + count && sequence; ++i) {
    sequence = commit(i);
  }
  return sequence;
}

Status JournalRig::settle(std::size_t first, std::size_t count) {
  if (auto status = journal_->force_all(); !status) {
    return status;
  }
  for (std::size_t i = first; i < first + count; ++i) {
    // The push thread unpins a little after it has woken us.
    while (!journal_->release(items_[i])) {
      std::this_thread::yield();
    }
  }
  return {};
}

void JournalRig::quiesce() const {
  // A checkpoint is freed in microseconds: a millisecond without a free is the end.
  constexpr std::uint64_t kQuietNs = 1'000'000;
  for (std::uint64_t seen = pool_->stats().frees;;) {
    os().sleep_ns(kQuietNs);
    if (const std::uint64_t now = pool_->stats().frees; now != seen) {
      seen = now;
    } else {
      return;
    }
  }
}

}  // namespace keel::bench

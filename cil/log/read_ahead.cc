#include "log/read_ahead.h"

#include <algorithm>
#include <new>
#include <system_error>

#include "keel/base/check.h"

namespace keel {
namespace {

std::size_t chunk_bytes_of(const Geometry& geometry, std::size_t wanted) {
  const std::uint64_t most = std::min<std::uint64_t>(wanted, geometry.data_bytes);
  return std::max<std::uint64_t>(round_down(most, geometry.block_bytes), geometry.block_bytes);
}

}  // namespace

ReadAhead::ReadAhead(const LogFile& file, const ReadAheadOptions& options)
    : file_(file),
      chunk_bytes_(chunk_bytes_of(file.geometry(), options.chunk_bytes)),
      depth_(options.depth),
      past_bad_blocks_(options.past_bad_blocks),
      threads_wanted_(options.threads) {}

Result<std::unique_ptr<ReadAhead>> ReadAhead::make(const LogFile& file,
                                                   const ReadAheadOptions& options) {
  std::unique_ptr<ReadAhead> made(new (std::nothrow) ReadAhead(file, options));
  if (made == nullptr) {
    return Error{Errc::kNoMemory, 0, "log reading", sizeof(ReadAhead)};
  }
  return made;
}

ReadAhead::~ReadAhead() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    planned_more_.notify_all();
  }
  for (Thread& thread : threads_) {
    thread.join();
  }
}

void ReadAhead::restart(Lsn from, Lsn limit) {
  release_below(planned_);
  released_ = from;
  planned_ = from;
  limit_ = limit;
  MutexLock lock(mutex_);
  failed_ = false;
}

void ReadAhead::extend(Lsn limit) { limit_ = std::max(limit_, limit); }

Result<std::span<const std::byte>> ReadAhead::at(Lsn lsn) {
  KEEL_CHECK(lsn >= released_ && lsn < limit_, "bytes outside of what may be read", lsn.value(),
             limit_.value());
  auto chunk = plan_to(lsn);
  if (!chunk) {
    return chunk.error();
  }
  Chunk& used = **chunk;
  plan_ahead(used);
  MutexLock lock(mutex_);
  wait_until_read(used);
  if (used.state == State::kFailed) {
    return used.error;
  }
  const std::size_t skip = (lsn - used.start).value();
  const std::size_t bytes = readable_at(used, skip);
  if (bytes == 0) {
    return used.error;
  }
  return std::span<const std::byte>(used.buffer.data() + skip, bytes);
}

std::size_t ReadAhead::readable_at(const Chunk& chunk, std::size_t skip) const {
  std::size_t end = chunk.bytes;
  if (chunk.state == State::kInPart) {
    const std::size_t block = file_.geometry().block_bytes;
    end = round_down(skip, block);
    while (end < chunk.bytes && chunk.unreadable[end / block] == 0) {
      end += block;
    }
  }
  return end > skip ? end - skip : 0;
}

// The chunk that `lsn` is in; the list of chunks is changed by this thread alone.
Result<ReadAhead::Chunk*> ReadAhead::plan_to(Lsn lsn) {
  while (planned_ <= lsn) {
    if (auto status = plan_one(); !status) {
      return status.error();
    }
  }
  MutexLock lock(mutex_);
  Chunk* chunk = last_used_ != nullptr && last_used_->start <= lsn ? last_used_ : oldest_;
  while (chunk->end() <= lsn) {
    chunk = chunk->next;
  }
  last_used_ = chunk;
  return chunk;
}

void ReadAhead::plan_ahead(const Chunk& used) {
  std::size_t ahead = 0;
  for (const Chunk* chunk = used.next; chunk != nullptr; chunk = chunk->next) {
    ++ahead;
  }
  // Too little memory for reading ahead is no error: there is what is needed now.
  while (ahead < depth_ && planned_ < limit_ && plan_one().ok()) {
    ++ahead;
  }
  if (ahead > 0 && threads_.size() < threads_wanted_) {
    start_threads();
  }
}

Status ReadAhead::plan_one() {
  auto taken = take_buffer();
  if (!taken) {
    return taken.error();
  }
  Chunk& chunk = **taken;
  chunk.start = planned_;
  chunk.bytes = std::min<std::uint64_t>(chunk_bytes_, (limit_ - planned_).value());
  chunk.next = nullptr;
  planned_ += Bytes(chunk.bytes);
  MutexLock lock(mutex_);
  chunk.state = State::kPlanned;
  (oldest_ == nullptr ? oldest_ : newest_->next) = &chunk;
  newest_ = &chunk;
  planned_more_.notify_one();
  return {};
}

Result<ReadAhead::Chunk*> ReadAhead::take_buffer() {
  if (free_ != nullptr) {
    Chunk* chunk = free_;
    free_ = chunk->next;
    return chunk;
  }
  auto buffer = ReadBuffer::allocate(chunk_bytes_);
  if (!buffer) {
    return buffer.error();
  }
  std::unique_ptr<Chunk> made(new (std::nothrow) Chunk);
  if (made == nullptr) {
    return Error{Errc::kNoMemory, 0, "log reading", sizeof(Chunk)};
  }
  made->buffer = std::move(*buffer);
  try {
    if (past_bad_blocks_) {
      made->unreadable.resize(chunk_bytes_ / file_.geometry().block_bytes);
    }
    chunks_.push_back(std::move(made));
  } catch (const std::bad_alloc&) {
    return Error{Errc::kNoMemory, 0, "log reading", chunks_.size()};
  }
  return chunks_.back().get();
}

void ReadAhead::start_threads() {
  try {
    threads_.reserve(threads_wanted_);
    while (threads_.size() < threads_wanted_) {
      threads_.emplace_back("read ahead", [this] { work(); });
    }
  } catch (const std::exception&) {
    // No thread (std::system_error) or no memory for one: go on with those that there are.
    threads_wanted_ = static_cast<unsigned>(threads_.size());
  }
}

void ReadAhead::work() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    Chunk* chunk = failed_ ? nullptr : first_unclaimed();
    if (chunk == nullptr) {
      planned_more_.wait(mutex_);
    } else {
      read_claimed(*chunk);
    }
  }
}

ReadAhead::Chunk* ReadAhead::first_unclaimed() {
  Chunk* chunk = oldest_;
  while (chunk != nullptr && chunk->state != State::kPlanned) {
    chunk = chunk->next;
  }
  return chunk;
}

void ReadAhead::read_claimed(Chunk& chunk) {
  chunk.state = State::kReading;
  mutex_.unlock();
  const Status status = file_.read(chunk.start, chunk.buffer.data(), chunk.bytes);
  Bytes read(chunk.bytes);
  State state = State::kReady;
  if (!status) {
    chunk.error = status.error();
    state = past_bad_blocks_ ? State::kInPart : State::kFailed;
    read = past_bad_blocks_ ? read_blocks(chunk) : Bytes(0);
  }
  mutex_.lock();
  chunk.state = state;
  bytes_read_ += read;
  failed_ |= state == State::kFailed;
  read_one_.notify_one();
}

// Each block alone; returns how much could be read.
Bytes ReadAhead::read_blocks(Chunk& chunk) {
  const std::size_t block = file_.geometry().block_bytes;
  Bytes read{};
  for (std::size_t at = 0; at < chunk.bytes; at += block) {
    const Status status = file_.read(chunk.start + Bytes(at), chunk.buffer.data() + at, block);
    chunk.unreadable[at / block] = status.ok() ? 0 : 1;
    if (status.ok()) {
      read += Bytes(block);
    } else {
      chunk.error = status.error();
    }
  }
  return read;
}

void ReadAhead::wait_until_read(Chunk& chunk) {
  if (chunk.state == State::kPlanned) {
    read_claimed(chunk);
  }
  while (chunk.state == State::kReading) {
    read_one_.wait(mutex_);
  }
}

void ReadAhead::release_below(Lsn lsn) {
  MutexLock lock(mutex_);
  while (oldest_ != nullptr && oldest_->end() <= lsn) {
    Chunk* chunk = oldest_;
    while (chunk->state == State::kReading) {
      read_one_.wait(mutex_);
    }
    oldest_ = chunk->next;
    last_used_ = last_used_ == chunk ? nullptr : last_used_;
    chunk->next = free_;
    free_ = chunk;
  }
  released_ = std::max(released_, lsn);
}

Bytes ReadAhead::bytes_read() const {
  MutexLock lock(mutex_);
  return bytes_read_;
}

}  // namespace keel

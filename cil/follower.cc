// Following a live journal: where a follower begins, and how it waits and reads.
#include "keel/cil/follower.h"

#include <algorithm>
#include <new>
#include <utility>

#include "follower_impl.h"
#include "journal_impl.h"
#include "keel/base/check.h"
#include "keel/base/no_throw.h"

namespace keel {
namespace {

// A follower reads by itself, in pieces that suit both a live end and a log to catch up with.
constexpr ReadAheadOptions kReads{.chunk_bytes = std::size_t{1} << 20, .depth = 1, .threads = 0};

Error lagged(Sequence sequence) {
  return {Errc::kLagged, 0, "the log no longer holds sequence", sequence.value()};
}

Sequence sequence_at(const ChainPosition& position) {
  return Sequence(position.predecessor.sequence + 1);
}

}  // namespace

Follower::Follower(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Follower::~Follower() {
  if (impl_->journal.owned()) {
    impl_->journal.followers.remove(impl_->place);
    impl_->journal.ask_for_pass();  // It may have held the tail for somebody who waits.
  } else {
    (void)impl_.release();  // A forked child has neither the lock nor the pool's memory.
  }
}

Sequence Follower::position() const {
  return std::max(impl_->from, sequence_at(impl_->chain.position()));
}

// A checkpoint is handed over only if its place was still held when all of it had been read: from
// the moment that it is not, the space may be written over.
Result<const RecoveredCheckpoint*> Follower::next(std::uint64_t timeout_ns) {
  if (auto status = impl_->journal.owned(); !status) {
    return status.error();
  }
  const std::uint64_t deadline_ns = deadline_of(timeout_ns);
  for (;;) {
    auto status = impl_->wait_for_next(timeout_ns, deadline_ns);
    if (status.ok()) {
      status = no_throw("follow a journal", [&] { return impl_->read_next(); });
    }
    if (!status) {
      return status.error();
    }
    const RecoveredCheckpoint& checkpoint = impl_->chain.checkpoint();
    if (checkpoint.sequence >= impl_->from) {
      return &checkpoint;
    }
  }
}

Status Follower::Impl::wait_for_next(std::uint64_t timeout_ns, std::uint64_t deadline_ns) {
  const Sequence sequence = sequence_at(chain.position());
  if (journal.stable.now() >= sequence) {
    return {};
  }
  if (timeout_ns != 0 && journal.callbacks.calling_here()) {
    // close() waits for the callbacks before it tells those who follow.
    report_bug({.bug = Bug::kForceInCallback, .call = "Follower::next"});
    return Error{Errc::kInvalidArgument, 0, "a callback may not wait for a sequence", 0};
  }
  StableSequence::Waiter waiter;
  waiter.sequence = sequence;
  waiter.looks_on = true;
  journal.stable.enter(waiter);
  switch (journal.stable.wait(waiter, deadline_ns)) {
    case StableSequence::Wake::kStable: return {};
    case StableSequence::Wake::kFailed: return journal.stable.status();
    default: return Error{Errc::kTimeout, 0, "follow to sequence", sequence.value()};
  }
}

// What has failed once stays with the reader that it failed: a new one reads again.
Status Follower::Impl::renew() {
  const NoReclaimScope no_reclaim;
  MutexLock lock(journal.state_mutex);
  auto fresh = ChainReader::make(journal.file, kReads);
  if (!fresh) {
    return fresh.error();
  }
  fresh->seek(chain.position());
  chain = std::move(*fresh);
  failed = false;
  return {};
}

Status Follower::Impl::read_next() {
  if (auto status = failed ? renew() : Status{}; !status) {
    return status;
  }
  const ChainPosition before = chain.position();
  const auto outcome = chain.next(journal.newest_complete().end);
  if (!journal.followers.advance(place, chain.position())) {
    chain.seek(before);
    return lagged(sequence_at(before));
  }
  if (!outcome) {
    failed = true;
    return outcome.error();
  }
  if (!outcome->proven) {
    failed = true;
    return Error{Errc::kDamaged, 0, outcome->reason, before.lsn.value()};
  }
  if (journal.space.contended()) {
    journal.nudge();  // The tail may be moved.
  }
  return {};
}

Status Follower::Impl::skip_to_start() {
  while (sequence_at(chain.position()) < from && journal.stable.now() >= from) {
    if (auto status = read_next(); !status) {
      return status;
    }
  }
  return {};
}

// The tail cannot move while the state lock is held, so what is chosen here is held from now on.
Result<std::unique_ptr<Follower::Impl>> Follower::Impl::make(Journal::Impl& journal,
                                                             const FollowConfig& config) {
  // Nothing that a shrinker of the journal might wait for may wait for this thread.
  const NoReclaimScope no_reclaim;
  MutexLock lock(journal.state_mutex);
  auto chain = ChainReader::make(journal.file, kReads);
  if (!chain) {
    return chain.error();
  }
  const auto newest = journal.newest_complete();
  ChainPosition start = chain->position();
  if (config.from > Sequence(newest.id.sequence)) {
    const Sequence current = journal.cil.sequence();
    if (config.from != FollowConfig::kNewest && config.from > current) {
      return Error{Errc::kFutureSequence, 0, "the newest sequence is", current.value()};
    }
    start.lsn = newest.end;
    start.predecessor = newest.id;
  } else if (config.from != FollowConfig::kOldest && config.from < sequence_at(start)) {
    return lagged(config.from);
  }
  chain->seek(start);
  const std::uint64_t log_bytes = journal.file.geometry().data_bytes;
  const std::uint64_t wanted =
      config.most_behind == Bytes(0) ? log_bytes / 4 : config.most_behind.value();
  std::unique_ptr<Impl> impl(new (std::nothrow) Impl(journal, std::move(*chain)));
  if (impl == nullptr) {
    return Error{Errc::kNoMemory, 0, "follow a journal", 0};
  }
  impl->from = config.from == FollowConfig::kNewest ? Sequence{} : config.from;
  impl->place.position = start;
  impl->place.most_behind_bytes = std::min(wanted, log_bytes / 2);
  journal.followers.add(impl->place);
  return impl;
}

Result<std::unique_ptr<Follower>> Journal::follow(const FollowConfig& config) {
  if (auto status = impl_->usable(); !status) {
    return status.error();
  }
  auto made = no_throw("follow a journal", [&] { return Follower::Impl::make(*impl_, config); });
  if (!made) {
    return made.error();
  }
  Follower::Impl& impl = **made;
  std::unique_ptr<Follower> follower(new (std::nothrow) Follower(std::move(*made)));
  if (follower == nullptr) {
    impl_->followers.remove(impl.place);
    return Error{Errc::kNoMemory, 0, "follow a journal", 0};
  }
  if (auto status = impl.skip_to_start(); !status) {
    return status.error();
  }
  return follower;
}

}  // namespace keel

#include "log_space.h"

#include <algorithm>
#include <utility>

#include "keel/base/check.h"
#include "keel/base/os.h"

namespace keel {

LogSpace::LogSpace(Limits limits, Lsn tail, Lsn head, Helpers helpers)
    : limits_(limits),
      helpers_(std::move(helpers)),
      tail_(tail),
      head_(head),
      needs_(limits.log_bytes) {}

Status LogSpace::check(const Reservation& wanted) const {
  if (wanted.log_bytes > limits_.max_checkpoint_bytes) {
    return Error{Errc::kTooLarge, 0, "a transaction's worst case exceeds max_checkpoint, bytes",
                 limits_.max_checkpoint_bytes};
  }
  if (wanted.memory_bytes > limits_.memory_bytes / 4) {
    return Error{Errc::kTooLarge, 0, "a transaction's snapshots exceed a quarter of cil_memory",
                 limits_.memory_bytes / 4};
  }
  return {};
}

// What is gathered may become a checkpoint of items without a home too, and then needs as much;
// with what the newest one needs if that has had to join another, as this one may.
std::uint64_t LogSpace::set_aside(std::uint64_t gathering) const {
  const std::uint64_t most = needs_.most();
  const std::uint64_t next =
      most == 0 ? 0 : needs_.joined() + std::min(gathering, limits_.log_bytes / 4);
  return std::max({limits_.set_aside_bytes, most, next});
}

bool LogSpace::fits(const Reservation& wanted, bool again) const {
  const std::uint64_t gathering = granted_.log_bytes + wanted.log_bytes;
  const std::uint64_t kept = again ? 0 : set_aside(gathering);
  return gathering <= limits_.max_checkpoint_bytes &&
         (head_ - tail_).value() + gathering + held_.log_bytes + kept <= limits_.log_bytes &&
         granted_.memory_bytes + wanted.memory_bytes <= limits_.memory_bytes;
}

// True if nothing that is under way can make room: nobody who is only to go first, nothing granted
// that could come back, no checkpoint in flight, no pass under way, nor one asked for and still to
// come: so the last one came after whoever asks here had asked for it. And it left no hope.
bool LogSpace::hopeless() const {
  return unholding_ == 0 && granted_.log_bytes == 0 && in_flight_ == 0 &&
         passes_ended_ == passes_begun_ && !pass_asked_ && !hope_;
}

bool LogSpace::try_reserve(const Reservation& wanted) {
  MutexLock lock(mutex_);
  if (first_waiter_ != nullptr || unholding_ != 0 || failed_ || !fits(wanted, false)) {
    return false;
  }
  granted_ += wanted;
  return true;
}

bool LogSpace::try_reserve_again(const Reservation& wanted) {
  MutexLock lock(mutex_);
  if (failed_ || !fits(wanted, true)) {
    return false;
  }
  granted_ += wanted;
  return true;
}

LogSpace::AgainGrant LogSpace::grant_again(std::uint64_t unit) {
  MutexLock lock(mutex_);
  const bool others = granted_.log_bytes != 0;
  // What others have may join, and is then needed with it when that checkpoint is the oldest: so
  // it counts twice.
  const std::uint64_t taken = (head_ - tail_).value() + 2 * granted_.log_bytes + held_.log_bytes;
  const std::uint64_t free = limits_.log_bytes - std::min(limits_.log_bytes, taken);
  // More than fits a checkpoint is logged in parts.
  const std::uint64_t kept = set_aside(granted_.log_bytes);
  const std::uint64_t most = std::min(kept, limits_.max_checkpoint_bytes);
  const std::uint64_t bytes =
      std::min({most, free, limits_.max_checkpoint_bytes - granted_.log_bytes});
  // Each part takes a unit of its own. Others commit what they have, or end: it is better to wait.
  const bool in_parts = bytes < most && others && free < kept + unit;
  if (failed_ || bytes <= unit || in_parts) {
    return {0, free, !others};
  }
  granted_.log_bytes += bytes;
  return {bytes, free, !others};
}

Status LogSpace::reserve(const Reservation& wanted) {
  if (auto status = check(wanted); !status) {
    return status;
  }
  if (try_reserve(wanted)) {
    return {};
  }
  Waiter self;
  self.wanted = wanted;
  self.since_ns = os().monotonic_ns();
  MutexLock lock(mutex_);
  enqueue(self);
  const Status status = wait_for_room(self);
  if (!self.granted) {
    dequeue(self);
    serve_waiters();
  }
  return status;
}

Status LogSpace::wait_for_room(Waiter& self) {
  std::uint64_t passes_seen = passes_begun_;
  bool drained = false;
  bool asked = false;
  Sequence asked_for{};  // the context that was open then
  for (;;) {
    if (self.granted) {
      return {};
    }
    if (failed_) {
      return error_;
    }
    if (first_waiter_ == &self) {
      if (can_be_served(self)) {
        serve_waiters();  // Itself first.
        return {};
      }
      // A pass serves the first waiter: what it left for others before this one was says nothing.
      if (asked && hopeless()) {
        return Error{Errc::kLogFull, 0,
                     lacks_log(self.wanted) ? "items that are not home hold the tail at LSN"
                                            : "what is in the log holds the memory; its tail, LSN",
                     tail_.value()};
      }
      // Asked for already, but since that pass a commit has put something into a context that was
      // not: ask again. Not for an empty context: then the waiter waits for the open transactions.
      // Nor twice for one: it is pushed when a write in flight lets it, and each pass wakes the
      // waiter, so that the two would keep each other busy for as long as the disk takes.
      const Sequence open = helpers_.open_context();
      const bool ask =
          !asked || (passes_ended_ > passes_seen && open != Sequence{} && open != asked_for);
      if (!drained || ask) {
        const std::uint64_t begun = passes_begun_;
        mutex_.unlock();
        if (!drained) {
          helpers_.drain();
        }
        if (ask) {
          pass_asked();
          helpers_.ask();
        }
        mutex_.lock();
        if (ask) {
          passes_seen = begun;
          asked_for = open;
        }
        drained = asked = true;
        continue;  // Who was to serve or wake this thread may have come meanwhile.
      }
    }
    self.condition.wait(mutex_);
  }
}

void LogSpace::give_back(const Reservation& unused) {
  MutexLock lock(mutex_);
  KEEL_CHECK(granted_.covers(unused), "more given back than granted", granted_.log_bytes,
             unused.log_bytes, granted_.memory_bytes, unused.memory_bytes);
  granted_ -= unused;
  granted_less();
}

void LogSpace::hold(const Reservation& room) {
  MutexLock lock(mutex_);
  KEEL_CHECK(granted_.log_bytes >= room.log_bytes, "more held than granted", room.log_bytes);
  granted_.log_bytes -= room.log_bytes;
  held_ += room;
  granted_less();
}

Status LogSpace::unhold(const Reservation& room) {
  MutexLock lock(mutex_);
  KEEL_CHECK(held_.covers(room), "more taken than held", held_.log_bytes, room.log_bytes);
  Status status;
  const bool waits = !fits_checkpoint(room.log_bytes);
  if (waits) {
    ++unholding_;
    update_contended();
    status = wait_for_checkpoint(room.log_bytes);
    --unholding_;
    update_contended();
  }
  if (status.ok()) {
    held_ -= room;
    granted_.log_bytes += room.log_bytes;
  }
  if (waits) {
    serve_waiters();
  }
  return status;
}

bool LogSpace::fits_checkpoint(std::uint64_t log_bytes) const {
  return granted_.log_bytes + log_bytes <= limits_.max_checkpoint_bytes;
}

// After each change it asks anew: a transaction that was open may have joined the next context.
// (While somebody waits here, each tells of its end: see contended().)
Status LogSpace::wait_for_checkpoint(std::uint64_t log_bytes) {
  while (!fits_checkpoint(log_bytes)) {
    if (failed_) {
      return error_;
    }
    const std::uint64_t seen = granted_changes_;
    mutex_.unlock();
    helpers_.drain();
    helpers_.ask();
    mutex_.lock();
    while (granted_changes_ == seen && !failed_) {
      granted_changed_.wait(mutex_);
    }
  }
  return {};
}

void LogSpace::granted_less() {
  if (unholding_ != 0) {
    ++granted_changes_;
    granted_changed_.notify_all();
  }
  serve_waiters();
}

void LogSpace::update_contended() {
  contended_.store(first_waiter_ != nullptr || unholding_ != 0 || failed_,
                   std::memory_order_seq_cst);
}

void LogSpace::drop_held(const Reservation& room) {
  MutexLock lock(mutex_);
  KEEL_CHECK(held_.covers(room), "more dropped than held", held_.log_bytes, room.log_bytes);
  held_ -= room;
  granted_.memory_bytes -= room.memory_bytes;
  serve_waiters();
}

void LogSpace::adopt_held(const Reservation& room) {
  MutexLock lock(mutex_);
  held_ += room;
  granted_.memory_bytes += room.memory_bytes;
}

Lsn LogSpace::close_context(std::uint64_t granted_bytes, std::uint64_t bytes) {
  MutexLock lock(mutex_);
  KEEL_CHECK(bytes <= granted_bytes && granted_bytes <= granted_.log_bytes,
             "a checkpoint takes more than was granted", bytes, granted_bytes, granted_.log_bytes);
  const Lsn start = head_;
  granted_.log_bytes -= granted_bytes;
  head_ += Bytes(bytes);
  ++in_flight_;
  granted_less();
  return start;
}

void LogSpace::needs_again(Lsn start, std::uint64_t bytes, bool joined) {
  MutexLock lock(mutex_);
  needs_.add(start, bytes, joined);
}

void LogSpace::drop_context(std::uint64_t granted_bytes) {
  MutexLock lock(mutex_);
  KEEL_CHECK(granted_bytes <= granted_.log_bytes, "more dropped than granted", granted_bytes);
  granted_.log_bytes -= granted_bytes;
  granted_less();
}

void LogSpace::checkpoint_done() {
  MutexLock lock(mutex_);
  KEEL_CHECK(in_flight_ > 0, "no checkpoint is in flight");
  --in_flight_;
  serve_waiters();
  // What it held can be trimmed or moves the tail: whoever waits waits for the pass that follows.
  pass_asked_ = pass_asked_ || first_waiter_ != nullptr;
}

void LogSpace::free_memory(std::uint64_t bytes) {
  MutexLock lock(mutex_);
  KEEL_CHECK(bytes <= granted_.memory_bytes, "more freed than in use", bytes,
             granted_.memory_bytes);
  granted_.memory_bytes -= bytes;
  serve_waiters();
}

void LogSpace::tail_moved(Lsn tail) {
  MutexLock lock(mutex_);
  KEEL_CHECK(tail >= tail_ && tail <= head_, "the tail moves forward, up to the head", tail.value(),
             tail_.value(), head_.value());
  tail_ = tail;
  needs_.tail_moved(tail);
  serve_waiters();
}

void LogSpace::pass_asked() {
  MutexLock lock(mutex_);
  pass_asked_ = true;
}

void LogSpace::pass_begins() {
  MutexLock lock(mutex_);
  pass_asked_ = false;
  ++passes_begun_;
}

void LogSpace::pass_ended(bool hope) {
  MutexLock lock(mutex_);
  passes_ended_ = passes_begun_;
  hope_ = hope;
  serve_waiters();
}

// What is gathered when that is granted. More than a checkpoint never is: then it is the push that
// has to come first.
std::uint64_t LogSpace::gathering_with(const Reservation& wanted) const {
  return std::min(granted_.log_bytes + wanted.log_bytes, limits_.max_checkpoint_bytes);
}

bool LogSpace::lacks_log(const Reservation& wanted) const {
  const std::uint64_t gathering = gathering_with(wanted);
  return (head_ - tail_).value() + gathering + held_.log_bytes + set_aside(gathering) >
         limits_.log_bytes;
}

bool LogSpace::tail_wanted() const {
  MutexLock lock(mutex_);
  return first_waiter_ != nullptr && lacks_log(first_waiter_->wanted);
}

std::uint64_t LogSpace::most_behind() const {
  MutexLock lock(mutex_);
  if (first_waiter_ == nullptr) {
    return limits_.log_bytes;
  }
  const std::uint64_t gathering = gathering_with(first_waiter_->wanted);
  const std::uint64_t rest = gathering + held_.log_bytes + set_aside(gathering);
  return limits_.log_bytes - std::min(limits_.log_bytes, rest);
}

bool LogSpace::memory_wanted() const {
  MutexLock lock(mutex_);
  return first_waiter_ != nullptr &&
         granted_.memory_bytes + first_waiter_->wanted.memory_bytes > limits_.memory_bytes;
}

void LogSpace::fail(const Error& error) {
  MutexLock lock(mutex_);
  error_ = failed_ ? error_ : error;
  failed_ = true;
  update_contended();
  granted_changed_.notify_all();
  serve_waiters();
}

LogSpace::Sums LogSpace::sums() const {
  MutexLock lock(mutex_);
  KEEL_CHECK(tail_ <= head_, "tail beyond the head", tail_.value(), head_.value());
  KEEL_CHECK(granted_.log_bytes <= limits_.max_checkpoint_bytes,
             "more is granted than fits a checkpoint", granted_.log_bytes);
  KEEL_CHECK(granted_.memory_bytes <= limits_.memory_bytes, "cil_memory is exceeded",
             granted_.memory_bytes, limits_.memory_bytes);
  // A recovered log may be fuller than that, until its first checkpoint is asked for.
  KEEL_CHECK(
      granted_.log_bytes == 0 ||
          (head_ - tail_).value() + granted_.log_bytes + held_.log_bytes <= limits_.log_bytes,
      "more is granted than the log holds", granted_.log_bytes, held_.log_bytes);
  return {granted_, held_,         set_aside(granted_.log_bytes), head_ - tail_, tail_, in_flight_,
          grants_,  passes_begun_, passes_begun_ != passes_ended_};
}

LogSpace::Longest LogSpace::longest() const {
  MutexLock lock(mutex_);
  return first_waiter_ == nullptr ? Longest{}
                                  : Longest{first_waiter_->since_ns, first_waiter_->wanted};
}

bool LogSpace::can_be_served(const Waiter& first) const {
  return unholding_ == 0 && !failed_ && fits(first.wanted, false);
}

// By who makes room, and not by each waiter when it comes to run: until then all others would queue
// behind it, and with threads that come back soon the queue would never end. Who is first and does
// not fit looks what else it can do.
void LogSpace::serve_waiters() {
  while (first_waiter_ != nullptr && can_be_served(*first_waiter_)) {
    Waiter& served = *first_waiter_;
    granted_ += served.wanted;
    ++grants_;
    served.granted = true;
    dequeue(served);
    served.condition.notify_one();
  }
  if (first_waiter_ != nullptr) {
    first_waiter_->condition.notify_one();
  }
}

void LogSpace::enqueue(Waiter& waiter) {
  (last_waiter_ != nullptr ? last_waiter_->next : first_waiter_) = &waiter;
  last_waiter_ = &waiter;
  update_contended();
}

void LogSpace::dequeue(Waiter& waiter) {
  Waiter* before = nullptr;
  for (Waiter* at = first_waiter_; at != &waiter; at = at->next) {
    before = at;
  }
  (before != nullptr ? before->next : first_waiter_) = waiter.next;
  last_waiter_ = last_waiter_ == &waiter ? before : last_waiter_;
  update_contended();
}

}  // namespace keel

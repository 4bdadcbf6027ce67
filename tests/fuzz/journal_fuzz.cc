// The journal's API as a program of calls: objects whole and in part, ranges of memory, intents and
// their dones; forces, write-backs, faults, power cuts, reopenings. After each of those what is
// recovered is what some prefix of the commits had made, no shorter than what was forced, and the
// open intents are those of that prefix.
#include <algorithm>
#include <array>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fuzz_log.h"
#include "journal_state.h"
#include "keel/alloc/pool.h"
#include "keel/cil/intent_item.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "keel/cil/range_item.h"
#include "keel/cil/recovery.h"

using namespace keel;
using namespace keel_fuzz;

namespace {

constexpr std::size_t kMostBytes = 12000;
// Open ones: each holds three blocks of a log of 256.
constexpr std::size_t kMostIntents = 12;

Pool& pool() {
  static Pool* const made = [] {
    (void)fuzz_disk();
    auto created = Pool::create({.capacity_bytes = std::size_t{64} << 20,
                                 .window_bytes = std::size_t{256} << 20,
                                 .huge_pages = false,
                                 .background = false,
                                 .system_malloc = true});
    FUZZ_CHECK(created.ok());
    return created->release();
  }();
  return *made;
}

const SimContent& fresh_log() {
  static const SimContent* const image = [] {
    SimDisk& disk = fuzz_disk();
    FUZZ_CHECK(create_log("/sim/fresh", {.size = kMinLogBytes}).ok());
    return new SimContent(disk.image("/sim/fresh"));
  }();
  return *image;
}

struct Object {
  std::unique_ptr<ObjectItem> item;
  std::optional<std::string> bytes;  // as they are now
  bool changed = false;
  std::uint64_t last = 0;  // sequence of its last commit in this life; 0: none
};

struct Range {
  std::unique_ptr<RangeItem> item;
  std::string bytes;  // never moved: the item points at them
  bool changed = false;
  std::uint64_t last = 0;
};

// An intent, from its making or its recovery to the end of the life, and its done.
struct Work {
  std::uint64_t id = 0;
  std::string payload;
  std::unique_ptr<IntentItem> own;  // nullptr: recovered, the journal's
  IntentItem* intent = nullptr;
  std::unique_ptr<DoneItem> done;
  std::uint64_t sequence = 0;  // that it was first committed to; 0: not yet
  bool logged = false;         // committed, or recovered
  bool over = false;           // its done is committed
  bool to_log = false;         // the next commit has it
  bool to_finish = false;      // the next commit has its done

  [[nodiscard]] bool is_open() const { return logged && !over; }
};

class World {
 public:
  explicit World(std::uint8_t mode) : mode_(mode) {
    for (std::size_t i = 0; i < kRangeBytes.size(); ++i) {
      home_.ranges[i].assign(kRangeBytes[i], '\0');
    }
    start_ = home_;
    install(fresh_log());
    open();
  }
  ~World() { (void)close(); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void run(FuzzInput& input) {
    constexpr int kMostSteps = 120;
    for (int i = 0; i < kMostSteps && !input.empty(); ++i) {
      step(input);
    }
    power_cut(mode_);
  }

 private:
  void open() {
    JournalConfig config;
    config.pool = &pool();
    config.stall_after_ns = UINT64_MAX;
    config.cover_after_ns = UINT64_MAX / 2;
    config.io_mode = mode_ % 2 == 0 ? IoMode::kSync : IoMode::kUring;
    config.depth = 1 + mode_ / 2 % 2;
    config.push_threshold = mode_ % 8 >= 4 ? Bytes(32768) : Bytes(0);
    JournalReplay replay(home_, taken_back_);
    const RecoveryHandler apply = [&replay](const RecoveredCheckpoint& checkpoint) -> Status {
      replay.apply(checkpoint);
      return {};
    };
    fuzz_disk().clear_faults();
    auto opened = Journal::open(kImagePath, config, apply);
    FUZZ_CHECK(opened.ok());
    journal_ = std::move(*opened);
    judge(replay.state(), journal_->recovery());
    adopt_intents(replay);
    journal_->release_recovered();
    begin_life(replay.state());
  }

  void begin_life(const JournalState& found) {
    home_ = start_ = found;
    history_.clear();
    forced_ = journal_->recovery().last_sequence;
    for (std::size_t i = 0; i < kObjects; ++i) {
      objects_[i] = {std::make_unique<ObjectItem>(i + 1), found.objects[i]};
      attach(objects_[i]);
    }
    for (std::size_t i = 0; i < kRangeBytes.size(); ++i) {
      ranges_[i].bytes = found.ranges[i];
      ranges_[i].changed = false;
      ranges_[i].last = 0;
      auto made = RangeItem::create(i + 1, ranges_[i].bytes.data(), ranges_[i].bytes.size());
      FUZZ_CHECK(made.ok());
      ranges_[i].item = std::move(*made);
    }
  }

  // The journal has found what the log shows.
  void adopt_intents(const JournalReplay& replay) {
    const auto found = journal_->recovered_intents();
    const auto& shown = replay.intents_in_order();
    FUZZ_CHECK(found.size() == shown.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto bytes = found[i]->payload();
      const std::string payload(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      FUZZ_CHECK(found[i]->id() == shown[i]);
      FUZZ_CHECK(payload == replay.state().intents.at(shown[i]));
      auto work = std::make_unique<Work>();
      work->id = found[i]->id();
      work->payload = payload;
      work->intent = found[i];
      work->logged = true;
      works_.push_back(std::move(work));
    }
  }

  // What was recovered is the state after the last commit of some sequence from what was forced on.
  void judge(const JournalState& found, const RecoveryReport& report) const {
    FUZZ_CHECK(report.end != LogEnd::kDamaged);
    FUZZ_CHECK(report.last_sequence >= forced_);
    const JournalState* expected = &start_;
    for (const auto& [sequence, state] : history_) {
      if (Sequence(sequence) <= report.last_sequence) {
        expected = &state;
      }
    }
    FUZZ_CHECK(found == *expected);
  }

  static void attach(Object& object) {
    if (object.bytes) {
      object.item->attach(std::as_bytes(std::span(*object.bytes)));
    }
  }

  void change_object(FuzzInput& input) {
    Object& object = objects_[input.u8() % kObjects];
    const std::uint8_t how = input.u8();
    const auto fill = static_cast<char>(input.u8());
    if (how % 4 == 0) {
      object.bytes = std::string(input.u16() % kMostBytes, fill);
      object.item->set(object.bytes->data(), object.bytes->size());
    } else if (how % 16 == 1) {
      object.bytes.reset();
      object.item->erase();
    } else if (how % 16 == 2 && object.bytes) {
      std::string now = *object.bytes;
      now.resize(input.u16() % kMostBytes, fill);
      object.bytes = std::move(now);
      attach(object);
    } else if (object.bytes && !object.bytes->empty()) {
      const std::size_t at = input.u16() % object.bytes->size();
      const std::size_t bytes = std::min<std::size_t>(object.bytes->size() - at, input.u8());
      std::fill_n(object.bytes->begin() + static_cast<std::ptrdiff_t>(at), bytes, fill);
      attach(object);
      object.item->mark(at, bytes);
    } else {
      return;
    }
    object.changed = true;
  }

  void change_range(FuzzInput& input) {
    const std::uint8_t which = input.u8();
    Range& range = ranges_[which % kRangeBytes.size()];
    const auto fill = static_cast<char>(input.u8());
    const std::size_t at = input.u16() % range.bytes.size();
    const std::size_t wanted = input.u8() * std::size_t{which >= 192 ? 64U : 1U};
    const std::size_t bytes = std::min(range.bytes.size() - at, wanted);
    std::fill_n(range.bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes, fill);
    range.item->mark(at, bytes);
    range.changed = true;  // a commit of it without a mark logs nothing
  }

  void make_intent(FuzzInput& input) {
    std::size_t open = 0;
    for (const auto& work : works_) {
      open += !work->over ? 1U : 0U;
    }
    if (open >= kMostIntents) {
      return;
    }
    auto work = std::make_unique<Work>();
    work->id = ++last_intent_;
    const std::uint8_t bytes = input.u8();
    work->payload.assign(bytes >= 192 ? bytes * std::size_t{40} : bytes % 64,
                         static_cast<char>(input.u8()));
    work->own = std::make_unique<IntentItem>(work->id, std::as_bytes(std::span(work->payload)));
    work->intent = work->own.get();
    work->to_log = true;
    works_.push_back(std::move(work));
  }

  // One that is open; or, for a commit of both, one that is about to be. nullptr: there is none.
  Work* pick(FuzzInput& input, bool also_new) {
    std::vector<Work*> found;
    for (const auto& work : works_) {
      if (work->is_open() || (also_new && work->to_log && !work->over)) {
        found.push_back(work.get());
      }
    }
    const std::uint8_t which = input.u8();
    return found.empty() ? nullptr : found[which % found.size()];
  }

  void finish_with_next(FuzzInput& input) {
    if (Work* work = pick(input, true); work != nullptr && !work->to_finish) {
      work->to_finish = true;
      work->done = std::make_unique<DoneItem>(*work->intent);
    }
  }

  // Out of what the intent holds, however full the log is.
  void finish_alone(FuzzInput& input, bool cancel) {
    Work* const work = pick(input, false);
    if (work == nullptr || work->to_finish || work->to_log) {
      return;
    }
    work->done = std::make_unique<DoneItem>(*work->intent);
    std::uint64_t sequence = 0;
    {
      auto transaction = journal_->begin_done(*work->intent);
      if (!transaction) {
        FUZZ_CHECK(faulty_);
        return failed(transaction.error());
      }
      FUZZ_CHECK(transaction->log(*work->done).ok());
      if (cancel) {
        return;  // it is open as before
      }
      const auto committed = transaction->commit();
      if (!committed) {
        return failed(committed.error());
      }
      sequence = committed->value();
    }
    finished(*work, sequence);
    remember(sequence);
  }

  void finished(Work& work, std::uint64_t sequence) {
    work.over = true;
    work.to_finish = false;
    if (work.sequence == sequence) {
      taken_back_.insert(work.id);
    }
  }

  struct Change {
    LogItem* item;
    std::size_t bytes;
    bool new_intent = false;
  };
  using Changes = std::span<const Change>;

  // All that has changed, in the order in which it may be logged.
  std::vector<Change> changes() {
    std::vector<Change> found;
    for (Object& object : objects_) {
      if (object.changed) {
        found.push_back({object.item.get(), ObjectItem::log_bytes(kMostBytes)});
      }
    }
    for (Range& range : ranges_) {
      if (range.changed) {
        found.push_back({range.item.get(), RangeItem::log_bytes(range.bytes.size())});
      }
    }
    for (const auto& work : works_) {
      if (work->to_log) {
        found.push_back({work->intent, IntentItem::log_bytes(work->payload.size()), !work->logged});
      }
      if (work->to_finish) {
        found.push_back({work->done.get(), DoneItem::log_bytes()});
      }
    }
    return found;
  }

  void commit(bool force) {
    const std::vector<Change> wanted = changes();
    if (!wanted.empty() && commit_changes(wanted) && force) {
      const Sequence sequence(history_.back().first);
      acknowledge(journal_->force(sequence), sequence);
    }
  }

  // In one transaction; or, if that would be too large, one half after the other. False: not all.
  bool commit_changes(Changes wanted) {
    std::uint64_t sequence = 0;
    {
      auto transaction = begin(wanted);
      if (!transaction && transaction.error().code == Errc::kTooLarge && wanted.size() > 1) {
        const std::size_t half = wanted.size() / 2;
        return commit_changes(wanted.first(half)) && commit_changes(wanted.subspan(half));
      }
      if (!transaction) {
        failed(transaction.error());
        return false;
      }
      for (const Change& change : wanted) {
        FUZZ_CHECK(transaction->log(*change.item).ok());
      }
      const auto committed = transaction->commit();
      if (!committed) {
        failed(committed.error());
        return false;
      }
      sequence = committed->value();
    }
    settle(wanted, sequence);
    remember(sequence);
    return true;
  }

  Result<Transaction> begin(Changes wanted) {
    std::size_t bytes = 0;
    std::uint32_t intents = 0;
    for (const Change& change : wanted) {
      bytes += change.bytes;
      intents += change.new_intent ? 1U : 0U;
    }
    return journal_->begin(bytes, static_cast<std::uint32_t>(wanted.size()), intents);
  }

  // What was committed with that sequence.
  void settle(Changes committed, std::uint64_t sequence) {
    const auto has = [committed](const LogItem* item) {
      return std::any_of(committed.begin(), committed.end(),
                         [item](const Change& change) { return change.item == item; });
    };
    const auto settle_one = [&](auto& one) {
      if (one.changed && has(one.item.get())) {
        one.last = sequence;
        one.changed = false;
      }
    };
    std::for_each(objects_.begin(), objects_.end(), settle_one);
    std::for_each(ranges_.begin(), ranges_.end(), settle_one);
    for (const auto& work : works_) {
      if (work->to_log && has(work->intent)) {
        work->sequence = work->logged ? work->sequence : sequence;
        work->logged = true;
        work->to_log = false;
      }
      if (work->to_finish && has(work->done.get())) {
        finished(*work, sequence);
      }
    }
  }

  // What the commits so far have made.
  void remember(std::uint64_t sequence) {
    JournalState state;
    for (std::size_t i = 0; i < kObjects; ++i) {
      state.objects[i] = history_.empty() ? start_.objects[i] : history_.back().second.objects[i];
      if (!objects_[i].changed) {
        state.objects[i] = objects_[i].bytes;
      }
    }
    for (std::size_t i = 0; i < kRangeBytes.size(); ++i) {
      state.ranges[i] = history_.empty() ? start_.ranges[i] : history_.back().second.ranges[i];
      if (!ranges_[i].changed) {
        state.ranges[i] = ranges_[i].bytes;
      }
    }
    for (const auto& work : works_) {
      if (work->is_open()) {
        state.intents.emplace(work->id, work->payload);
      }
    }
    FUZZ_CHECK(history_.empty() || history_.back().first <= sequence);
    history_.emplace_back(sequence, std::move(state));
    if (!failed_ && !faulty_) {
      FUZZ_CHECK((journal_->stats().log_held == Bytes(0)) ==
                 history_.back().second.intents.empty());
    }
  }

  void acknowledge(const Status& status, Sequence sequence) {
    if (status.ok()) {
      FUZZ_CHECK(!failed_);
      FUZZ_CHECK(journal_->stable_sequence() >= sequence);
      forced_ = std::max(forced_, sequence);
    } else {
      failed(status.error());
    }
  }

  // What is stable is written home, and the log may forget it.
  void go_home(FuzzInput& input) {
    const std::uint8_t which = input.u8() % (kObjects + kRangeBytes.size());
    const bool is_object = which < kObjects;
    const std::uint64_t last = is_object ? objects_[which].last : ranges_[which - kObjects].last;
    const bool changed = is_object ? objects_[which].changed : ranges_[which - kObjects].changed;
    if (failed_ || changed || last == 0 || journal_->stable_sequence() < Sequence(last)) {
      return;
    }
    forced_ = std::max(forced_, Sequence(last));
    const auto let_go = [this](auto& item) {
      (void)journal_->release(item);
      item.clean();
    };
    if (is_object) {
      home_.objects[which] = objects_[which].bytes;
      let_go(*objects_[which].item);
    } else {
      home_.ranges[which - kObjects] = ranges_[which - kObjects].bytes;
      let_go(*ranges_[which - kObjects].item);
    }
  }

  // Only what the disk was told to do.
  void failed(const Error& error) {
    if (error.code == Errc::kLogFull || error.code == Errc::kNoMemory) {
      return;
    }
    FUZZ_CHECK(faulty_);
    FUZZ_CHECK(error.code == Errc::kIo || error.code == Errc::kNoSpace ||
               error.code == Errc::kShutdown);
    failed_ = true;
  }

  // Everything committed must then be there, if it is said to be.
  void reopen() {
    const Status closed = close();
    if (closed.ok() && !history_.empty()) {
      FUZZ_CHECK(!failed_);
      forced_ = std::max(forced_, Sequence(history_.back().first));
    }
    start_again();
  }
  Status close() {
    if (!faulty_) {
      journal_->audit();
    }
    Status status = journal_->close();
    for (Object& object : objects_) {
      object.item.reset();
    }
    for (Range& range : ranges_) {
      range.item.reset();
    }
    works_.clear();
    journal_.reset();
    return status;
  }
  void power_cut(std::uint64_t seed) {
    const SimSnapshot before = fuzz_disk().snapshot();
    (void)close();
    fuzz_disk().boot(before, seed);
    start_again();
  }
  void start_again() {
    faulty_ = failed_ = false;
    fuzz_disk().clear_faults();
    fuzz_disk().clear_io_log();
    open();
  }

  void step(FuzzInput& input) {
    switch (input.u8() % 24) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5: return change_object(input);
      case 6:
      case 7:
      case 8: return commit(false);
      case 9:
      case 10: return commit(true);
      case 11: {
        const Status status = journal_->force_all();
        const bool any = !history_.empty();
        return acknowledge(status, any ? Sequence(history_.back().first) : Sequence(0));
      }
      case 12: return input.u8() % 4 == 0 ? reopen() : commit(true);
      case 13: return input.u8() % 4 == 0 ? power_cut(input.u8()) : commit(true);
      case 14: return cancel(input);
      case 15: return input.u8() % 4 == 0 ? add_fault(input) : commit(false);
      case 16:
      case 17:
      case 18: return change_range(input);
      case 19: return make_intent(input);
      case 20: return finish_with_next(input);
      case 21: return finish_alone(input, input.u8() % 8 == 0);
      case 22: {
        // An intent may be committed again, as long as it is open.
        Work* const work = pick(input, false);
        if (work != nullptr && !work->to_finish) {
          work->to_log = true;
        }
        return;
      }
      default: return go_home(input);
    }
  }

  // Nothing of it is ever seen.
  void cancel(FuzzInput& input) {
    const std::uint8_t which = input.u8();
    auto transaction = journal_->begin(1000, 3, 1);
    if (!transaction) {
      return failed(transaction.error());
    }
    FUZZ_CHECK(transaction->log(*objects_[which % kObjects].item).ok());
    FUZZ_CHECK(transaction->log(*ranges_[which % kRangeBytes.size()].item).ok());
    FUZZ_CHECK(transaction->log(unlogged_).ok());
  }

  void add_fault(FuzzInput& input) {
    faulty_ = true;
    SimFault fault;
    fault.op = input.u8() % 2 == 0 ? SimOp::kWrite : SimOp::kFlush;
    fault.nth = 1 + input.u8() % 8;
    fault.error = input.u8() % 2 == 0 ? EIO : ENOSPC;
    fault.for_good = input.u8() % 2 == 0;
    fault.effect = fault.op == SimOp::kFlush && input.u8() % 2 == 0 ? SimFault::Effect::kFailAndDrop
                                                                    : SimFault::Effect::kFail;
    fault.bytes = std::uint64_t{512} * input.u8();
    fuzz_disk().inject(fault);
  }

  const std::uint8_t mode_;
  std::unique_ptr<Journal> journal_;
  std::array<Object, kObjects> objects_{};
  std::array<Range, kRangeBytes.size()> ranges_{};
  std::vector<std::unique_ptr<Work>> works_;  // of this life
  IntentItem unlogged_{UINT64_MAX, {}};       // never committed
  std::uint64_t last_intent_ = 0;             // no id is used twice
  std::set<std::uint64_t> taken_back_;        // of all lives
  JournalState home_{};
  JournalState start_{};                                         // of this life
  std::vector<std::pair<std::uint64_t, JournalState>> history_;  // by sequence, after each commit
  Sequence forced_{};
  bool faulty_ = false;  // a fault is armed
  bool failed_ = false;  // a call has said so
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  (void)pool();
  (void)fresh_log();
  FuzzInput input(data, bytes);
  World world(input.u8());
  world.run(input);
  return 0;
}

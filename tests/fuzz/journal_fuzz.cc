// The journal's API as a program of calls: objects whole and in part, ranges, intents; forces,
// faults, power cuts, reopenings. After each of those what is recovered is what some prefix of the
// commits had made, no shorter than what was forced.
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fuzz_log.h"
#include "keel/alloc/pool.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "keel/cil/recovery.h"

using namespace keel;
using namespace keel_fuzz;

namespace {

constexpr std::size_t kObjects = 6;
constexpr std::size_t kMostBytes = 12000;

using State = std::array<std::optional<std::string>, kObjects>;

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
};

class World {
 public:
  explicit World(std::uint8_t mode) : mode_(mode) {
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
    State found = home_;
    const RecoveryHandler apply = [&found](const RecoveredCheckpoint& checkpoint) -> Status {
      (void)check_checkpoint(checkpoint);
      for (const RecoveredItem& item : checkpoint.items) {
        const auto object = RecoveredObject::from(item);
        FUZZ_CHECK(object && object->id >= 1 && object->id <= kObjects);
        auto& bytes = found[object->id - 1];
        if (object->erased) {
          bytes.reset();
          continue;
        }
        std::string now = object->partial ? bytes.value_or("") : "";
        now.resize(object->size_bytes);
        if (object->partial) {
          object->ranges.apply_to(std::as_writable_bytes(std::span(now)));
        } else {
          FUZZ_CHECK(object->bytes.copy_to(now.data(), now.size()) == now.size());
        }
        bytes = std::move(now);
      }
      return {};
    };
    fuzz_disk().clear_faults();
    auto opened = Journal::open(kImagePath, config, apply);
    FUZZ_CHECK(opened.ok());
    journal_ = std::move(*opened);
    judge(found, journal_->recovery());
    journal_->release_recovered();
    home_ = found;
    history_.clear();
    forced_ = Sequence(0);
    for (std::size_t i = 0; i < kObjects; ++i) {
      objects_[i] = {std::make_unique<ObjectItem>(i + 1), found[i], false};
      attach(objects_[i]);
    }
  }

  // What was recovered is the state after the last commit of some sequence from what was forced on.
  void judge(const State& found, const RecoveryReport& report) const {
    FUZZ_CHECK(report.end != LogEnd::kDamaged);
    FUZZ_CHECK(history_.empty() || report.last_sequence >= forced_ || forced_ == Sequence(0));
    const State* expected = &home_;
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

  void change(FuzzInput& input) {
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

  void commit(bool force) {
    std::size_t bytes = 0;
    std::uint32_t items = 0;
    for (const Object& object : objects_) {
      if (object.changed) {
        bytes += ObjectItem::log_bytes(kMostBytes);
        ++items;
      }
    }
    if (items == 0) {
      return;
    }
    Sequence sequence;
    {
      auto transaction = journal_->begin(bytes, items);
      if (!transaction) {
        return failed(transaction.error());
      }
      for (Object& object : objects_) {
        if (object.changed) {
          FUZZ_CHECK(transaction->log(*object.item).ok());
        }
      }
      const auto committed = transaction->commit();
      if (!committed) {
        return failed(committed.error());
      }
      sequence = *committed;
    }
    State state;
    for (std::size_t i = 0; i < kObjects; ++i) {
      objects_[i].changed = false;
      state[i] = objects_[i].bytes;
    }
    FUZZ_CHECK(history_.empty() || history_.back().first <= sequence.value());
    history_.emplace_back(sequence.value(), std::move(state));
    if (force) {
      acknowledge(journal_->force(sequence), sequence);
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
    Status status = journal_->close();
    journal_.reset();
    for (Object& object : objects_) {
      object.item.reset();
    }
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
    switch (input.u8() % 16) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5: return change(input);
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
      case 14: {
        // Cancelled: nothing of it is ever seen.
        auto transaction = journal_->begin(1000, 1);
        if (!transaction) {
          failed(transaction.error());
        } else {
          Object& object = objects_[input.u8() % kObjects];
          FUZZ_CHECK(transaction->log(*object.item).ok());
        }
        return;
      }
      default: {
        if (input.u8() % 4 != 0) {
          return commit(false);
        }
        faulty_ = true;
        SimFault fault;
        fault.op = input.u8() % 2 == 0 ? SimOp::kWrite : SimOp::kFlush;
        fault.nth = 1 + input.u8() % 8;
        fault.error = input.u8() % 2 == 0 ? EIO : ENOSPC;
        fault.for_good = input.u8() % 2 == 0;
        fault.effect = fault.op == SimOp::kFlush && input.u8() % 2 == 0
                           ? SimFault::Effect::kFailAndDrop
                           : SimFault::Effect::kFail;
        fault.bytes = std::uint64_t{512} * input.u8();
        fuzz_disk().inject(fault);
        return;
      }
    }
  }

  const std::uint8_t mode_;
  std::unique_ptr<Journal> journal_;
  std::array<Object, kObjects> objects_{};
  State home_{};
  std::vector<std::pair<std::uint64_t, State>> history_;  // by sequence, after each commit
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

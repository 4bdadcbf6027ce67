#include "bounded_life.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <thread>
#include <utility>

#include "intent_world.h"
#include "probe.h"

using namespace keel;

namespace keel_test {
namespace {

constexpr std::size_t kPartObjectBytes = 5000;
constexpr std::size_t kMemoryBytes = 1024;
constexpr std::uint64_t kBlock = 4096;

// A disk that tells of each moment that is not like the one before: after each write and flush,
// and while a durable write is under way, when any of its sectors may have come to be.
class MomentDisk : public SimDisk {
 public:
  using SimDisk::SimDisk;

  std::function<void(SimImage)> on_moment;

  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    if (fd >= kFirstDescriptor && flags != 0 && on_moment) {
      SimImage log = snapshot().file(kLogPath);
      auto data = std::make_shared<SimContent>();
      for (int i = 0; i < count; ++i) {
        const auto* from = static_cast<const std::byte*>(parts[i].iov_base);
        data->insert(data->end(), from, from + parts[i].iov_len);
      }
      log.pending.push_back({0, offset, std::move(data), false});
      on_moment(std::move(log));
    }
    return tell(SimDisk::pwritev2(fd, parts, count, offset, flags));
  }
  int fdatasync(int fd) override { return static_cast<int>(tell(SimDisk::fdatasync(fd))); }

 private:
  ssize_t tell(ssize_t result) {
    if (on_moment) {
      on_moment(snapshot().file(kLogPath));
    }
    return result;
  }
};

// What a base leaves behind.
struct Base {
  SimSnapshot disk;
  ClientState home;
  ClientState state;
  std::uint64_t sequence = 0;
};

// Before anything is logged.
ClientState first_home() {
  ClientState home;
  home.objects[2].assign(kPartObjectBytes, 'h');
  home.memory.assign(kMemoryBytes, 'h');
  return home;
}

class Client {
 public:
  explicit Client(const Base& base)
      : disk_({.seed = 7}), scope_(disk_), home_(base.home), state_(base.state) {
    disk_.boot_with(base.disk, [](const SimSector&) { return SimFate::kKeep; });
    life_.history.push_back({base.sequence, base.state});
    forced_ = base.sequence;
    disk_.on_moment = [this](SimImage log) { take_moment(std::move(log)); };
  }
  ~Client() {
    disk_.on_moment = nullptr;
    journal_.reset();
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void start() { open(); }
  void forget_moments() { life_.moments.clear(); }
  BoundedLife take() { return std::move(life_); }
  [[nodiscard]] MomentDisk& disk() { return disk_; }
  [[nodiscard]] const ClientState& state() const { return state_; }
  [[nodiscard]] std::uint64_t sequence() const { return life_.history.back().sequence; }

  void act(Operation operation) {
    ++step_;
    switch (operation) {
      case Operation::kWriteSmall: commit({0}, false); break;
      case Operation::kWriteBlocks: commit({1}, false); break;
      case Operation::kWritePart: write_part(); break;
      case Operation::kErase: erase(); break;
      case Operation::kWriteTwo: commit({0, 1}, true); break;
      case Operation::kWriteRange: commit({}, true); break;
      case Operation::kBegin: begin_intent(); break;
      case Operation::kFinish: finish_intent(); break;
      case Operation::kForce: force(); break;
      case Operation::kGoHome: go_home(); break;
      case Operation::kReopen:
        close();
        open();
        break;
      case Operation::kPowerCut: cut_power(); break;
      case Operation::kCount: break;
    }
    promise();
  }

  void close() {
    if (!journal_->close().ok()) {
      fault("close");
    }
    forced_ = sequence();
    promise();
    drop_journal();
  }

 private:
  struct Items {
    std::array<std::unique_ptr<ObjectItem>, ClientState::kObjects> objects;
    std::unique_ptr<RangeItem> range;
    std::vector<std::unique_ptr<Intent>> begun;
  };

  void fault(const std::string& what) {
    if (life_.fault.empty()) {
      life_.fault = what;
    }
  }

  void take_moment(SimImage log) {
    if (std::this_thread::get_id() != thread_) {
      fault("a thread of the journal's own did I/O");
      return;
    }
    life_.moments.push_back({std::move(log), forced_, life_.history.size(), home_});
  }

  // The disk is as it was when the last moment was taken, but by now more is promised of it.
  void promise() {
    if (life_.moments.empty() || life_.moments.back().home != home_) {
      take_moment(disk_.snapshot().file(kLogPath));
    } else {
      life_.moments.back().forced = forced_;
      life_.moments.back().histories = life_.history.size();
    }
  }

  void open() {
    items_ = std::make_unique<Items>();
    ClientState found = home_;
    bool known = true;
    auto journal = Journal::open(kLogPath, {.cover_after_ns = UINT64_MAX / 4},
                                 [&](const RecoveredCheckpoint& checkpoint) -> Status {
                                   known = known && found.apply(checkpoint);
                                   return {};
                                 });
    if (!journal) {
      FAIL(journal.error().message());
    }
    journal_ = std::move(*journal);
    // What a power cut has cut off is over.
    const std::uint64_t last = journal_->recovery().last_sequence.value();
    while (life_.history.size() > 1 && life_.history.back().sequence > last) {
      life_.history.pop_back();
    }
    if (!known || last < forced_ || found != life_.history.back().state) {
      fault("an opening did not find what should be there");
    }
    state_ = base_ = life_.history.back().state;
    home_fresh_.fill(false);
    forced_ = last;  // taking over flushes what was found
    promise();
    for (std::size_t i = 0; i < ClientState::kObjects; ++i) {
      items_->objects[i] = std::make_unique<ObjectItem>(i);
    }
    // Room that never moves: the items point into it.
    for (std::string& object : state_.objects) {
      object.reserve(3 * kBlock);
    }
    items_->objects[2]->attach(std::as_bytes(std::span(state_.objects[2])));
    auto range = RangeItem::create(9, state_.memory.data(), kMemoryBytes);
    REQUIRE(range.ok());
    items_->range = std::move(*range);
  }

  void drop_journal() {
    const auto on_moment = std::exchange(disk_.on_moment, nullptr);
    journal_.reset();
    items_.reset();
    recovered_dones_.clear();
    disk_.on_moment = on_moment;
  }

  void cut_power() {
    const SimSnapshot cut = disk_.snapshot();
    drop_journal();
    const auto on_moment = std::exchange(disk_.on_moment, nullptr);
    disk_.boot_with(cut, [](const SimSector&) { return SimFate::kDrop; });
    disk_.on_moment = on_moment;
    open();
  }

  void committed(const Result<Sequence>& sequence) {
    if (!sequence) {
      FAIL(sequence.error().message());
    }
    if (life_.history.back().sequence == sequence->value()) {
      life_.history.back().state = state_;
    } else {
      life_.history.push_back({sequence->value(), state_});
    }
  }

  Transaction begin(std::uint32_t intents = 0) {
    auto transaction = journal_->begin(40'000, 4, intents);
    if (!transaction) {
      FAIL(transaction.error().message());
    }
    return std::move(*transaction);
  }

  void commit(const std::vector<std::size_t>& objects, bool range) {
    auto transaction = begin();
    for (const std::size_t i : objects) {
      // Blocks of their own kind of bytes, so that each sector is unlike any other.
      const std::string bytes = random_bytes(step_ * 10 + i, i == 0 ? 300 : 2 * kBlock);
      state_.objects[i].assign(bytes);
      items_->objects[i]->set(state_.objects[i].data(), state_.objects[i].size());
      REQUIRE(transaction.log(*items_->objects[i]).ok());
    }
    if (range) {
      state_.memory.replace(128, 300, random_bytes(step_ * 10 + 5, 300));
      items_->range->mark(128, 300);
      REQUIRE(transaction.log(*items_->range).ok());
    }
    committed(transaction.commit());
  }

  void write_part() {
    auto transaction = begin();
    state_.objects[2].replace(700 + step_ * 100, 300, random_bytes(step_ * 10 + 6, 300));
    items_->objects[2]->mark(700 + step_ * 100, 300);
    REQUIRE(transaction.log(*items_->objects[2]).ok());
    committed(transaction.commit());
  }

  void erase() {
    auto transaction = begin();
    state_.objects[0].clear();
    items_->objects[0]->erase();
    REQUIRE(transaction.log(*items_->objects[0]).ok());
    committed(transaction.commit());
  }

  void begin_intent() {
    auto transaction = begin(1);
    const std::uint64_t id = sequence() * 100 + step_;
    items_->begun.push_back(std::make_unique<Intent>(id, ""));
    REQUIRE(transaction.log(*items_->begun.back()).ok());
    state_.intents.insert(id);
    committed(transaction.commit());
  }

  void finish_intent() {
    if (state_.intents.empty()) {
      return;
    }
    const std::uint64_t id = *state_.intents.begin();
    for (IntentItem* intent : journal_->recovered_intents()) {
      if (intent->id() == id) {
        recovered_dones_.push_back(std::make_unique<DoneItem>(*intent));
        finish(*intent, *recovered_dones_.back());
        return;
      }
    }
    for (const auto& begun : items_->begun) {
      if (begun->id() == id) {
        finish(*begun, begun->done);
        return;
      }
    }
    fault("an open intent was not found again");
  }

  void finish(IntentItem& intent, DoneItem& done) {
    auto transaction = journal_->begin_done(intent);
    if (!transaction) {
      FAIL(transaction.error().message());
    }
    REQUIRE(transaction->log(done).ok());
    state_.intents.erase(intent.id());
    committed(transaction->commit());
  }

  void force() {
    if (!journal_->force_all().ok()) {
      fault("force");
    }
    forced_ = sequence();
  }

  // What is not stable stays with the journal; of that, what was recovered is at home.
  void go_home() {
    std::vector<LogItem*> released;
    for (std::size_t i = 0; i < ClientState::kObjects; ++i) {
      ObjectItem& item = *items_->objects[i];
      if (put_home(item, i, home_.objects[i], state_.objects[i], base_.objects[i])) {
        item.clean();
        released.push_back(&item);
      }
    }
    if (put_home(*items_->range, ClientState::kObjects, home_.memory, state_.memory,
                 base_.memory)) {
      items_->range->clean();
      released.push_back(items_->range.get());
    }
    promise();
    for (LogItem* item : released) {
      if (!journal_->release(*item)) {
        fault("an item that nothing holds was not released");
      }
    }
    journal_->release_recovered();
  }

  // True if the newest version is home now.
  bool put_home(const LogItem& item, std::size_t index, std::string& home, const std::string& now,
                const std::string& recovered) {
    if (!item.pinned()) {
      home = now;
      home_fresh_[index] = true;
    } else if (!home_fresh_[index]) {
      home = recovered;
    }
    return !item.pinned();
  }

  const std::thread::id thread_ = std::this_thread::get_id();
  MomentDisk disk_;
  ScopedOs scope_;
  BoundedLife life_;
  std::vector<std::unique_ptr<DoneItem>> recovered_dones_;
  std::unique_ptr<Items> items_;
  std::unique_ptr<Journal> journal_;
  std::uint64_t forced_ = 0;
  std::uint64_t step_ = 0;
  ClientState home_;
  ClientState base_;   // when the journal was opened
  ClientState state_;  // now
  std::array<bool, ClientState::kObjects + 1> home_fresh_{};
};

Base make_fresh() {
  SimDisk disk({.seed = 7});
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  return {disk.snapshot(), first_home(), first_home(), 0};
}

Base make_wrap() {
  SimDisk disk({.seed = 8});
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  Base base{{}, first_home(), first_home(), 0};
  auto opened = Journal::open(kLogPath, {}, kIgnore);
  REQUIRE(opened.ok());
  Journal& journal = **opened;
  Trace trace;
  const std::uint64_t target = 2 * journal.info().data.value() - kBlock;
  for (std::uint64_t head = 0; head < target;) {
    Probe passing(trace, 1);
    passing.after = Tracking::kRelease;
    passing.regions = {random_bytes(head, target - head > 20 * kBlock ? 30'000 : 1000)};
    base.sequence = commit(journal, {&passing}, 40'000).value();
    REQUIRE(journal.force_all().ok());
    head = journal.stats().tail.value() + journal.stats().log_used.value();
  }
  REQUIRE(journal.close().ok());
  base.disk = disk.snapshot();
  return base;
}

Base make_leftover(const Base& fresh) {
  Client client(fresh);
  client.start();
  for (const Operation operation : {Operation::kBegin, Operation::kWriteTwo, Operation::kForce,
                                    Operation::kWritePart, Operation::kForce}) {
    client.act(operation);
  }
  Base base{{}, fresh.home, client.state(), client.sequence()};
  client.forget_moments();
  client.act(Operation::kWriteBlocks);
  client.act(Operation::kForce);
  const BoundedLife life = client.take();
  // Under way: the first block is lost, the rest is there.
  SimDisk after;
  after.boot_with(fresh.disk, [](const SimSector&) { return SimFate::kKeep; });
  const auto writing =
      std::find_if(life.moments.begin(), life.moments.end(),
                   [](const BoundedMoment& moment) { return !moment.log.pending.empty(); });
  REQUIRE(writing != life.moments.end());
  after.set_image(kLogPath, writing->log.materialize([](const SimSector& sector) {
    return sector.sector < 8 ? SimFate::kDrop : SimFate::kKeep;
  }));
  base.disk = after.snapshot();
  // Beyond the identities that the first life has drawn.
  base.disk.random_draws = client.disk().snapshot().random_draws;
  return base;
}

const Base& base_of(LogBase base) {
  static const Base fresh = make_fresh();
  static const Base wrap = make_wrap();
  static const Base leftover = make_leftover(fresh);
  return base == LogBase::kFresh ? fresh : base == LogBase::kWrap ? wrap : leftover;
}

}  // namespace

bool ClientState::apply(const RecoveredCheckpoint& checkpoint) {
  for (const RecoveredItem& item : checkpoint.items) {
    if (const auto object = RecoveredObject::from(item)) {
      if (object->id >= kObjects) {
        return false;
      }
      std::string& text = objects[object->id];
      text.resize(object->erased ? 0 : object->size_bytes);
      if (!object->erased && !object->apply_to(std::as_writable_bytes(std::span(text))).ok()) {
        return false;
      }
    } else if (const auto range = RecoveredRange::from(item)) {
      memory.resize(range->size_bytes);
      if (!range->apply_to(std::as_writable_bytes(std::span(memory))).ok()) {
        return false;
      }
    } else if (const auto intent = RecoveredIntent::from(item)) {
      intents.insert(intent->id);
    } else if (const auto done = RecoveredDone::from(item)) {
      intents.erase(done->id);
    } else if (item.type() != 17) {  // what a base let pass
      return false;
    }
  }
  return true;
}

std::uint64_t Workload::count(unsigned most) {
  std::uint64_t all = 0, of_length = 1;
  for (unsigned i = 0; i <= most; ++i) {
    all += of_length;
    of_length *= kOperations;
  }
  return all * kBases;
}

// Short ones first, so that the numbers do not depend on how long they may be.
Workload Workload::at(std::uint64_t index) {
  Workload workload;
  workload.base = static_cast<LogBase>(index % kBases);
  index /= kBases;
  std::uint64_t length = 0, of_length = 1;
  for (; index >= of_length; ++length) {
    index -= of_length;
    of_length *= kOperations;
  }
  for (; length > 0; --length) {
    of_length /= kOperations;
    workload.operations.push_back(static_cast<Operation>(index / of_length));
    index %= of_length;
  }
  return workload;
}

std::string Workload::name() const {
  static constexpr const char* kNames[] = {"write", "blocks", "part",  "erase", "two",    "range",
                                           "begin", "finish", "force", "home",  "reopen", "cut"};
  static constexpr const char* kBaseNames[] = {"fresh", "wrap", "leftover"};
  std::string text = kBaseNames[static_cast<std::size_t>(base)];
  for (const Operation operation : operations) {
    text += std::string(" ") + kNames[static_cast<std::size_t>(operation)];
  }
  return text;
}

const ClientState& BoundedLife::expected(const BoundedMoment& moment,
                                         std::uint64_t sequence) const {
  // Entries that a power cut removed lie beyond what the moment's disk holds.
  std::size_t i = std::min(moment.histories, history.size()) - 1;
  while (i > 0 && history[i].sequence > sequence) {
    --i;
  }
  return history[i].state;
}

BoundedLife live(const Workload& workload) {
  Client client(base_of(workload.base));
  client.start();
  const std::size_t count = workload.operations.size();
  for (std::size_t i = 0; i < count; ++i) {
    if (i + 1 == count) {
      client.forget_moments();
    }
    client.act(workload.operations[i]);
  }
  client.close();
  return client.take();
}

}  // namespace keel_test

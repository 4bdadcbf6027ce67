// One public call at a time, and in it the k-th of everything that can fail, for every k, once and
// for good.
//
// Which call meets which failure where:
//
//   failure                        all calls of the table below   also
//   write fails, 0/1 block landed  here                           io_failure_test (a whole life)
//   short write: 1 sector, half,
//     all but one sector           here                           io_failure_test
//   flush fails, or loses          here                           io_failure_test
//   ring: submission, wait         here                           write_queue_test, _model_test
//   read fails, is short           here                           io_failure_test (open, scan)
//   open, stat, lock, allocate,
//     resize, link                 here                           log_device_test
//   metadata                       here                           memory_failure_test
//   address space, advice,
//     locked memory                here                           allocation_failure_test
//   protection                     none of them: only a hardened pool asks for it
//   ring and its buffers           here                           log_device_io_test
//   operator new                   allocation_failure_test (the simulated disk takes some itself)
//   the pool's memory              memory_failure_test, recovery_interrupted_test
//   a thread's start               on_stable_test, read_ahead_test, chain_reader_test
//   a clock that stands still      here
//
// After each: an error is an error value of a kind that the call documents; a write, flush,
// submission or wait that fails is told by the call that met it or, of an open journal, by the next
// force, and by close() in any case; nothing else ends a journal, but a write that is short twice
// or within a block; after it every later call gets the first error; nothing that was acknowledged
// is lost, be it an object, an intent or that it is done, whether the power goes or not; what the
// journal took of the system is given back; a fresh open works.
//
// Most calls do not meet most failures: what counts is how many were met. Each kind must be met by
// some call.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "intent_world.h"
#include "item_home.h"
#include "keel/alloc/pool.h"
#include "keel/cil/intent_item.h"
#include "keel/cil/object_item.h"
#include "log/format.h"
#include "probe.h"
#include "support/campaign.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

enum class Scarce : std::uint8_t { kNone, kMetadata, kMmap, kAdvice, kLock };

// A simulated disk whose machine runs out of one thing, at the n-th request. Its rings have nothing
// at the first look: who wants a completion must wait for it.
class ScarceDisk : public SimDisk {
 public:
  using SimDisk::SimDisk;

  void refuse(Scarce what, std::uint64_t nth, bool for_good) {
    seen_ = 0;
    refused_ = 0;
    nth_ = nth;
    for_good_ = for_good;
    what_ = what;
  }
  [[nodiscard]] std::uint64_t refused() const { return refused_; }
  [[nodiscard]] std::int64_t held() const { return held_; }

  void* metadata_allocate(std::size_t bytes) override {
    void* memory = refuses(Scarce::kMetadata) ? nullptr : SimDisk::metadata_allocate(bytes);
    held_ += memory != nullptr ? 1 : 0;
    return memory;
  }
  void metadata_free(void* memory) override {
    held_ -= memory != nullptr ? 1 : 0;
    SimDisk::metadata_free(memory);
  }
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    return refuses(Scarce::kMmap)
               ? -ENOMEM
               : SimDisk::mmap(address, bytes, protection, flags, fd, offset, out);
  }
  int madvise(void* address, std::size_t bytes, int advice) override {
    return refuses(Scarce::kAdvice) ? -ENOMEM : SimDisk::madvise(address, bytes, advice);
  }
  int mlock(const void* address, std::size_t bytes) override {
    return refuses(Scarce::kLock) ? -ENOMEM : SimDisk::mlock(address, bytes);
  }
  // Not the test program's memory.
  int mlockall(int /*flags*/) override { return refuses(Scarce::kLock) ? -EPERM : 0; }
  int set_io_flusher() override { return refuses(Scarce::kLock) ? -EPERM : 0; }

  // A file system without fallocate: then the file is resized.
  void have_no_fallocate() { has_fallocate_ = false; }
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) override {
    return has_fallocate_ ? SimDisk::fallocate(fd, mode, offset, bytes) : -EOPNOTSUPP;
  }
  // A ring that could not be waited for has its completions when it is looked at.
  int ring_wait(OsRing* ring, bool block, RingDone* out) override {
    if (!block && ring_works_) {
      return 0;
    }
    const int got = SimDisk::ring_wait(ring, block, out);
    ring_works_ = ring_works_ && got >= 0;
    return got;
  }

 private:
  bool refuses(Scarce what) {
    if (what_ != what) {
      return false;
    }
    const std::uint64_t now = ++seen_;
    const bool refuse = now == nth_ || (now > nth_ && for_good_);
    refused_ += refuse ? 1 : 0;
    return refuse;
  }

  std::atomic<Scarce> what_{Scarce::kNone};
  std::atomic<std::uint64_t> nth_{0}, seen_{0}, refused_{0};
  std::atomic<bool> for_good_{false};
  std::atomic<std::int64_t> held_{0};
  std::atomic<bool> has_fallocate_{true}, ring_works_{true};
};

struct Failure {
  const char* name;
  Scarce scarce = Scarce::kNone;
  SimFault fault{};  // if not scarce
};

constexpr std::uint64_t kBig = std::uint64_t{1} << 20;

std::vector<Failure> all_failures() {
  using Effect = SimFault::Effect;
  const auto io = [](SimOp op, Effect effect, std::uint64_t bytes) {
    SimFault fault;
    fault.op = op;
    fault.effect = effect;
    fault.bytes = bytes;
    return fault;
  };
  constexpr Scarce kNone = Scarce::kNone;
  return {
      {"write", kNone, io(SimOp::kWrite, Effect::kFail, 0)},
      {"write of which a block landed", kNone, io(SimOp::kWrite, Effect::kFail, 4096)},
      {"write short by all but a sector", kNone, io(SimOp::kWrite, Effect::kShort, 512)},
      {"write short by all but a block", kNone, io(SimOp::kWrite, Effect::kShort, 4096)},
      {"write short by half", kNone, io(SimOp::kWrite, Effect::kShort, kBig / 2)},
      {"write short by a sector", kNone, io(SimOp::kWrite, Effect::kShort, kBig - 512)},
      {"write of nothing", kNone, io(SimOp::kWrite, Effect::kShort, 0)},
      {"flush", kNone, io(SimOp::kFlush, Effect::kFail, 0)},
      {"flush that loses", kNone, io(SimOp::kFlush, Effect::kFailAndDrop, 0)},
      {"submission", kNone, io(SimOp::kRingSubmit, Effect::kFail, 0)},
      {"wait for a completion", kNone, io(SimOp::kRingWait, Effect::kFail, 0)},
      {"ring", kNone, io(SimOp::kRingCreate, Effect::kFail, 0)},
      {"read", kNone, io(SimOp::kRead, Effect::kFail, 0)},
      {"read short by all but a sector", kNone, io(SimOp::kRead, Effect::kShort, 512)},
      {"read short by half", kNone, io(SimOp::kRead, Effect::kShort, 2048)},
      {"open", kNone, io(SimOp::kOpen, Effect::kFail, 0)},
      {"stat", kNone, io(SimOp::kStat, Effect::kFail, 0)},
      {"lock", kNone, io(SimOp::kLock, Effect::kFail, 0)},
      {"allocate", kNone, io(SimOp::kAllocate, Effect::kFail, 0)},
      {"resize", kNone, io(SimOp::kResize, Effect::kFail, 0)},
      {"link", kNone, io(SimOp::kLink, Effect::kFail, 0)},
      {"any I/O", kNone, io(SimOp::kAny, Effect::kFail, 0)},
      {"metadata", Scarce::kMetadata},
      {"mmap", Scarce::kMmap},
      {"madvise", Scarce::kAdvice},
      {"mlock", Scarce::kLock},
  };
}

// A journal in the midst of its life, and what of it was acknowledged.
class Scene {
 public:
  Scene(Pool& pool, const SimSnapshot& disk) : pool_(pool), disk_({.seed = 21}), scope_(disk_) {
    disk_.boot_with(disk, [](const SimSector&) { return SimFate::kKeep; });
    for (std::uint64_t id = 0; id < kObjects; ++id) {
      bytes_[id] = random_bytes(id + 1, id == kLarge ? 2 * kBig + 5000 : 500);
      items_[id] = std::make_unique<ObjectItem>(id);
      items_[id]->set(bytes_[id].data(), bytes_[id].size());
    }
  }
  ~Scene() {
    follower_.reset();
    journal_.reset();
  }
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;

  [[nodiscard]] ScarceDisk& disk() { return disk_; }
  [[nodiscard]] Journal& journal() { return *journal_; }
  [[nodiscard]] bool is_open() const { return journal_ != nullptr; }

  // What stands before the call.
  void prepare() {
    REQUIRE(open().ok());
    REQUIRE(put(0).ok());
    REQUIRE(force().ok());
    intent_ = std::make_unique<Intent>(kIntent, kPayload);
    auto transaction = journal_->begin(IntentItem::log_bytes(100), 1, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(*intent_).ok());
    REQUIRE(transaction->commit().ok());
    REQUIRE(force().ok());
    intent_is_known_ = true;
    REQUIRE(put(1).ok());
  }

  Status open() {
    auto journal = Journal::open(
        kLogPath, {.pool = &pool_, .lock_memory = true, .cover_after_ns = UINT64_MAX / 4}, kIgnore);
    if (!journal) {
      return journal.error();
    }
    journal_ = std::move(*journal);
    return {};
  }
  Status put(std::uint64_t id) {
    auto transaction = journal_->begin(ObjectItem::log_bytes(bytes_[id].size()), 1);
    if (!transaction) {
      return transaction.error();
    }
    REQUIRE(transaction->log(*items_[id]).ok());
    const auto sequence = transaction->commit();
    if (!sequence) {
      return sequence.error();
    }
    committed_.insert(id);
    return {};
  }
  Status force(std::uint64_t timeout_ns = UINT64_MAX) {
    return acknowledge_if(journal_->force(journal_->stats().current, timeout_ns));
  }
  Status force_all() { return acknowledge_if(journal_->force_all()); }
  Status finish_intent() {
    auto transaction = journal_->begin_done(*intent_);
    if (!transaction) {
      return transaction.error();
    }
    REQUIRE(transaction->log(intent_->done).ok());
    const auto sequence = transaction->commit();
    done_is_committed_ = sequence.ok();
    return sequence ? Status() : Status(sequence.error());
  }
  Status call_back() {
    std::atomic<int> called{0};
    Status found;
    const Status status = journal_->on_stable(journal_->stats().current, [&](const Status& said) {
      found = said;
      ++called;
    });
    if (!status.ok()) {
      return status;
    }
    yield_until([&] { return called != 0; });
    return acknowledge_if(found);
  }
  Status follow() {
    auto follower = journal_->follow({.from = Sequence(1)});
    if (!follower) {
      return follower.error();
    }
    follower_ = std::move(*follower);
    return {};
  }
  Status read_on() {
    if (follower_ == nullptr) {
      return follow();
    }
    const auto next = follower_->next(0);
    return next ? Status() : Status(next.error());
  }
  Status let_go() {
    (void)journal_->release(*items_[0]);
    released_.insert(0);
    return {};
  }
  Status close() { return acknowledge_if(journal_->close()); }
  Status create() {
    const auto made = create_log(kNewPath, {.size = kMinLogBytes});
    is_made_ = made.ok();
    return made.ok() ? Status() : Status(made.error());
  }
  void drop() {
    follower_.reset();
    journal_.reset();
    // Those that the journal let go of may be destroyed only now.
    intent_.reset();
    for (auto& item : items_) {
      item.reset();
    }
  }

  // After a power cut or without one: everything that was acknowledged is there, and works.
  std::string check_log() {
    ItemHome home;
    const auto journal = Journal::open(kLogPath, {.pool = &pool_}, home.handler());
    if (!journal) {
      return "a fresh open fails: " + journal.error().message();
    }
    for (const std::uint64_t id : acknowledged_) {
      if (released_.count(id) == 0 && home.objects[id] != bytes_[id]) {
        return "acknowledged, but gone: object " + std::to_string(id);
      }
    }
    for (const auto& [id, text] : home.objects) {
      if (text != bytes_[id]) {
        return "wrong bytes of object " + std::to_string(id);
      }
    }
    if (std::string fault = fault_of_intents(**journal); !fault.empty()) {
      return fault;
    }
    if (is_made_ && !scan_log(kNewPath, kIgnore).ok()) {
      return "a log that was made is none";
    }
    const Status closed = (*journal)->close();
    return closed.ok() ? "" : "a fresh journal does not close";
  }

  static constexpr std::uint64_t kObjects = 4, kLarge = 2;

 private:
  Status acknowledge_if(const Status& status) {
    if (status.ok()) {
      acknowledged_ = committed_;
      done_is_known_ = done_is_committed_;
    }
    return status;
  }
  [[nodiscard]] std::string fault_of_intents(const Journal& journal) const {
    const auto found = journal.recovered_intents();
    if (found.size() > 1 || (found.size() == 1 && !intent_is_known_)) {
      return "an intent that nobody logged";
    }
    if (found.empty() && intent_is_known_ && !done_is_committed_) {
      return "acknowledged, but gone: the intent";
    }
    if (found.size() == 1 && done_is_known_) {
      return "acknowledged, but gone: that the intent is done";
    }
    if (found.size() == 1 &&
        (found[0]->id() != kIntent || found[0]->payload().size() != kPayload.size() ||
         std::memcmp(found[0]->payload().data(), kPayload.data(), kPayload.size()) != 0)) {
      return "a wrong intent";
    }
    return {};
  }

  static constexpr const char* kNewPath = "/sim/new";
  static constexpr std::uint64_t kIntent = 7;

  Pool& pool_;
  ScarceDisk disk_;
  ScopedOs scope_;
  std::array<std::string, kObjects> bytes_;
  std::array<std::unique_ptr<ObjectItem>, kObjects> items_;
  std::unique_ptr<Intent> intent_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Follower> follower_;
  std::set<std::uint64_t> committed_, acknowledged_, released_;
  bool intent_is_known_ = false;  // acknowledged
  bool done_is_committed_ = false, done_is_known_ = false;
  bool is_made_ = false;
};

struct PublicCall {
  const char* name;
  bool opened;  // is for an open journal
  std::function<Status(Scene&)> before;
  std::function<Status(Scene&)> call;
};

template <class Value>
Status status_of(const Result<Value>& result) {
  return result.ok() ? Status() : Status(result.error());
}

std::vector<PublicCall> all_calls() {
  const auto nothing = [](Scene&) { return Status(); };
  return {
      {"create_log", false, nothing, [](Scene& scene) { return scene.create(); }},
      {"read_log_info", false, nothing, [](Scene&) { return status_of(read_log_info(kLogPath)); }},
      {"scan_log", false, nothing, [](Scene&) { return status_of(scan_log(kLogPath, kIgnore)); }},
      {"open", false, nothing, [](Scene& scene) { return scene.open(); }},
      {"begin", true, nothing,
       [](Scene& scene) { return status_of(scene.journal().begin(500, 1)); }},
      {"begin of many", true, nothing,
       [](Scene& scene) { return status_of(scene.journal().begin(50'000, 200)); }},
      {"begin, log, commit", true, nothing, [](Scene& scene) { return scene.put(3); }},
      {"force", true, nothing, [](Scene& scene) { return scene.force(); }},
      // A commit of so much asks a worker for a push, which is part of what is called.
      {"commit and force of several writes", true, nothing,
       [](Scene& scene) {
         const Status put = scene.put(Scene::kLarge);
         return put.ok() ? scene.force() : put;
       }},
      {"force by another thread", true, nothing,
       [](Scene& scene) { return scene.force(UINT64_MAX / 4); }},
      {"force_all", true, [](Scene& scene) { return scene.put(3); },
       [](Scene& scene) { return scene.force_all(); }},
      {"begin_done, commit", true, nothing, [](Scene& scene) { return scene.finish_intent(); }},
      {"force of a done", true, [](Scene& scene) { return scene.finish_intent(); },
       [](Scene& scene) { return scene.force(); }},
      {"on_stable", true, nothing, [](Scene& scene) { return scene.call_back(); }},
      {"follow", true, [](Scene& scene) { return scene.force(); },
       [](Scene& scene) { return scene.follow(); }},
      {"Follower::next", true,
       [](Scene& scene) {
         const Status forced = scene.force();
         return forced.ok() ? scene.follow() : forced;
       },
       [](Scene& scene) { return scene.read_on(); }},
      {"release", true, [](Scene& scene) { return scene.force(); },
       [](Scene& scene) { return scene.let_go(); }},
      {"release_recovered, stats, info, facts", true, nothing,
       [](Scene& scene) {
         scene.journal().release_recovered();
         (void)scene.journal().stats();
         (void)scene.journal().info();
         (void)scene.journal().facts();
         return Status();
       }},
      {"close", true, nothing, [](Scene& scene) { return scene.close(); }},
  };
}

// What an I/O, a lock, a stat that fails becomes; a short read may be the file's end.
bool is_expected(Errc code, const Failure& failure) {
  const bool scarce = failure.scarce != Scarce::kNone;
  return code == Errc::kSystem || code == (scarce ? Errc::kNoMemory : Errc::kIo);
}

bool same(const Error& a, const Error& b) {
  return a.code == b.code && a.sys_errno == b.sys_errno && a.value == b.value;
}

class Trial {
 public:
  Trial(Pool& pool, const SimSnapshot& disk, const PublicCall& call, const Failure& failure)
      : pool_(pool), disk_(disk), call_(call), failure_(failure) {}

  std::uint64_t failures = 0;  // met

  [[nodiscard]] bool is_met() {
    bool met = false;
    const std::string fault = attempt(1, false, false, met);
    CHECK_MESSAGE(fault.empty(), fault << "; " << failure_.name << " in " << call_.name);
    return met;
  }

  // Every k; once, then for good. What went wrong, or nothing.
  std::string run() {
    for (const bool for_good : {false, true}) {
      bool met = true;
      for (std::uint64_t k = 1; met; ++k) {
        std::string fault;
        for (const bool cut : {false, true}) {
          if (fault.empty()) {
            fault = attempt(k, for_good, cut, met);
          }
        }
        if (!fault.empty() || k > 5000) {
          return fault + "; the " + std::to_string(k) + ". " + failure_.name +
                 (for_good ? " for good" : " once") + " in " + call_.name;
        }
        failures += met ? 1 : 0;
      }
    }
    return {};
  }

 private:
  std::string attempt(std::uint64_t k, bool for_good, bool cut, bool& met) {
    Scene scene(pool_, disk_);
    ScarceDisk& disk = scene.disk();
    const std::int64_t held = disk.held();
    if (call_.opened) {
      scene.prepare();
      REQUIRE(call_.before(scene).ok());
    }
    if (failure_.fault.op == SimOp::kResize) {
      disk.have_no_fallocate();
    }
    disk.clear_io_log();
    if (failure_.scarce != Scarce::kNone) {
      disk.refuse(failure_.scarce, k, for_good);
    } else {
      SimFault fault = failure_.fault;
      fault.nth = k;
      fault.for_good = for_good;
      disk.inject(fault);
    }
    const Status result = call_.call(scene);
    disk.clear_faults();
    met = was_met(disk);
    disk.refuse(Scarce::kNone, 0, false);
    if (!result.ok() && !met) {
      return "an error without a reason: " + result.error().message();
    }
    if (!result.ok() && !is_expected(result.error().code, failure_)) {
      return "an error of the wrong kind: " + result.error().message();
    }
    const bool broken = met && broke_log(disk);
    const bool may_end = broken || cut_write(disk, for_good);
    if (result.ok() && broken && !call_.opened && !scene.is_open()) {
      return "it said nothing of a failed write or flush";
    }
    std::string fault = scene.is_open() ? live_on(scene, result, may_end, broken) : "";
    scene.drop();
    if (fault.empty() && disk.held() != held) {
      fault = "leaked metadata: " + std::to_string(disk.held() - held);
    }
    if (fault.empty() && cut) {
      disk.crash(k * 31);
    }
    return fault.empty() ? scene.check_log() : fault;
  }

  [[nodiscard]] bool was_met(const ScarceDisk& disk) const {
    bool met = disk.refused() != 0;
    for (const SimIo& io : disk.io_log()) {
      met = met || io.faulty;
    }
    return met;
  }

  // A write or flush was not done and said so, or its completion is not known of.
  [[nodiscard]] static bool broke_log(const ScarceDisk& disk) {
    for (const SimIo& io : disk.io_log()) {
      if (io.faulty && io.result < 0 &&
          (io.op == SimOp::kWrite || io.op == SimOp::kFlush || io.op == SimOp::kRingSubmit ||
           io.op == SimOp::kRingWait)) {
        return true;
      }
    }
    return false;
  }

  // A write was short in a way that cannot be finished, or perhaps was so when it was finished.
  [[nodiscard]] static bool cut_write(const ScarceDisk& disk, bool for_good) {
    const auto log = disk.io_log();
    return std::any_of(log.begin(), log.end(), [for_good](const SimIo& io) {
      const auto moved = static_cast<std::uint64_t>(io.result);
      return io.faulty && io.op == SimOp::kWrite && io.result >= 0 && moved < io.bytes &&
             (for_good || moved % format::kMinBlockBytes != 0);
    });
  }

  // The journal goes on, or has kept its first error.
  std::string live_on(Scene& scene, const Status& result, bool may_end, bool broken) {
    if (std::string(call_.name) == "close") {
      if (broken && result.ok()) {
        return "it said nothing of a failed write or flush";
      }
      if (!may_end && !result.ok()) {
        return "it fails for what harms no log: " + result.error().message();
      }
      const Status again = scene.close();
      return again.ok() == result.ok() ? "" : "a second close says otherwise";
    }
    const Status put = scene.put(1);
    const Status forced = put.ok() ? scene.force() : put;
    const bool over = !forced.ok();
    if (over && !may_end) {
      return "a journal that ends for what harms no log: " + forced.error().message();
    }
    if (!over && broken) {
      return "a failed write or flush did not end the journal";
    }
    if (over) {
      for (const Status& later :
           {status_of(scene.journal().begin(100, 1)), scene.force(), scene.journal().force_all()}) {
        if (later.ok() || !same(later.error(), forced.error())) {
          return "a later call got something else than the first error";
        }
      }
      if (!result.ok() && !same(result.error(), forced.error())) {
        return "the call itself got something else than the first error: " +
               result.error().message();
      }
    }
    const Status closed = scene.close();
    return closed.ok() == !over ? "" : "close() does not tell how it went";
  }

  Pool& pool_;
  const SimSnapshot& disk_;
  const PublicCall& call_;
  const Failure& failure_;
};

SimSnapshot log_on_disk() {
  SimDisk disk({.seed = 21});
  const ScopedOs scope(disk);
  REQUIRE(create_log(kLogPath, {.size = Bytes(16 * kBig)}).ok());
  return disk.snapshot();
}

}  // namespace

TEST_CASE(
    "whatever fails in whichever call, the k-th time for every k, costs nothing acknowledged") {
  const MessageHook before = set_message_hook([](const char*) {});
  auto pool = Pool::create({.capacity_bytes = 128U << 20, .background = false});
  REQUIRE(pool.ok());
  const SimSnapshot disk = log_on_disk();
  const std::vector<PublicCall> calls = all_calls();
  const std::vector<Failure> failures = all_failures();
  std::uint64_t met = 0, pairs = 0;
  Campaign campaign("kth_failure", calls.size() * failures.size(), {50, 12});
  campaign.run([&](std::uint64_t index) {
    Trial trial(**pool, disk, calls[index % calls.size()], failures[index / calls.size()]);
    std::string fault = trial.run();
    met += trial.failures;
    pairs += trial.failures != 0 ? 1 : 0;
    campaign.note("failures_met=" + std::to_string(met) + " pairs_met=" + std::to_string(pairs));
    return fault;
  });
  set_message_hook(before);
}

TEST_CASE("whatever fails in whichever call: each kind of failure is met by some call") {
  const MessageHook before = set_message_hook([](const char*) {});
  auto pool = Pool::create({.capacity_bytes = 128U << 20, .background = false});
  REQUIRE(pool.ok());
  const SimSnapshot disk = log_on_disk();
  const std::vector<PublicCall> calls = all_calls();
  for (const Failure& failure : all_failures()) {
    CAPTURE(std::string(failure.name));
    CHECK(std::any_of(calls.begin(), calls.end(), [&](const PublicCall& call) {
      return Trial(**pool, disk, call, failure).is_met();
    }));
  }
  set_message_hook(before);
}

TEST_CASE("every call comes to its end by a clock that stands still") {
  auto pool = Pool::create({.capacity_bytes = 128U << 20, .background = false});
  REQUIRE(pool.ok());
  SimDisk disk({.seed = 22, .virtual_clock = true});
  const ScopedOs scope(disk);
  const std::uint64_t now = disk.monotonic_ns();
  REQUIRE(create_log(kLogPath, {.size = kMinLogBytes}).ok());
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = Journal::open(kLogPath, {.pool = pool->get()}, kIgnore);
  REQUIRE(journal.ok());
  const Sequence sequence = commit(**journal, {&item});
  CHECK((*journal)->force(sequence).ok());
  commit(**journal, {&item});
  CHECK((*journal)->force_all().ok());
  std::atomic<int> called{0};
  CHECK((*journal)->on_stable(sequence, [&](const Status&) { ++called; }).ok());
  yield_until([&] { return called != 0; });
  auto follower = (*journal)->follow({.from = Sequence(1)});
  REQUIRE(follower.ok());
  CHECK((*follower)->next(0).ok());
  follower->reset();
  CHECK((*journal)->release(item));
  CHECK((*journal)->close().ok());
  journal->reset();
  CHECK(scan_log(kLogPath, kIgnore).ok());
  CHECK(disk.monotonic_ns() - now < 1'000'000'000);
}

TEST_CASE("a path that cannot be looked at for an I/O error is not taken for one with a log") {
  SimDisk disk;
  const ScopedOs scope(disk);
  disk.inject({.op = SimOp::kOpen});
  const auto made = create_log(kLogPath, {.size = kMinLogBytes});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().code == Errc::kIo);
  CHECK_FALSE(disk.exists(kLogPath));
  CHECK(create_log(kLogPath, {.size = kMinLogBytes}).ok());
}

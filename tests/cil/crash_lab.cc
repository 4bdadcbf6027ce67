#include "crash_lab.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <unordered_map>

#include "keel/base/check.h"
#include "keel/base/thread.h"
#include "keel/cil/object_item.h"
#include "log/log_scan.h"
#include "probe.h"
#include "support/spare_memory_disk.h"

using namespace keel;

namespace keel_test {
namespace {

// Number of an object's content; unique over all lives. 0: the object never was.
using Version = std::uint64_t;
// Versions from here on are of large objects.
constexpr Version kLargeVersions = Version{1} << 40;
using Versions = std::array<Version, kCrashObjects>;

bool is_erasure(Version version) { return version % 13 == 0; }

std::size_t size_of(Version version) {
  std::uint64_t state = version * 77;
  const std::uint64_t draw = sim_random(state);
  if (version >= kLargeVersions && draw % 8 < 6) {
    return 8 + draw / 8 % (768 * 1024);
  }
  switch (draw % 8) {
    case 0: return 4096;
    case 1: return 4096 + draw / 8 % 20000;
    case 2: return 8192 - 8;
    case 3: return 4095;
    default: return 8 + draw / 8 % 4000;
  }
}

std::string content_of(Version version) {
  if (is_erasure(version)) {
    return {};
  }
  std::string bytes = random_bytes(version, size_of(version));
  std::memcpy(bytes.data(), &version, sizeof version);
  return bytes;
}

struct Change {
  std::uint64_t sequence;
  Version version;
};

// What is promised of a disk at one moment.
struct Moment {
  SimSnapshot disk;
  bool promised = false;  // just now
  bool in_write = false;  // a durable write is under way; else just after an I/O
  std::uint64_t step = 0;
  std::uint64_t forced = 0;
  // Before the snapshot and after: other threads may write home meanwhile.
  Versions home_before{};
  Versions home{};
};

// What recovery delivered.
struct Recovered {
  Error error{};
  bool ok = false;
  RecoveryReport report{};
  Versions versions{};  // 0: not in the log
  std::array<bool, kCrashObjects> erased{};
  std::string fault;  // bytes that belong to no version
};

// What was made anew for each look at it costs more than reading the log. Threads: one.
class KnownContents {
 public:
  const std::string& of(Version version) {
    const auto [entry, is_new] = contents_.try_emplace(version);
    if (is_new) {
      bytes_ += size_of(version);
      entry->second = content_of(version);
    }
    return entry->second;
  }
  // To be called when nobody has a content.
  void trim() {
    if (bytes_ > kMostBytes) {
      contents_.clear();
      bytes_ = 0;
    }
  }

 private:
  static constexpr std::size_t kMostBytes = std::size_t{64} << 20;
  std::unordered_map<Version, std::string> contents_;
  std::size_t bytes_ = 0;
};

// For judging states, of one run of a plan.
struct Bench {
  SpareMemory memory;
  KnownContents contents;
};

RecoveryHandler collector(Recovered& recovered, KnownContents& contents) {
  return [&recovered, &contents](const RecoveredCheckpoint& checkpoint) -> Status {
    for (const RecoveredItem& item : checkpoint.items) {
      const auto object = RecoveredObject::from(item);
      if (!object || object->id >= kCrashObjects) {
        recovered.fault = "an item that nobody logged";
        return {};
      }
      recovered.erased[object->id] = object->erased;
      recovered.versions[object->id] = 0;
      if (object->erased) {
        continue;
      }
      std::string bytes(object->bytes.size_bytes(), '\0');
      object->bytes.copy_to(bytes.data(), bytes.size());
      Version version = 0;
      std::memcpy(&version, bytes.data(), std::min(sizeof version, bytes.size()));
      if (bytes.size() != size_of(version) || bytes != contents.of(version)) {
        recovered.fault = "wrong bytes for object " + std::to_string(object->id);
      }
      recovered.versions[object->id] = version;
    }
    return {};
  };
}

// As Journal::open() recovers, without what it writes afterwards. `ahead`: by threads, as it does;
// else by one and without memory of its own.
Recovered recover(Pool& pool, Bench& bench, bool ahead) {
  Recovered recovered;
  const ReadAheadOptions reading =
      ahead ? ReadAheadOptions{}
            : ReadAheadOptions{.chunk_bytes = SpareMemory::kReadBytes, .depth = 0, .threads = 0};
  bench.contents.trim();
  auto file = LogFile::open(kLogPath, DeviceMode::kReadWrite, false, pool);
  if (!file) {
    recovered.error = file.error();
    return recovered;
  }
  const auto found = scan(*file, pool, collector(recovered, bench.contents), {}, reading);
  recovered.ok = found.ok();
  if (found) {
    recovered.report = found->report;
  } else {
    recovered.error = found.error();
  }
  return recovered;
}

std::unique_ptr<SimDisk> make_disk(const CrashPlan& plan, std::uint64_t seed) {
  return plan.make_disk ? plan.make_disk(seed)
                        : std::make_unique<SimDisk>(SimDiskOptions{.seed = seed});
}

class Life {
 public:
  Life(const CrashPlan& plan, Bench& bench, CrashTally& tally, std::uint32_t depth,
       std::uint64_t seed, SimDisk& disk, Version& last_version)
      : plan_(plan),
        bench_(bench),
        tally_(tally),
        depth_(depth),
        seed_(seed),
        disk_(disk),
        last_version_(last_version) {
    ++tally_.lives;
  }

  // Begins with what a crash left, of which `parent` promised this.
  void run(std::uint64_t base_sequence, const Versions& base, const Versions& home) {
    base_ = base;
    for (std::size_t i = 0; i < kCrashObjects; ++i) {
      history_[i].push_back({base_sequence, base[i]});
    }
    {
      MutexLock lock(mutex_);
      home_ = home;
      forced_ = base_sequence;
    }
    disk_.on_io([this](const SimIo& io) {
      if (io.op != SimOp::kRead && io.op != SimOp::kStat) {
        take_moment(false);
      }
    });
    disk_.on_durable_write([this](const SimDurableWrite& write) { take_moment(false, &write); });
    live(base_sequence);
    disk_.on_io(nullptr);
    disk_.on_durable_write(nullptr);
    tally_.moments += moments_.size();
    tally_.failed += dead_ ? 1U : 0U;
    crash_all();
  }

 private:
  struct Object {
    explicit Object(std::uint64_t id) : item(id) {}
    ObjectItem item;
    std::string bytes;
    Version version = 0;
    bool released = false;  // since it was last committed
  };

  // Says that the sequence is promised from now on.
  void promise(std::uint64_t sequence) {
    {
      MutexLock lock(mutex_);
      if (forced_ >= sequence) {
        return;
      }
      forced_ = sequence;
    }
    take_moment(true);
  }

  // `write`: nullptr, or what is under way.
  void take_moment(bool promised, const SimDurableWrite* write = nullptr) {
    Moment moment;
    moment.in_write = write != nullptr;
    moment.step = plan_.step ? plan_.step() : 0;
    moment.promised = promised;
    {
      MutexLock lock(mutex_);
      moment.forced = forced_;
      moment.home_before = home_;
    }
    moment.disk = write != nullptr ? disk_.snapshot_during(*write) : disk_.snapshot();
    MutexLock lock(mutex_);
    moment.home = home_;
    moments_.push_back(std::move(moment));
  }

  void live(std::uint64_t base_sequence) {
    Recovered recovered;
    JournalConfig config = plan_.journal;
    config.depth = plan_.in_flight;
    config.push_threshold = Bytes(plan_.push_threshold);
    if (plan_.inject) {
      plan_.inject(disk_);
    }
    auto journal = Journal::open(kLogPath, config, collector(recovered, bench_.contents));
    if (!journal) {
      if (plan_.may_fail) {
        dead_ = true;
        take_moment(false);
        return;
      }
      FAIL("open: " << journal.error().message() << ", depth " << depth_ << " seed " << seed_);
    }
    KEEL_CHECK((*journal)->recovery().last_sequence.value() == base_sequence, "reopened at",
               (*journal)->recovery().last_sequence.value(), base_sequence);
    std::vector<Thread> threads;
    const std::uint32_t share = plan_.transactions / plan_.threads / (depth_ == 0 ? 1 : 2);
    for (std::uint32_t t = 1; t < plan_.threads; ++t) {
      try {
        threads.emplace_back("committer",
                             [this, &journal, t, share] { commit_many(**journal, t, share); });
      } catch (const std::system_error&) {
        KEEL_CHECK(plan_.may_fail, "no thread for a committer");
      }
    }
    commit_many(**journal, 0, share);
    for (Thread& thread : threads) {
      thread.join();
    }
    tally_.bytes_logged += (*journal)->stats().written.value();
    (*journal)->audit();
    // Every other life ends in order: moments of the close are crashed as well.
    if (seed_ % 2 == 0) {
      const Status closed = (*journal)->close();
      KEEL_CHECK(closed.ok() || plan_.may_fail, "close");
      dead_ = dead_ || !closed.ok();
      take_moment(false);
    }
    journal->reset();
    MutexLock lock(mutex_);
    KEEL_CHECK(callbacks_called_ == callbacks_asked_, "callbacks called, asked for",
               callbacks_called_, callbacks_asked_);
    objects_.clear();
  }

  // Threads share the journal, not the objects.
  void commit_many(Journal& journal, std::uint32_t thread, std::uint32_t transactions) {
    std::uint64_t random = seed_ * 1000 + thread;
    std::vector<std::unique_ptr<Object>> mine;
    for (std::uint64_t id = thread; id < kCrashObjects; id += plan_.threads) {
      mine.push_back(std::make_unique<Object>(id));
      mine.back()->version = history_[id].back().version;
    }
    for (std::uint32_t i = 0; i < transactions && !dead_; ++i) {
      const std::uint64_t sequence = commit_one(journal, mine, random);
      if (sequence == 0) {
        continue;
      }
      if (plan_.mixed_waits) {
        wait_otherwise(journal, sequence, random);
      }
      const std::uint64_t draw = sim_random(random) % 16;
      // Half of the time nobody forces: then checkpoints of several records come to be.
      if (draw < 5 ? i / 32 % 2 == 0 || draw == 4 : plan_.often && draw > 8) {
        force(journal, mine, sequence - (draw == 3 ? 1 : 0));
      } else if (draw < 8) {
        release_some(journal, mine, random, 3);
      } else if (draw == 8 && i > transactions / 4) {
        release_recovered(journal);
      }
    }
    if (plan_.threads > 1 && succeeded(journal.force_all(), "force_all")) {
      // The others still need the space.
      for (const auto& object : mine) {
        if (history_[object->item.id()].size() > 1) {
          go_home(journal, *object, object->version);
        }
      }
    }
    MutexLock lock(mutex_);
    std::move(mine.begin(), mine.end(), std::back_inserter(objects_));
  }

  // Whether it went well. If not, the life is over; faults must have been injected for that.
  bool succeeded(const Status& status, const char* what) {
    if (!status.ok()) {
      KEEL_CHECK(plan_.may_fail, what, static_cast<std::uint64_t>(status.error().code),
                 static_cast<std::uint64_t>(status.error().sys_errno));
      dead_ = true;
    }
    return status.ok();
  }

  void wait_otherwise(Journal& journal, std::uint64_t sequence, std::uint64_t& random) {
    const std::uint64_t draw = sim_random(random);
    if (draw % 8 == 0) {
      const Status asked = journal.on_stable(Sequence(sequence), [this, sequence](const Status& s) {
        if (plan_.on_callback) {
          plan_.on_callback();
        }
        if (s.ok()) {
          promise(sequence);
        }
        MutexLock lock(mutex_);
        ++callbacks_called_;
      });
      MutexLock lock(mutex_);
      callbacks_asked_ += asked.ok() ? 1U : 0U;
    } else if (draw % 16 == 1) {
      const Status forced = journal.force(Sequence(sequence), draw / 16 % 400'000);
      if (forced.ok()) {
        promise(sequence);
      } else if (forced.error().code != Errc::kTimeout) {
        (void)succeeded(forced, "force with a timeout");
      }
    } else if (draw / 16 % plan_.pause_one_in == 0) {
      os().sleep_ns(sim_random(random) % plan_.pause_ns);
    }
  }

  // Gives the sequence; 0: it could not be committed.
  std::uint64_t commit_one(Journal& journal, std::vector<std::unique_ptr<Object>>& mine,
                           std::uint64_t& random) {
    std::array<Object*, 4> chosen{};
    const std::size_t count = 1 + sim_random(random) % chosen.size();
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < count; ++i) {
      Object& object = *mine[sim_random(random) % mine.size()];
      if (std::find(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(i), &object) !=
          chosen.begin() + static_cast<std::ptrdiff_t>(i)) {
        continue;
      }
      chosen[i] = &object;
      {
        MutexLock lock(mutex_);
        object.version = ++last_version_;
      }
      object.bytes = content_of(object.version);
      if (is_erasure(object.version)) {
        object.item.erase();
      } else {
        object.item.set(object.bytes.data(), object.bytes.size());
      }
      bytes += ObjectItem::log_bytes(object.bytes.size());
    }
    auto transaction = begin(journal, mine, bytes);
    if (!transaction) {
      take_back(chosen);
      return 0;
    }
    for (Object* object : chosen) {
      if (object != nullptr) {
        KEEL_CHECK(transaction->log(object->item).ok(), "log");
      }
    }
    const auto sequence = transaction->commit();
    if (!sequence) {
      if (sequence.error().code != Errc::kNoMemory || !plan_.may_fail) {
        (void)succeeded(sequence.error(), "commit");
      }
      take_back(chosen);
      return 0;
    }
    for (Object* object : chosen) {
      if (object != nullptr) {
        history_[object->item.id()].push_back({sequence->value(), object->version});
        object->released = false;
      }
    }
    return sequence->value();
  }

  // What was to be committed and was not.
  void take_back(const std::array<Object*, 4>& chosen) {
    for (Object* object : chosen) {
      if (object == nullptr) {
        continue;
      }
      object->version = history_[object->item.id()].back().version;
      object->bytes = object->version == 0 ? std::string() : content_of(object->version);
      if (object->bytes.empty()) {
        object->item.erase();
      } else {
        object->item.set(object->bytes.data(), object->bytes.size());
      }
    }
  }

  // Makes room itself when the log is full.
  std::optional<Transaction> begin(Journal& journal, std::vector<std::unique_ptr<Object>>& mine,
                                   std::size_t bytes) {
    for (int attempt = 0;; ++attempt) {
      auto transaction = journal.begin(bytes, 4);
      if (transaction) {
        return std::move(*transaction);
      }
      const Errc code = transaction.error().code;
      if (code == Errc::kNoMemory && plan_.may_fail) {
        return std::nullopt;
      }
      if (code != Errc::kLogFull || attempt >= 1000) {
        (void)succeeded(transaction.error(), "begin");
        return std::nullopt;
      }
      if (!succeeded(journal.force_all(), "force_all")) {
        return std::nullopt;
      }
      release_recovered(journal);
      for (const auto& object : mine) {
        go_home(journal, *object, history_[object->item.id()].back().version);
      }
    }
  }

  void force(Journal& journal, const std::vector<std::unique_ptr<Object>>& mine,
             std::uint64_t sequence) {
    if (!succeeded(journal.force(Sequence(sequence)), "force")) {
      return;
    }
    promise(sequence);
    // The tail is held for what was forced, before anybody is told.
    for (const auto& object : mine) {
      const Change& newest = history_[object->item.id()].back();
      const bool is_logged = history_[object->item.id()].size() > 1 && !is_erasure(newest.version);
      KEEL_CHECK(!is_logged || newest.sequence > sequence || object->released ||
                     object->item.tracked() || dead_,
                 "an item that was forced holds no tail", newest.sequence, sequence);
    }
  }

  // An object goes home only when its newest version is stable, and is home before the log lets go.
  void go_home(Journal& journal, Object& object, Version version) {
    if (object.item.pinned() || object.item.aborted()) {
      return;
    }
    {
      MutexLock lock(mutex_);
      home_[object.item.id()] = version;
    }
    object.released = true;
    (void)journal.release(object.item);  // or later, if it is just being logged again
  }

  void release_some(Journal& journal, std::vector<std::unique_ptr<Object>>& mine,
                    std::uint64_t& random, int count) {
    for (int i = 0; i < count; ++i) {
      Object& object = *mine[sim_random(random) % mine.size()];
      // An object that this life has not committed may have newer bytes in the log than at home.
      if (history_[object.item.id()].size() > 1) {
        go_home(journal, object, object.version);
      }
    }
  }

  void release_recovered(Journal& journal) {
    {
      MutexLock lock(mutex_);
      for (std::size_t i = 0; i < kCrashObjects; ++i) {
        // What this life has written home is newer.
        home_[i] = std::max(home_[i], base_[i]);
      }
    }
    journal.release_recovered();
  }

  [[nodiscard]] Version expected(std::size_t id, std::uint64_t sequence) const {
    Version version = 0;
    for (const Change& change : history_[id]) {
      if (change.sequence <= sequence) {
        version = change.version;
      }
    }
    return version;
  }

  void crash_all() {
    std::uint64_t random = seed_ ^ 0xabcdef;
    for (std::size_t i = 0; i < moments_.size(); ++i) {
      const Moment& moment = moments_[i];
      if (i % plan_.moment_stride != 0 && !moment.promised) {
        continue;
      }
      std::uint32_t crashes = plan_.crashes;
      if (moment.in_write) {
        crashes = (crashes + 1) / 2;  // Nothing and all of it are the moments before and after.
      } else {
        crash_one(moment, 0, SimFate::kDrop);
        if (moment.disk.sectors() == 0) {
          crashes = 0;  // There is one thing that a crash can leave.
        } else {
          crash_one(moment, 0, SimFate::kKeep);
        }
      }
      for (std::uint32_t k = 0; k < crashes; ++k) {
        crash_one(moment, sim_random(random), SimFate::kGarbage);
      }
      for (std::uint32_t k = 0; k < plan_.rot; ++k) {
        rot_one(moment, sim_random(random));
      }
    }
    if (depth_ + 1 < plan_.depth) {
      for (std::uint32_t child = 0; child < plan_.children; ++child) {
        give_birth(moments_[sim_random(random) % moments_.size()], sim_random(random));
      }
    }
  }

  static void boot(SimDisk& after, const Moment& moment, std::uint64_t crash_seed, SimFate fate) {
    if (fate != SimFate::kGarbage) {
      after.boot_with(moment.disk, [fate](const SimSector&) { return fate; });
    } else {
      after.boot(moment.disk, crash_seed, {.sector_bytes = crash_seed % 2 == 0 ? 512U : 4096U});
    }
  }

  Recovered crash_one(const Moment& moment, std::uint64_t crash_seed, SimFate fate) {
    ++tally_.states;
    SpareMemoryDisk after(bench_.memory);
    const ScopedOs scope(after);
    boot(after, moment, crash_seed, fate);
    Recovered recovered = judge(crash_seed);
    observe(recovered);
    check(moment, recovered, crash_seed, fate);
    return recovered;
  }

  // What recovery finds; by threads of its own for one state in 16.
  [[nodiscard]] Recovered judge(std::uint64_t state_seed) {
    const bool ahead = state_seed % 16 == 5;
    if (!ahead && plan_.alone) {
      plan_.alone(true);
    }
    Recovered recovered = recover(pool(), bench_, ahead);
    if (!ahead && plan_.alone) {
      plan_.alone(false);
    }
    return recovered;
  }

  [[nodiscard]] Pool& pool() const {
    return plan_.journal.pool != nullptr ? *plan_.journal.pool : default_pool();
  }

  void observe(const Recovered& recovered) const {
    if (plan_.on_state) {
      plan_.on_state(recovered.report.last_sequence.value(),
                     recovered.ok ? static_cast<std::uint64_t>(recovered.report.end)
                                  : 100 + static_cast<std::uint64_t>(recovered.error.code));
    }
  }

  // Half of the damage is done where the newest writes went.
  [[nodiscard]] static std::uint64_t rot_place(const Moment& moment, std::uint64_t& random) {
    const SimImage& log = moment.disk.file(kLogPath);
    const std::uint64_t draw = sim_random(random);
    if (draw % 2 == 0 && !log.pending.empty()) {
      const SimWrite& write = log.pending[draw / 2 % log.pending.size()];
      return write.offset + (write.data ? sim_random(random) % write.data->size() : 0);
    }
    return draw / 2 % log.stable.size();
  }

  void rot_one(const Moment& moment, std::uint64_t rot_seed) {
    ++tally_.states;
    ++tally_.rot;
    std::uint64_t random = rot_seed;
    SpareMemoryDisk after(bench_.memory);
    const ScopedOs scope(after);
    boot(after, moment, sim_random(random), rot_seed % 4 == 0 ? SimFate::kGarbage : SimFate::kKeep);
    const std::uint64_t kind = sim_random(random) % 3;
    for (std::uint64_t left = kind == 0 ? 1 : sim_random(random) % 4; left > 0; --left) {
      const std::uint64_t at = rot_place(moment, random);
      if (kind == 2) {
        misdirect(after, at, rot_place(moment, random), rot_seed % 8 < 4 ? 512 : 4096);
      } else {
        after.flip_bit(kLogPath, at, static_cast<unsigned>(random % 8));
      }
    }
    const Recovered recovered = judge(rot_seed);
    observe(recovered);
    check_rot(moment, recovered, rot_seed);
  }

  // What belongs to one place is found at another.
  static void misdirect(SimDisk& disk, std::uint64_t from, std::uint64_t to, std::uint64_t bytes) {
    SimContent sector(bytes);
    const int fd = disk.open(kLogPath, O_RDWR, 0);
    KEEL_CHECK(fd >= 0, "open for damage");
    struct iovec part = {sector.data(), sector.size()};
    if (disk.preadv2(fd, &part, 1, from - from % bytes, 0) == static_cast<ssize_t>(bytes)) {
      (void)disk.pwritev2(fd, &part, 1, to - to % bytes, 0);
    }
    (void)disk.close(fd);
  }

  void check_rot(const Moment& moment, const Recovered& recovered, std::uint64_t rot_seed) {
    const auto fail = [&](const std::string& what) {
      FAIL(what << "; rot seed " << rot_seed << ", " << place_of(moment) << "; "
                << recovered.report.message());
    };
    if (!recovered.fault.empty()) {
      fail("delivered damage: " + recovered.fault);
    }
    if (!recovered.ok || recovered.report.end == LogEnd::kDamaged) {
      ++tally_.rot_detected;
    }
    const std::uint64_t last = recovered.report.last_sequence.value();
    // Cut before this life began: what was before is not known here.
    const bool known = recovered.ok && last >= history_[0].front().sequence;
    for (std::size_t id = 0; known && id < kCrashObjects; ++id) {
      const Version want = expected(id, last);
      if (recovered.erased[id] ? !is_erasure(want)
                               : recovered.versions[id] != 0 && recovered.versions[id] != want) {
        fail("damage delivered as object " + std::to_string(id) + ", version " +
             std::to_string(recovered.versions[id]) + ", expected " + std::to_string(want));
      }
    }
    if (recovered.ok && recovered.report.end != LogEnd::kDamaged) {
      ++(last < moment.forced ? tally_.rot_cut : tally_.rot_harmless);
    }
  }

  [[nodiscard]] std::string place_of(const Moment& moment) const {
    return "depth " + std::to_string(depth_) + ", life's seed " + std::to_string(seed_) +
           ", I/Os " + std::to_string(&moment - moments_.data()) +
           (moment.in_write ? ", in a durable write" : "") + ", step " +
           std::to_string(moment.step) + ", forced " + std::to_string(moment.forced);
  }

  void check(const Moment& moment, const Recovered& recovered, std::uint64_t crash_seed,
             SimFate fate) {
    const auto fail = [&](const std::string& what) {
      FAIL(what << "; crash seed " << crash_seed << ", fate " << static_cast<int>(fate) << ", "
                << place_of(moment) << "; " << recovered.report.message());
    };
    if (!recovered.ok) {
      fail("recovery failed: " + recovered.error.message());
    }
    if (!recovered.fault.empty()) {
      fail(recovered.fault);
    }
    if (recovered.report.end == LogEnd::kDamaged) {
      fail("a crash was taken for damage");
    }
    tally_.torn += recovered.report.end == LogEnd::kTorn ? 1 : 0;
    const std::uint64_t last = recovered.report.last_sequence.value();
    if (last < moment.forced) {
      fail("a forced sequence is gone");
    }
    for (std::size_t id = 0; id < kCrashObjects; ++id) {
      const Version want = expected(id, last);
      const bool in_log = recovered.versions[id] != 0 || recovered.erased[id];
      const bool right =
          in_log ? (recovered.erased[id] ? is_erasure(want) : recovered.versions[id] == want)
                 : moment.home[id] == want || moment.home_before[id] == want;
      if (!right) {
        fail("object " + std::to_string(id) + " has version " +
             std::to_string(recovered.versions[id]) + ", at home " +
             std::to_string(moment.home[id]) + ", expected " + std::to_string(want));
      }
    }
  }

  void give_birth(const Moment& moment, std::uint64_t crash_seed) {
    const Recovered recovered = crash_one(moment, crash_seed, SimFate::kGarbage);
    Versions base;
    Versions home;
    for (std::size_t id = 0; id < kCrashObjects; ++id) {
      base[id] = expected(id, recovered.report.last_sequence.value());
      // What went home while the snapshot was taken did so before it if the log has it no more.
      const bool in_log = recovered.versions[id] != 0 || recovered.erased[id];
      home[id] = in_log ? moment.home_before[id] : base[id];
    }
    const std::unique_ptr<SimDisk> after = make_disk(plan_, crash_seed);
    const ScopedOs scope(*after);
    boot(*after, moment, crash_seed, SimFate::kGarbage);
    Life child(plan_, bench_, tally_, depth_ + 1, crash_seed, *after, last_version_);
    child.run(recovered.report.last_sequence.value(), base, home);
  }

  const CrashPlan& plan_;
  Bench& bench_;
  CrashTally& tally_;
  const std::uint32_t depth_;
  const std::uint64_t seed_;
  SimDisk& disk_;

  Mutex mutex_{LockRank::kLeaf};
  Version& last_version_;  // guarded by mutex_ while threads run
  std::uint64_t forced_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t callbacks_asked_ KEEL_GUARDED_BY(mutex_) = 0;
  std::uint64_t callbacks_called_ KEEL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> dead_{false};  // somebody met an injected fault
  Versions home_ KEEL_GUARDED_BY(mutex_){};
  Versions base_{};
  std::vector<std::unique_ptr<Object>> objects_;
  std::array<std::vector<Change>, kCrashObjects> history_;  // each of one thread
  std::vector<Moment> moments_;                             // guarded by mutex_ while threads run
};

}  // namespace

CrashTally run_crash_plan(const CrashPlan& plan) {
  CrashTally tally;
  const std::unique_ptr<SimDisk> disk = make_disk(plan, plan.seed);
  const ScopedOs scope(*disk);
  if (plan.beginning != nullptr) {
    disk->boot_with(*plan.beginning, [](const SimSector&) { return SimFate::kKeep; });
  } else {
    REQUIRE(create_log(kLogPath, {.size = Bytes(plan.log_bytes)}).ok());
  }
  Version last_version = plan.large_objects ? kLargeVersions : 0;
  Bench bench;
  Life life(plan, bench, tally, 0, plan.seed, *disk, last_version);
  life.run(0, {}, {});
  return tally;
}

}  // namespace keel_test

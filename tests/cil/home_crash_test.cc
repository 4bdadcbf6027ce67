// Items with a home, and power cuts: the home that push() writes, and what recovery delivers on top
// of it, are together what the last recovered transaction left; at any I/O, home's own included.
//
// Objects are logged in part, so that what is not in the log must be home: a tail that moves before
// the home is stable, or a home that is written before the log is, shows. A power cut may leave
// garbage in any sector that was being written: so whole sectors are logged, and only those that
// were are written home.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "item_home.h"
#include "keel/base/os.h"
#include "keel/cil/object_item.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kObjects = 24;
constexpr std::size_t kSector = 512;
constexpr std::size_t kSectors = 12;
constexpr std::size_t kBytes = kSectors * kSector;
constexpr const char* kHomePath = "/sim/home";

using Image = std::array<std::string, kObjects>;

// A file with a place for each object.
class HomeFile {
 public:
  HomeFile() : fd_(os().open(kHomePath, O_RDWR, 0)) { REQUIRE(fd_ >= 0); }
  ~HomeFile() { (void)os().close(fd_); }
  HomeFile(const HomeFile&) = delete;
  HomeFile& operator=(const HomeFile&) = delete;

  void write(std::size_t id, std::size_t sector, std::string& bytes) const {
    const std::size_t offset = sector * kSector;
    const struct iovec part { bytes.data() + offset, kSector };
    KEEL_CHECK(os().pwritev2(fd_, &part, 1, id * kBytes + offset, 0) == kSector, "write home");
  }
  [[nodiscard]] Status flush() const {
    KEEL_CHECK(os().fdatasync(fd_) == 0, "flush home");
    return {};
  }
  [[nodiscard]] Image read() const {
    Image image;
    for (std::size_t id = 0; id < kObjects; ++id) {
      image[id].resize(kBytes);
      const struct iovec part { image[id].data(), kBytes };
      KEEL_CHECK(os().preadv2(fd_, &part, 1, id * kBytes, 0) == kBytes, "read home");
    }
    return image;
  }

 private:
  const int fd_;
};

RecoveryHandler onto(Image& image) {
  return [&image](const RecoveredCheckpoint& checkpoint) -> Status {
    for (const RecoveredItem& item : checkpoint.items) {
      const auto object = RecoveredObject::from(item);
      KEEL_CHECK(object && object->id < kObjects, "an item that nobody logged");
      (void)object->apply_to(std::as_writable_bytes(std::span(image[object->id])));
    }
    return {};
  };
}

// Goes home when it is asked to, if nobody changes it just then.
class Object : public ObjectItem {
 public:
  Object(std::uint64_t id, std::string content, const HomeFile& home, Journal& journal)
      : ObjectItem(id), bytes(std::move(content)), home_(home), journal_(journal) {
    attach(bytes_of(bytes));
  }

  std::mutex mutex;  // the object lock
  std::string bytes;
  std::array<bool, kSectors> dirty{};  // not home
  std::uint64_t pushes = 0;

 protected:
  [[nodiscard]] bool has_home() const override { return true; }
  PushResult push() override {
    const std::unique_lock lock(mutex, std::try_to_lock);
    if (!lock.owns_lock() || pinned() || aborted()) {
      return PushResult::kLocked;
    }
    ++pushes;
    for (std::size_t sector = 0; sector < kSectors; ++sector) {
      if (std::exchange(dirty[sector], false)) {
        home_.write(id(), sector, bytes);
      }
    }
    (void)journal_.release(*this);
    clean();
    return PushResult::kStarted;
  }

 private:
  const HomeFile& home_;
  Journal& journal_;
};

struct Moment {
  SimSnapshot disk;
  std::uint64_t forced;
};

struct Tally {
  std::uint64_t states = 0;
  std::uint64_t lives = 0;
  std::uint64_t pushes = 0;
  std::uint64_t laps = 0;
};

class Life {
 public:
  Life(SimDisk& disk, std::uint64_t seed, Tally& tally)
      : disk_(disk), seed_(seed), random_(seed), tally_(tally) {}

  void run(std::uint64_t base_sequence, const Image& base, int depth) {
    states_ = {{base_sequence, base}};
    forced_ = base_sequence;
    disk_.on_io([this](const SimIo&) {
      const std::lock_guard lock(mutex_);
      moments_.push_back({disk_.snapshot(), forced_});
    });
    live(base);
    disk_.on_io(nullptr);
    for (std::size_t i = 0; i < moments_.size(); i += 5) {
      crash(moments_[i], 0);
      crash(moments_[i], sim_random(random_));
    }
    for (int child = 0; depth > 1 && child < 2; ++child) {
      give_birth(moments_[sim_random(random_) % moments_.size()], sim_random(random_), depth - 1);
    }
    ++tally_.lives;
  }

 private:
  struct State {
    std::uint64_t sequence;
    Image image;
  };

  void live(const Image& base) {
    HomeFile home;
    Image image = home.read();
    JournalConfig config;
    config.flush_home = [&home] { return home.flush(); };
    auto opened = Journal::open(kLogPath, config, onto(image));
    REQUIRE(opened.ok());
    std::unique_ptr<Journal> journal = std::move(*opened);
    REQUIRE(image == base);
    // What was recovered goes home first, as after a mount.
    const Image at_home = home.read();
    for (std::size_t id = 0; id < kObjects; ++id) {
      for (std::size_t sector = 0; sector < kSectors; ++sector) {
        const std::size_t offset = sector * kSector;
        if (at_home[id].compare(offset, kSector, image[id], offset, kSector) != 0) {
          home.write(id, sector, image[id]);
        }
      }
    }
    REQUIRE(home.flush().ok());
    journal->release_recovered();
    std::vector<std::unique_ptr<Object>> objects;
    for (std::size_t id = 0; id < kObjects; ++id) {
      objects.push_back(std::make_unique<Object>(id, image[id], home, *journal));
    }
    for (int i = 0; i < 400; ++i) {
      const Sequence sequence = change_some(*journal, objects, image);
      if (sim_random(random_) % 4 == 0) {
        REQUIRE(journal->force(sequence).ok());
        const std::lock_guard lock(mutex_);
        forced_ = sequence.value();
      }
    }
    tally_.laps += journal->stats().tail.value() / journal->info().data.value();
    if (seed_ % 2 == 0) {
      journal->audit();
      REQUIRE(journal->close().ok());
      CHECK(home.read() == states_.back().image);
      const std::lock_guard lock(mutex_);
      forced_ = states_.back().sequence;
      moments_.push_back({disk_.snapshot(), forced_});
    }
    journal.reset();
    for (const auto& object : objects) {
      tally_.pushes += object->pushes;
    }
  }

  Sequence change_some(Journal& journal, std::vector<std::unique_ptr<Object>>& objects,
                       Image& image) {
    auto transaction = journal.begin(2 * ObjectItem::log_bytes(kBytes), 2);
    REQUIRE(transaction.ok());
    const std::size_t first = sim_random(random_) % kObjects;
    const std::size_t second = (first + 1 + sim_random(random_) % (kObjects - 1)) % kObjects;
    const std::scoped_lock lock(objects[first]->mutex, objects[second]->mutex);
    for (const std::size_t id : {first, second}) {
      Object& object = *objects[id];
      const std::size_t sector = sim_random(random_) % kSectors;
      const std::size_t count = 1 + sim_random(random_) % (kSectors - sector);
      object.bytes.replace(sector * kSector, count * kSector,
                           random_bytes(random_, count * kSector));
      object.mark(sector * kSector, count * kSector);
      std::fill_n(object.dirty.begin() + static_cast<std::ptrdiff_t>(sector), count, true);
      image[id] = object.bytes;
      REQUIRE(transaction->log(object).ok());
    }
    const auto sequence = transaction->commit();
    REQUIRE(sequence.ok());
    states_.push_back({sequence->value(), image});
    return *sequence;
  }

  [[nodiscard]] const Image& expected(std::uint64_t sequence) const {
    const State* found = &states_.front();
    for (const State& state : states_) {
      found = state.sequence <= sequence ? &state : found;
    }
    return found->image;
  }

  static void boot(SimDisk& after, const Moment& moment, std::uint64_t crash_seed) {
    if (crash_seed == 0) {
      after.boot_with(moment.disk, [](const SimSector&) { return SimFate::kDrop; });
    } else {
      after.boot(moment.disk, crash_seed);
    }
  }

  std::uint64_t crash(const Moment& moment, std::uint64_t crash_seed) {
    ++tally_.states;
    CAPTURE(seed_);
    CAPTURE(crash_seed);
    SimDisk after;
    boot(after, moment, crash_seed);
    const ScopedOs scope(after);
    Image image = HomeFile().read();
    const auto report = scan_log(kLogPath, onto(image));
    REQUIRE(report.ok());
    REQUIRE(report->end != LogEnd::kDamaged);
    REQUIRE(report->last_sequence.value() >= moment.forced);
    REQUIRE(image == expected(report->last_sequence.value()));
    return report->last_sequence.value();
  }

  void give_birth(const Moment& moment, std::uint64_t crash_seed, int depth) {
    const std::uint64_t last = crash(moment, crash_seed);
    SimDisk after;
    boot(after, moment, crash_seed);
    const ScopedOs scope(after);
    Life(after, crash_seed, tally_).run(last, expected(last), depth);
  }

  SimDisk& disk_;
  const std::uint64_t seed_;
  std::uint64_t random_;
  Tally& tally_;
  std::mutex mutex_;
  std::uint64_t forced_ = 0;
  std::vector<Moment> moments_;
  std::vector<State> states_;
};

}  // namespace

TEST_CASE("what items wrote home, and the log, are together a prefix, at a power cut at any I/O") {
  const std::uint64_t seed = test_seed("home crash", 1);
  Tally tally;
  for (std::uint64_t round = 0; round < test_rounds(1, 1); ++round) {
    LogWorld world;
    Image base;
    base.fill(std::string(kBytes, '\0'));
    world.disk.set_image(kHomePath, SimContent(kObjects * kBytes));
    Life(world.disk, seed + round, tally).run(0, base, 3);
  }
  CHECK(tally.pushes > 0);
  CHECK(tally.laps > 0);
  MESSAGE("crash states: " << tally.states << ", lives: " << tally.lives
                           << ", pushes: " << tally.pushes << ", laps: " << tally.laps);
}

// One owner at a time: eight processes that race for a log, a descriptor that a forked child
// inherits, a holder that is killed, a log that is renamed or removed while it is open.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <string>

#include "keel/base/os.h"
#include "log/log_device.h"
#include "probe.h"
#include "support/death.h"
#include "support/scratch_directory.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kRacers = 8;
constexpr std::uint8_t kWon = 255;  // else the Errc

// What the racers and their judge share.
struct Arena {
  pthread_barrier_t gate;
  std::array<std::uint8_t, kRacers> answers{};
};

// Losers try again a hundred times, with pauses; here without.
class HastyOs : public Os {
 public:
  void sleep_ns(std::uint64_t /*duration_ns*/) override {}
  int fsync(int /*fd*/) override { return 0; }
};

class Race {
 public:
  Race() {
    void* place =
        ::mmap(nullptr, sizeof(Arena), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(place != MAP_FAILED);
    arena_ = new (place) Arena;
    pthread_barrierattr_t shared;
    REQUIRE(::pthread_barrierattr_init(&shared) == 0);
    REQUIRE(::pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED) == 0);
    REQUIRE(::pthread_barrier_init(&arena_->gate, &shared, kRacers + 1) == 0);
    (void)::pthread_barrierattr_destroy(&shared);
  }
  ~Race() { (void)::munmap(arena_, sizeof(Arena)); }
  Race(const Race&) = delete;
  Race& operator=(const Race&) = delete;

  // Every racer calls `race` once a round, all at once, and keeps what it got until `judge` has
  // seen all answers.
  using Racer =
      std::function<Result<std::unique_ptr<LogDevice>>(std::size_t racer, std::uint64_t round)>;
  void run(std::uint64_t rounds, const Racer& race,
           const std::function<void(std::uint64_t round)>& judge) {
    std::array<pid_t, kRacers> children{};
    (void)std::fflush(nullptr);
    for (std::size_t i = 0; i < kRacers; ++i) {
      children[i] = ::fork();
      REQUIRE(children[i] >= 0);
      if (children[i] == 0) {
        take_part(i, rounds, race);
      }
    }
    for (std::uint64_t round = 0; round < rounds; ++round) {
      wait();  // the start
      wait();  // all have answered
      judge(round);
      wait();  // seen
      wait();  // and all have let go
    }
    for (const pid_t child : children) {
      int status = 0;
      CHECK(::waitpid(child, &status, 0) == child);
      CHECK(status == 0);
    }
  }

  [[nodiscard]] std::uint8_t answer(std::size_t racer) const { return arena_->answers[racer]; }
  // How many won; the others must all have had the error.
  [[nodiscard]] std::size_t winners(Errc loss) const {
    std::size_t count = 0;
    for (const std::uint8_t answer : arena_->answers) {
      count += answer == kWon ? 1U : 0U;
      CHECK((answer == kWon || answer == static_cast<std::uint8_t>(loss)));
    }
    return count;
  }

 private:
  void wait() { (void)::pthread_barrier_wait(&arena_->gate); }

  [[noreturn]] void take_part(std::size_t racer, std::uint64_t rounds, const Racer& race) {
    for (const int number : {SIGABRT, SIGSEGV, SIGTERM}) {
      (void)std::signal(number, SIG_DFL);
    }
    HastyOs os;
    const ScopedOs scope(os);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      ::alarm(60);  // should the judge be gone
      wait();
      {
        const auto got = race(racer, round);
        arena_->answers[racer] = got.ok() ? kWon : static_cast<std::uint8_t>(got.error().code);
        wait();
        wait();
      }
      wait();
    }
    ::_exit(0);
  }

  Arena* arena_ = nullptr;
};

// A file that LogDevice opens, without a log in it.
void make_file(const std::string& path) {
  std::ofstream(path) << std::string(8192, 'k');
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
}

// A child that opens the log, says so, and sleeps until it is killed. It has no pool: the device
// alone holds the log.
class Holder {
 public:
  explicit Holder(const std::string& path) {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    (void)std::fflush(nullptr);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      const auto device = LogDevice::open(path, DeviceMode::kReadWrite, true);
      const char answer = device.ok() ? 'y' : 'n';
      (void)!::write(ends[1], &answer, 1);
      for (;;) {
        (void)::pause();
      }
    }
    (void)::close(ends[1]);
    char answer = 0;
    REQUIRE(::read(ends[0], &answer, 1) == 1);
    REQUIRE(answer == 'y');
    (void)::close(ends[0]);
  }
  ~Holder() { end(); }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  void end() {
    if (pid_ > 0) {
      REQUIRE(::kill(pid_, SIGKILL) == 0);
      int status = 0;
      REQUIRE(::waitpid(pid_, &status, 0) == pid_);
      REQUIRE(WIFSIGNALED(status));
      pid_ = -1;
    }
  }

 private:
  pid_t pid_ = -1;
};

Errc refusal(const std::string& path, DeviceMode mode) {
  HastyOs os;
  const ScopedOs scope(os);
  const auto device = LogDevice::open(path, mode, true);
  REQUIRE_FALSE(device.ok());
  return device.error().code;
}

const LogConfig kBuffered = [] {
  LogConfig config;
  config.size = kMinLogBytes;
  config.buffered = true;
  return config;
}();

}  // namespace

TEST_CASE(
    "of eight processes that open a log at once, one has it and seven are told it is in use") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  make_file(log);
  std::uint64_t tried = 0;
  Race race;
  race.run(
      test_rounds(3'400, 30),
      [&](std::size_t, std::uint64_t) {
        return LogDevice::open(log, DeviceMode::kReadWrite, true);
      },
      [&](std::uint64_t) {
        CHECK(race.winners(Errc::kBusy) == 1);
        ++tried;
      });
  say_tried("ownership.open_races", tried);
}

TEST_CASE("of eight readers and writers at once, one writer has the log or only readers do") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  make_file(log);
  std::uint64_t tried = 0;
  Race race;
  const auto writes = [](std::size_t racer, std::uint64_t round) {
    return (racer + round) % 3 == 0;
  };
  race.run(
      test_rounds(3'400, 30),
      [&](std::size_t racer, std::uint64_t round) {
        return LogDevice::open(
            log, writes(racer, round) ? DeviceMode::kReadWrite : DeviceMode::kReadOnly, true);
      },
      [&](std::uint64_t round) {
        std::size_t readers = 0, writers = 0;
        for (std::size_t i = 0; i < kRacers; ++i) {
          const bool won = race.answer(i) == kWon;
          (writes(i, round) ? writers : readers) += won ? 1U : 0U;
        }
        CHECK(race.winners(Errc::kBusy) >= 1);
        CHECK((writers == 0 || (writers == 1 && readers == 0)));
        ++tried;
      });
  say_tried("ownership.mixed_races", tried);
}

TEST_CASE("of eight processes that make a log at once, one has made it and nothing else is left") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  std::uint64_t tried = 0;
  Race race;
  race.run(
      test_rounds(3'400, 30),
      [&](std::size_t racer, std::uint64_t round) -> Result<std::unique_ptr<LogDevice>> {
        // Half of the rounds as on a file system without unnamed files.
        class NamedOs : public HastyOs {
          int open(const char* path, int flags, mode_t mode) override {
            return (flags & O_TMPFILE) == O_TMPFILE ? -EOPNOTSUPP : Os::open(path, flags, mode);
          }
        };
        HastyOs unnamed;
        NamedOs named;
        const ScopedOs scope(round % 2 == 0 ? unnamed : named);
        auto made = LogDevice::create(log, true);
        if (!made.ok()) {
          return made;
        }
        // As large as its maker's number says.
        if (auto status = (*made)->allocate(4096 * (racer + 1)); !status.ok()) {
          return status.error();
        }
        if (auto status = (*made)->publish(); !status.ok()) {
          return status.error();
        }
        return made;
      },
      [&](std::uint64_t) {
        CHECK(race.winners(Errc::kExists) == 1);
        std::size_t winner = 0;
        for (std::size_t i = 0; i < kRacers; ++i) {
          winner = race.answer(i) == kWon ? i : winner;
        }
        struct stat found {};
        REQUIRE(::lstat(log.c_str(), &found) == 0);
        CHECK(found.st_mode == (S_IFREG | 0600));
        CHECK(found.st_nlink == 1);
        CHECK(static_cast<std::size_t>(found.st_size) == 4096 * (winner + 1));
        const std::filesystem::directory_iterator all(scratch.path);
        CHECK(std::distance(begin(all), end(all)) == 1);
        REQUIRE(::unlink(log.c_str()) == 0);
        ++tried;
      });
  say_tried("ownership.create_races", tried);
}

TEST_CASE("a log that another process has open is refused, and free at once when that is killed") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  make_file(log);
  std::uint64_t tried = 0;
  for (std::uint64_t round = 0; round < test_rounds(30, 10); ++round) {
    Holder holder(log);
    CHECK(refusal(log, DeviceMode::kReadWrite) == Errc::kBusy);
    CHECK(refusal(log, DeviceMode::kReadOnly) == Errc::kBusy);
    holder.end();
    // At the first try: no pause is waited for.
    class ImpatientOs : public Os {
     public:
      void sleep_ns(std::uint64_t /*duration_ns*/) override { ++pauses; }
      int pauses = 0;
    } impatient;
    const ScopedOs scope(impatient);
    CHECK(LogDevice::open(log, DeviceMode::kReadWrite, true).ok());
    CHECK(impatient.pauses == 0);
    ++tried;
  }
  say_tried("ownership.kills", tried);
}

TEST_CASE("a child that inherits an open log can use it for nothing, and its end frees nothing") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  REQUIRE(create_log(log, kBuffered).ok());
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"before the fork"};
  auto journal = Journal::open(log, {.buffered = true}, kIgnore);
  REQUIRE(journal.ok());
  const Sequence sequence = commit(**journal, {&item});
  REQUIRE((*journal)->force(sequence).ok());
  auto transaction = (*journal)->begin(100, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(item).ok());
  enum class Then : std::uint8_t { kDestroys, kExits, kIsKilled };
  for (const Then then : {Then::kDestroys, Then::kExits, Then::kIsKilled}) {
    const Ending ending = run_in_child([&] {
      const auto refused = [](const auto& result) {
        if (result.ok() || result.error().code != Errc::kForked) {
          ::_exit(9);
        }
      };
      refused(transaction->commit());
      refused((*journal)->begin(100, 1));
      refused((*journal)->force(sequence));
      refused((*journal)->force(next(sequence)));
      refused((*journal)->force_all());
      refused((*journal)->on_stable(sequence, [](const Status&) {}));
      refused((*journal)->follow({}));
      refused((*journal)->close());
      // Nor has it a way round: the log is in use for it too.
      HastyOs os;
      const ScopedOs scope(os);
      if (LogDevice::open(log, DeviceMode::kReadWrite, true).ok() ||
          LogDevice::open(log, DeviceMode::kReadOnly, true).ok()) {
        ::_exit(8);
      }
      if (then == Then::kDestroys) {
        journal->reset();
      } else if (then == Then::kIsKilled) {
        (void)::kill(::getpid(), SIGKILL);
      }
    });
    CAPTURE(ending.errors);
    CHECK((then == Then::kIsKilled ? ending.signal == SIGKILL : ending.exit_code == 0));
    // The parent has it still.
    CHECK(refusal(log, DeviceMode::kReadWrite) == Errc::kBusy);
    CHECK(refusal(log, DeviceMode::kReadOnly) == Errc::kBusy);
  }
  REQUIRE(transaction->commit().ok());
  REQUIRE((*journal)->force_all().ok());
  REQUIRE((*journal)->close().ok());
  journal->reset();
  CHECK(LogDevice::open(log, DeviceMode::kReadWrite, true).ok());
}

TEST_CASE("a device that a child destroys stays locked by its parent") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  make_file(log);
  auto device = LogDevice::open(log, DeviceMode::kReadWrite, true);
  REQUIRE(device.ok());
  const Ending ending = run_in_child([&] { device->reset(); });
  CHECK(ending.exit_code == 0);
  CHECK(refusal(log, DeviceMode::kReadWrite) == Errc::kBusy);
}

TEST_CASE("a parent that lets go of its log frees it, though a child still has the descriptor") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log";
  make_file(log);
  auto device = LogDevice::open(log, DeviceMode::kReadWrite, true);
  REQUIRE(device.ok());
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  (void)std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    (void)::close(ends[1]);
    char byte = 0;
    (void)!::read(ends[0], &byte, 1);
    ::_exit(0);
  }
  (void)::close(ends[0]);
  device->reset();
  CHECK(LogDevice::open(log, DeviceMode::kReadWrite, true).ok());
  (void)::close(ends[1]);
  CHECK(::waitpid(child, nullptr, 0) == child);
}

TEST_CASE(
    "a log that is renamed while it is open is in use under its new name, and loses nothing") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log", moved = scratch / "moved";
  REQUIRE(create_log(log, kBuffered).ok());
  Trace trace;
  Probe item(trace, 1);
  auto journal = Journal::open(log, {.buffered = true}, kIgnore);
  REQUIRE(journal.ok());
  item.regions = {"before"};
  REQUIRE((*journal)->force(commit(**journal, {&item})).ok());
  REQUIRE(::rename(log.c_str(), moved.c_str()) == 0);
  CHECK(refusal(log, DeviceMode::kReadWrite) == Errc::kNotFound);
  CHECK(refusal(moved, DeviceMode::kReadWrite) == Errc::kBusy);
  // The old name is free for another log, which is another one.
  REQUIRE(create_log(log, kBuffered).ok());
  auto other = Journal::open(log, {.buffered = true}, kIgnore);
  REQUIRE(other.ok());
  item.regions = {"after"};
  REQUIRE((*journal)->force(commit(**journal, {&item})).ok());
  REQUIRE((*journal)->close().ok());
  journal->reset();
  other->reset();
  Found found;
  REQUIRE(scan_log(moved, collect_into(found), {.buffered = true}).ok());
  REQUIRE_FALSE(found.empty());
  CHECK(found.back().items[0].regions[0] == "after");
}

TEST_CASE("a log that is removed while it is open takes commits to its end, and they go with it") {
  const ScratchDirectory scratch;
  const std::string log = scratch / "log", kept = scratch / "kept";
  REQUIRE(create_log(log, kBuffered).ok());
  Trace trace;
  Probe item(trace, 1);
  item.regions = {"x"};
  auto journal = Journal::open(log, {.buffered = true}, kIgnore);
  REQUIRE(journal.ok());
  REQUIRE(::unlink(log.c_str()) == 0);
  REQUIRE((*journal)->force(commit(**journal, {&item})).ok());
  CHECK(refusal(log, DeviceMode::kReadWrite) == Errc::kNotFound);
  // Another one in its place is another one.
  REQUIRE(create_log(log, kBuffered).ok());
  REQUIRE((*journal)->force(commit(**journal, {&item})).ok());
  REQUIRE((*journal)->close().ok());
  journal->reset();
  Found found;
  REQUIRE(scan_log(log, collect_into(found), {.buffered = true}).ok());
  CHECK(found.empty());
}

#include "demo/life.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "demo/cleanup.h"
#include "demo/notebook.h"
#include "demo/random.h"
#include "keel/base/os.h"
#include "output.h"

extern char** environ;  // NOLINT(readability-redundant-declaration)

namespace keel::tools {
namespace {

constexpr std::uint64_t kMostDelayNs = 3'000'000;
// Without a force for so long the process hangs.
constexpr std::uint64_t kPatienceNs = 60'000'000'000;
// How long a kill that wants to hit a force waits for one.
constexpr std::uint64_t kForcePatienceNs = 200'000'000;

struct Pipe {
  Pipe() {
    if (::pipe2(ends.data(), O_CLOEXEC) != 0 || ::fcntl(ends[1], F_SETFD, 0) != 0 ||
        ::fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) {
      throw Failure("", system_error(errno, "make a pipe"));
    }
  }
  ~Pipe() {
    ::close(ends[0]);
    close_writer();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_writer() {
    if (ends[1] >= 0) {
      ::close(std::exchange(ends[1], -1));
    }
  }
  std::array<int, 2> ends{-1, -1};
};

// The child process; killed and reaped at the latest when this goes.
class Child {
 public:
  explicit Child(const std::vector<std::string>& arguments) {
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (const std::string& argument : arguments) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    const int error =
        ::posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, argv.data(), environ);
    if (error != 0) {
      pid_ = -1;
      throw Failure("", system_error(error, "start the ingesting process"));
    }
    set_child(pid_);
  }
  ~Child() { (void)kill_and_wait(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Its wait status. All of its I/O has ended when this returns.
  int kill_and_wait() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
      }
      set_child(0);
      pid_ = -1;
    }
    return status_;
  }

 private:
  pid_t pid_ = -1;
  int status_ = 0;
};

class Life {
 public:
  Life(const LifeOptions& options, const KillPlan& kill, Ledger& ledger)
      : options_(options), kill_(kill), ledger_(ledger), notebook_(Notebook::create()) {
    for (std::uint32_t worker = 0; worker < kMostThreads; ++worker) {
      notes().workers[worker].base = ledger.committed[worker].size();
    }
  }

  LifeResult run(const std::function<void(const char*, double)>& progress) {
    Child child(arguments());
    pipe_.close_writer();
    last_message_ns_ = os().monotonic_ns();
    while (!time_to_kill()) {
      read_messages(1);
      progress(notes().left.load(std::memory_order_relaxed) != 0 ? "ingesting" : "relogging",
               share());
      if (os().monotonic_ns() - last_message_ns_ > kPatienceNs) {
        throw Failure(kCheckFailed, options_.log, "the ingesting process hangs", "hang");
      }
    }
    if (!done_) {
      wait_for_the_moment();
    }
    result_.moment = moment();
    const std::uint64_t killed_ns = done_ ? last_message_ns_ : os().monotonic_ns();
    const int status = child.kill_and_wait();
    while (read_messages(0)) {
    }
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
      throw Failure(kCheckFailed, options_.log,
                    "the ingesting process ended by itself, wait status " + std::to_string(status),
                    "child");
    }
    result_.busy_ns = opened_ns_ != 0 ? killed_ns - opened_ns_ : 0;
    enter_notes();
    return std::move(result_);
  }

 private:
  [[nodiscard]] Notes& notes() const { return notebook_.notes(); }

  [[nodiscard]] std::vector<std::string> arguments() const {
    std::vector<std::string> list{"keel", "demo-ingest", "--log", options_.log};
    const auto add = [&list](const char* name, std::uint64_t value) {
      list.emplace_back(name);
      list.push_back(std::to_string(value));
    };
    add("--plan-fd", static_cast<std::uint64_t>(options_.plan_fd));
    add("--notebook-fd", static_cast<std::uint64_t>(notebook_.fd()));
    add("--pipe-fd", static_cast<std::uint64_t>(pipe_.ends[1]));
    add("--seed", options_.seed);
    add("--life", options_.life);
    add("--threads", options_.threads);
    add("--budget", options_.budget.value());
    if (options_.buffered) {
      list.emplace_back("--buffered");
    }
    return list;
  }

  // How much of what this life may write it has written.
  [[nodiscard]] double share() const {
    const std::uint64_t used = notes().log_used.load(std::memory_order_relaxed);
    const double room =
        static_cast<double>(options_.budget.value()) - static_cast<double>(used_at_start_);
    return opened_ns_ == 0 || room <= 0
               ? 0
               : (static_cast<double>(used) - static_cast<double>(used_at_start_)) / room;
  }

  [[nodiscard]] bool time_to_kill() const {
    return done_ || (opened_ns_ != 0 && share() >= kill_.share);
  }

  void wait_for_the_moment() {
    const std::uint64_t started = os().monotonic_ns();
    while (kill_.in_force && notes().forcing.load(std::memory_order_relaxed) == 0 && !done_ &&
           os().monotonic_ns() - started < kForcePatienceNs) {
      read_messages(0);
    }
    // Within a force the delay must be a force's, not a transaction's.
    os().sleep_ns(kill_.in_force ? kill_.delay_ns / 8 : kill_.delay_ns);
  }

  [[nodiscard]] const char* moment() const {
    if (done_) {
      return "idle, all done";
    }
    const bool forcing = notes().forcing.load(std::memory_order_relaxed) != 0;
    if (notes().left.load(std::memory_order_relaxed) != 0) {
      return forcing ? "ingesting, in a force" : "ingesting";
    }
    return forcing ? "relogging, in a force" : "relogging";
  }

  // Waits so long for a message. False: there is none, or no more will come.
  bool read_messages(int timeout_ms) {
    struct pollfd ready {
      pipe_.ends[0], POLLIN, 0
    };
    if (timeout_ms > 0) {
      (void)::poll(&ready, 1, timeout_ms);
    }
    Message message;
    const ssize_t got = ::read(pipe_.ends[0], &message, sizeof message);
    if (got != static_cast<ssize_t>(sizeof message)) {
      // The writer is gone: killed by us, or by itself, which its wait status tells.
      done_ = done_ || got == 0;
      return false;
    }
    last_message_ns_ = os().monotonic_ns();
    take(message);
    return true;
  }

  void take(const Message& message) {
    switch (message.kind) {
      case MessageKind::kOpened: opened(message); break;
      case MessageKind::kForced: forced(message); break;
      case MessageKind::kDone: done_ = true; break;
      case MessageKind::kFailed: throw Failure(message.exit_code, "", message.text.data());
    }
    result_.journal = message.journal;
    result_.pool = message.pool;
  }

  void opened(const Message& message) {
    opened_ns_ = last_message_ns_;
    used_at_start_ = message.journal.log_used.value();
    for (std::uint32_t worker = 0; worker < kMostThreads; ++worker) {
      if (message.covered[worker] != notes().workers[worker].base) {
        throw Failure(kCheckFailed, options_.log,
                      "the next process recovered other transactions than this one did", "broken");
      }
    }
  }

  void forced(const Message& message) {
    result_.force_ns.push_back(message.force_ns);
    ledger_.acknowledged_sequence =
        std::max(ledger_.acknowledged_sequence, Sequence(message.sequence));
    for (std::uint32_t worker = 0; worker < kMostThreads; ++worker) {
      ledger_.acknowledged[worker] =
          std::max(ledger_.acknowledged[worker], message.covered[worker]);
    }
  }

  void enter_notes() {
    for (std::uint32_t worker = 0; worker < kMostThreads; ++worker) {
      const WorkerNotes& noted = notes().workers[worker];
      // Pairs with the release in Worker::note().
      const std::uint64_t count =
          std::min(noted.committed.load(std::memory_order_acquire), kMostNotes);
      for (std::uint64_t i = 1; i <= count; ++i) {
        ledger_.committed[worker].push_back({options_.life, noted.last_sequence(i)});
      }
      result_.transactions += count;
      result_.acknowledged += ledger_.acknowledged[worker] - noted.base;
    }
  }

  const LifeOptions& options_;
  const KillPlan& kill_;
  Ledger& ledger_;
  const Notebook notebook_;
  Pipe pipe_;
  LifeResult result_;
  std::uint64_t opened_ns_ = 0;
  std::uint64_t last_message_ns_ = 0;
  std::uint64_t used_at_start_ = 0;
  bool done_ = false;
};

}  // namespace

KillPlan make_kill_plan(std::uint64_t seed) {
  Random random(seed);
  KillPlan plan;
  plan.share = static_cast<double>(1 + random.below(96)) / 100;
  plan.in_force = random.one_in(2);
  plan.delay_ns = random.below(kMostDelayNs);
  return plan;
}

LifeResult live_and_die(const LifeOptions& options, const KillPlan& kill, Ledger& ledger,
                        const std::function<void(const char*, double)>& progress) {
  ledger.life = options.life;
  return Life(options, kill, ledger).run(progress);
}

}  // namespace keel::tools

#include "demo/ingest.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdint>
#include <deque>
#include <limits>
#include <thread>
#include <vector>

#include "command.h"
#include "demo/ingest_state.h"
#include "demo/ingest_worker.h"

namespace keel::tools {
namespace {

void work(IngestState& state) {
  // Not destroyed before the process is killed: the journal tracks the records in them.
  auto& workers = *new std::deque<Worker>;
  for (std::uint32_t number = 0; number < state.options.threads; ++number) {
    workers.emplace_back(state, number);
  }
  std::vector<std::thread> threads;
  for (Worker& worker : workers) {
    threads.emplace_back([&worker] { worker.run(); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (state.stopping.load(std::memory_order_relaxed)) {
    return;
  }
  require(state.force_and_acknowledge(), state.options.log);
  Message message;
  message.kind = MessageKind::kDone;
  state.send(message);
}

}  // namespace

void run_ingest(const IngestOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  try {
    work(*new IngestState(options));
  } catch (const Failure& failure) {
    send_message(options.pipe_fd, failure_message(failure));
  } catch (const std::exception& error) {
    send_message(options.pipe_fd, failure_message({kWorldFailed, "", error.what()}));
  }
  for (;;) {
    ::pause();
  }
}

void add_demo_ingest(CLI::App& parent, Context& context) {
  const auto define = [](CLI::App& app, IngestOptions& options) {
    app.group("");  // not in the help
    app.add_option("--log", options.log)->required();
    constexpr int kMostFd = std::numeric_limits<int>::max();
    add_number(app, "--plan-fd", options.plan_fd, 0, kMostFd, "")->required();
    add_number(app, "--notebook-fd", options.notebook_fd, 0, kMostFd, "")->required();
    add_number(app, "--pipe-fd", options.pipe_fd, 0, kMostFd, "")->required();
    add_number(app, "--seed", options.seed, 0, kMostNumber, "")->required();
    add_number(app, "--life", options.life, 1, std::numeric_limits<std::uint32_t>::max(), "")
        ->required();
    add_number(app, "--threads", options.threads, 1, kMostThreads, "")->required();
    add_size(app, "--budget", options.budget, "")->required();
    app.add_flag("--buffered", options.buffered);
  };
  const auto run = [](const Context&, const IngestOptions& options) -> int { run_ingest(options); };
  add_command<IngestOptions>(parent, context, "demo-ingest", "The demo's child process", define,
                             run);
}

}  // namespace keel::tools

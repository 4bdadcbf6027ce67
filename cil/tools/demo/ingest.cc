#include "demo/ingest.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <deque>
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
    app.add_option("--plan-fd", options.plan_fd)->required();
    app.add_option("--notebook-fd", options.notebook_fd)->required();
    app.add_option("--pipe-fd", options.pipe_fd)->required();
    app.add_option("--seed", options.seed)->required();
    app.add_option("--life", options.life)->required();
    app.add_option("--threads", options.threads)->required();
    add_size(app, "--budget", options.budget, "")->required();
    app.add_flag("--buffered", options.buffered);
  };
  const auto run = [](const Context&, const IngestOptions& options) -> int { run_ingest(options); };
  add_command<IngestOptions>(parent, context, "demo-ingest", "The demo's child process", define,
                             run);
}

}  // namespace keel::tools

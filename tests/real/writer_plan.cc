#include "writer_plan.h"

#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>

#include "faultfs/store.h"
#include "ledger.h"

namespace keel_test {
namespace {

std::string probe_uring() {
  struct io_uring_params params {};
  const long fd = ::syscall(__NR_io_uring_setup, 1, &params);
  if (fd < 0) {
    return std::strerror(errno);
  }
  (void)::close(static_cast<int>(fd));
  return "";
}

}  // namespace

const std::string& why_no_uring() {
  static const std::string why = probe_uring();
  return why;
}

WriterPlan WriterPlan::draw(std::uint64_t& random) {
  using faultfs::random_step;
  WriterPlan plan;
  plan.seed = random_step(random);
  plan.threads = 1 + static_cast<std::uint32_t>(random_step(random) % kLedgerThreads);
  plan.transactions = kLedgerTransactions;
  plan.depth = static_cast<std::uint32_t>(random_step(random) % 5);
  plan.uring = random_step(random) % 2 == 0 && why_no_uring().empty();
  plan.force = 1 + static_cast<std::uint32_t>(random_step(random) % 6);
  plan.buffered = random_step(random) % 4 == 0;
  return plan;
}

std::vector<std::string> WriterPlan::words() const {
  std::vector<std::string> words = {"write"};
  const auto add = [&](const char* name, const auto& value) {
    std::ostringstream out;
    out << name << '=' << value;
    words.push_back(out.str());
  };
  add("log", log);
  add("ledger", ledger);
  add("seed", seed);
  add("threads", threads);
  add("transactions", transactions);
  add("depth", depth);
  add("uring", uring);
  add("buffered", buffered);
  add("large", large);
  add("force", force);
  add("hungry_mib", hungry_mib);
  add("stall_ms", stall_ms);
  add("limited", limited);
  add("limit", limit);
  add("late", late);
  add("ignore_xfsz", ignore_xfsz);
  add("lock_memory", lock_memory);
  add("gated", gated);
  return words;
}

WriterPlan WriterPlan::from(const std::vector<std::string>& words) {
  WriterPlan plan;
  for (const std::string& word : words) {
    const auto equals = word.find('=');
    const std::string name = word.substr(0, equals);
    std::istringstream in(equals == std::string::npos ? "" : word.substr(equals + 1));
    if (name == "log") in >> plan.log;
    if (name == "ledger") in >> plan.ledger;
    if (name == "seed") in >> plan.seed;
    if (name == "threads") in >> plan.threads;
    if (name == "transactions") in >> plan.transactions;
    if (name == "depth") in >> plan.depth;
    if (name == "uring") in >> plan.uring;
    if (name == "buffered") in >> plan.buffered;
    if (name == "large") in >> plan.large;
    if (name == "force") in >> plan.force;
    if (name == "hungry_mib") in >> plan.hungry_mib;
    if (name == "stall_ms") in >> plan.stall_ms;
    if (name == "limited") in >> plan.limited;
    if (name == "limit") in >> plan.limit;
    if (name == "late") in >> plan.late;
    if (name == "ignore_xfsz") in >> plan.ignore_xfsz;
    if (name == "lock_memory") in >> plan.lock_memory;
    if (name == "gated") in >> plan.gated;
  }
  return plan;
}

}  // namespace keel_test

// keel log bench, as a user runs it. Figures are looked at for sense, never for speed.
#include <csignal>
#include <cstdint>
#include <string>

#include "binary.h"
#include "keel/base/os.h"
#include "support/memory_directory.h"
#include "support/skip_case.h"

using keel::tools::test::can_watch_children;
using keel::tools::test::run;
using keel::tools::test::run_and_interrupt;
using keel::tools::test::run_here;
using keel::tools::test::TestDirectory;
using keel::tools::test::write_file;

TEST_CASE("log bench runs each workload and gives a row") {
  const TestDirectory directory;
  const auto outcome =
      run("log bench --json --seconds 0.05 --updates 5000 --threads 2 --size 16M "
          "--dir " +
          directory.root());
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  const auto json = outcome.json();
  CHECK(json["ok"] == true);
  std::string seen;
  for (const auto& row : json["rows"]) {
    CAPTURE(row.dump());
    seen += row["workload"].get<std::string>() + " ";
    CHECK(row["commits"] > 0);
    CHECK(row["rate_per_s"] > 0);
    CHECK(row["p50_us"] <= row["p99_us"]);
    CHECK(row["p99_us"] <= row["max_us"]);
    CHECK(row["slowest_thread"] <= row["fastest_thread"]);
    CHECK(row["payload_bytes"] ==
          row["commits"].get<std::uint64_t>() * row["object_bytes"].get<std::uint64_t>());
    CHECK(row["log_bytes"] > 0);
  }
  CHECK(seen == "w1 w2 w3 w4 w4b ");
  CHECK(directory.names().empty());
}

TEST_CASE("log bench merges the hot set's updates, and opens the log that a kill has left") {
  const TestDirectory directory;
  const auto outcome =
      run("log bench --json --workload w4 --updates 20000 --size 64M --dir " + directory.root());
  CHECK(outcome.code == 0);
  const auto row = outcome.json()["rows"][0];
  CAPTURE(row.dump());
  CHECK(row["threads"] == 1);
  CHECK(row["commits"] == 20000);
  CHECK(row["forces"] == 1);
  CHECK(row["reopen_ms"] > 0);
  // Each object at most once a checkpoint; 20,000 updates hold more than any threshold lets pass.
  CHECK(row["log_bytes"] < row["payload_bytes"]);
}

TEST_CASE("log bench prints a table, with the workloads that were asked for") {
  const TestDirectory directory;
  const auto outcome =
      run("log bench --workload w1 --seconds 0.05 --threads 1 --size 4M --dir " + directory.root());
  CHECK(outcome.code == 0);
  CHECK(outcome.out.rfind("workload", 0) == 0);
  CHECK(outcome.out.find("\nw1             1     256 B") != std::string::npos);
  CHECK(outcome.out.find("w2") == std::string::npos);
}

TEST_CASE("log bench ended by a signal prints what it has, removes its log, exits with 128 + n") {
  if (!can_watch_children()) {
    keel_test::skip_case("this kernel does not list a process's children");
    return;
  }
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    CAPTURE(signal);
    const int code = 128 + signal;
    const TestDirectory directory;
    const auto outcome = run_and_interrupt(
        "log bench --json --workload w1,w2 --seconds 100 --size 4M --dir " + directory.root(),
        signal);
    CAPTURE(outcome.err);
    CHECK(outcome.code == code);
    CHECK(outcome.err.empty());
    const auto json = outcome.json();
    CHECK(json["ok"] == false);
    CHECK(json["exit"] == code);
    CHECK(json["interrupted"] == true);
    CHECK(json["rows"].size() == 1);  // Of the workload that was under way; no other was begun.
    CHECK(directory.names().empty());
  }
}

namespace {

// A signal comes with the first write of a log.
class SignalWithWrite : public keel::Os {
 public:
  unsigned writes = 0;

  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override {
    if (++writes == 1) {
      std::raise(SIGTERM);
    }
    return Os::pwritev2(fd, parts, count, offset, flags);
  }
};

}  // namespace

TEST_CASE("log bench that is interrupted while it makes its log does not make it to the end") {
  const TestDirectory directory;
  SignalWithWrite os;
  const keel::ScopedOs scope(os);
  // What the bench does not note would end this process.
  const auto before = std::signal(SIGTERM, [](int) {});
  const auto outcome = run_here({"log", "bench", "--json", "--buffered", "--workload", "w1",
                                 "--seconds", "0.05", "--size", "64M", "--dir", directory.root()});
  std::signal(SIGTERM, before);
  CHECK(outcome.code == 143);
  CHECK(outcome.json()["interrupted"] == true);
  CHECK(outcome.json()["rows"].empty());
  CHECK(os.writes <= 2);
  CHECK(directory.names().empty());
}

TEST_CASE("log bench leaves a file alone that is there already") {
  const TestDirectory directory;
  const std::string path = directory.path("keel-bench.log");
  write_file(path, "mine");
  const auto outcome = run("log bench --workload w1 --dir " + directory.root());
  CHECK(outcome.code == 4);
  CHECK(outcome.err.find("keel: " + path + ": ") == 0);
  CHECK(directory.names() == "keel-bench.log");
  CHECK(keel::tools::test::read_file(path) == "mine");
}

TEST_CASE("log bench says when there is no room for its log, and leaves nothing") {
  if (keel_test::no_memory_directory()) {
    return;
  }
  const TestDirectory directory(keel_test::kMemoryDirectory);
  const auto outcome = run(
      "log bench --json --workload w1 --buffered --size 8T --dir " + directory.root(), "", false);
  CHECK(outcome.code == 3);
  CHECK(outcome.json()["error"]["path"] == directory.path("keel-bench.log"));
  CHECK(directory.names().empty());
  CHECK(run("log bench --workload w1 --dir " + directory.path("missing")).code == 3);
}

TEST_CASE("log bench as JSON has the error of a workload that fails") {
  const TestDirectory directory;
  // The objects do not fit into a log this small.
  const auto outcome =
      run("log bench --json --workload w4 --size 1M --updates 1000 --dir " + directory.root());
  CAPTURE(outcome.out);
  CHECK(outcome.code == 3);
  const auto json = outcome.json();
  CHECK(json["ok"] == false);
  CHECK(json["exit"] == 3);
  CHECK(json["rows"].empty());
  CHECK(json["error"]["path"] == directory.path("keel-bench.log"));
  const std::string message = json["error"]["message"];
  CHECK(outcome.err.find(": " + message + "\n") != std::string::npos);
}

TEST_CASE("log bench refuses wrong values") {
  CHECK(run("log bench --workload w5").code == 2);
  CHECK(run("log bench --threads 0").code == 2);
  CHECK(run("log bench --threads -1").code == 2);
  CHECK(run("log bench --threads 257").code == 2);
  CHECK(run("log bench --updates 0x10").code == 2);
  for (const char* seconds : {"-1", "0", "3601", "nan", "inf", "1s"}) {
    CAPTURE(seconds);
    // What is taken for a number might run for ever.
    CHECK(run(std::string("log bench --seconds ") + seconds, "timeout 30").code == 2);
  }
}

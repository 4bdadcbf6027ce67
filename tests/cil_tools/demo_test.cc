#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>

#include "binary.h"
#include "support/skip_case.h"

using namespace keel::tools::test;

namespace {

std::string in(const TestDirectory& directory) { return "TMPDIR=" + directory.root(); }

}  // namespace

TEST_CASE("the demo kills, recovers, finds everything and leaves nothing behind") {
  const TestDirectory directory;
  const auto outcome = run("demo --rounds 1 --limit 4M --json", in(directory));
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  const auto json = outcome.json();
  CHECK(json["ok"] == true);
  CHECK(json["bytes"] == 4U << 20U);
  CHECK(json["kills"] >= 2);
  CHECK(json["lives"].size() == json["kills"]);
  CHECK(json["transactions"] > 0);
  CHECK(directory.names().empty());
}

TEST_CASE("the demo prints one table and its verdict, and takes a tree of odd files") {
  const TestDirectory directory;
  const TestDirectory tree;
  write_file(tree.path("empty"), "");
  write_file(tree.path("one byte"), "1");
  write_file(tree.path("large\n"), std::string((2U << 20U) + 12345, 'l'));
  REQUIRE(::symlink("/etc", tree.path("elsewhere").c_str()) == 0);
  REQUIRE(::mkfifo(tree.path("pipe").c_str(), 0600) == 0);
  const auto outcome = run("demo --rounds 1 --seed 7 --threads 2 " + tree.root(), in(directory));
  CAPTURE(outcome.err);
  CHECK(outcome.code == 0);
  CHECK(outcome.out.find("2.0 MiB in 3 files of " + tree.root() + " as 5 objects, seed 7") !=
        std::string::npos);
  CHECK(outcome.out.find("verdict       nothing lost") != std::string::npos);
  CHECK(directory.names().empty());
}

TEST_CASE("a log that the user names stays, and verify and dump can read it") {
  const TestDirectory directory;
  const std::string log = directory.path("log");
  REQUIRE(run("demo --rounds 1 --limit 1M --log " + log, in(directory)).code == 0);
  CHECK(directory.names() == "log");
  CHECK(run("log verify " + log).code == 0);
  CHECK(run("log dump " + log).code == 0);
  const std::string bytes = read_file(log);
  const auto again = run("demo --rounds 1 --limit 1M --log " + log, in(directory));
  CHECK(again.code == 4);
  CHECK(again.out.empty());
  CHECK(again.says(log + ": exists already: the demo makes its log anew"));
  CHECK(read_file(log) == bytes);
}

TEST_CASE("what the demo cannot use is one line, and nothing is left behind") {
  const TestDirectory directory;
  const TestDirectory tree;
  write_file(tree.path("file"), "");
  const auto says = [&](const std::string& arguments, const std::string& line) {
    const auto outcome = run("demo " + arguments, in(directory));
    CAPTURE(arguments);
    CAPTURE(outcome.err);
    CHECK(outcome.code == 3);
    CHECK(outcome.out.empty());
    CHECK(outcome.says(line));
  };
  says(tree.path("nix"),
       tree.path("nix") + ": not found: the tree to ingest: No such file or directory");
  says(tree.path("file"), tree.path("file") + ": not a directory");
  says(tree.root(), tree.root() + ": nothing to ingest: no readable file with any bytes");
  says("--log " + tree.path("no/log"),
       tree.path("no/log") + ": not found: open the log: No such file or directory");
  if (::geteuid() != 0) {
    std::filesystem::permissions(tree.root(), std::filesystem::perms::none);
    says(tree.root(), tree.root() + ": no permission: the tree to ingest: Permission denied");
    std::filesystem::permissions(tree.root(), std::filesystem::perms::owner_all);
  }
  CHECK(directory.names().empty());
}

TEST_CASE("a signal ends the demo at any moment and leaves nothing behind") {
  const TestDirectory directory;
  for (const char* signal : {"INT", "TERM", "HUP"}) {
    for (const char* seconds : {"0.05", "0.3", "0.6"}) {
      CAPTURE(signal);
      CAPTURE(seconds);
      const auto outcome =
          run("demo --rounds 1000 --limit 8M",
              in(directory) + " timeout --preserve-status -s " + signal + " " + seconds);
      CHECK(outcome.code > 128);
      CHECK(directory.names().empty());
    }
  }
}

TEST_CASE("a demo that was started with signals ignored, as by nohup, goes on in spite of them") {
  if (!can_watch_children()) {
    keel_test::skip_case("this kernel does not list a process's children");
    return;
  }
  const TestDirectory directory;
  for (bool sent = false; !sent;) {  // Its children may come and go unseen.
    const Outcome outcome = run_watched(
        "demo --rounds 1 --limit 1M",
        [&sent](pid_t keel, pid_t) {
          for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
            ::kill(keel, signal);
          }
          sent = true;
        },
        true, in(directory) + "; export TMPDIR; trap '' INT TERM HUP QUIT;");
    CAPTURE(outcome.err);
    REQUIRE(outcome.code == 0);
    REQUIRE(directory.names().empty());
  }
}

TEST_CASE("a reader that goes away ends the demo and leaves nothing behind") {
  const TestDirectory directory;
  (void)run("demo --rounds 3 --limit 1M", in(directory) + R"( sh -c '"$@" | { sleep 0; }' sh)");
  CHECK(directory.names().empty());
}

TEST_CASE("a demo that fails once a life has begun keeps the log, and says where it is") {
  if (!can_watch_children()) {
    keel_test::skip_case("this kernel does not list a process's children");
    return;
  }
  const TestDirectory directory;
  const std::string log = directory.path("log");
  const Outcome outcome = run_watched("demo --rounds 1000 --limit 8M --log " + log,
                                      [](pid_t, pid_t child) { ::kill(child, SIGTERM); });
  CAPTURE(outcome.err);
  CHECK(outcome.code == 1);
  CHECK(outcome.err.find(log + ": warning: the log is kept\n") != std::string::npos);
  CHECK(outcome.err.find("the ingesting process ended by itself, wait status 15\n") !=
        std::string::npos);
  CHECK(directory.names() == "log");
}

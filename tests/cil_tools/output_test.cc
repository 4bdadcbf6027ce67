#include "output.h"

#include <doctest/doctest.h>

#include "binary.h"
#include "command.h"

using namespace keel;
using namespace keel::tools;
using keel::tools::test::run;

TEST_CASE("sizes are digits and a suffix, and nothing that overflows") {
  Bytes bytes{};
  CHECK((parse_size("0", bytes) && bytes == Bytes(0)));
  CHECK((parse_size("4096", bytes) && bytes == Bytes(4096)));
  CHECK((parse_size("3k", bytes) && bytes == Bytes(3072)));
  CHECK((parse_size("64M", bytes) && bytes == Bytes(64U << 20U)));
  CHECK((parse_size("2GiB", bytes) && bytes == Bytes(std::uint64_t{2} << 30U)));
  CHECK((parse_size("1T", bytes) && bytes == Bytes(std::uint64_t{1} << 40U)));
  for (const std::string wrong : {"", "M", "-1", "1.5G", "4X", "4Mx", "4 M", "0x10",
                                  "99999999999999999999", "18446744073709551617", "9999999T"}) {
    CAPTURE(wrong);
    CHECK(!parse_size(wrong, bytes));
  }
}

TEST_CASE("whole numbers are decimal digits within their bounds, and nothing else") {
  std::uint64_t value = 7;
  for (const std::string wrong : {"", "-1", "+1", " 1", "1 ", "0x10", "1e3", "1.0", "nan",
                                  "18446744073709551616", "99999999999999999999999"}) {
    CAPTURE(wrong);
    CHECK(!parse_number(wrong, 0, kMostNumber, value));
  }
  CHECK(!parse_number("0", 1, 9, value));
  CHECK(!parse_number("10", 1, 9, value));
  CHECK(value == 7);
  CHECK((parse_number("010", 0, kMostNumber, value) && value == 10));
  CHECK((parse_number("18446744073709551615", 0, kMostNumber, value) && value == kMostNumber));
}

TEST_CASE("numbers and sizes are printed for people") {
  CHECK(human(Bytes(0)) == "0 B");
  CHECK(human(Bytes(1023)) == "1023 B");
  CHECK(human(Bytes(1536)) == "1.5 KiB");
  CHECK(human(Bytes((1U << 20U) - 1)) == "1.0 MiB");
  CHECK(grouped(999) == "999");
  CHECK(grouped(1000) == "1,000");
  CHECK(grouped(1234567) == "1,234,567");
}

TEST_CASE("a path with control characters cannot break the one line of an error") {
  CHECK(printable("a\nb\x1b[31m") == "a\\x0ab\\x1b[31m");
  const auto outcome = run("log info 'no\nsuch'");
  CHECK(outcome.code == 3);
  CHECK(outcome.says("no\\x0asuch: not found: open the log: No such file or directory"));
}

TEST_CASE("the help lists the commands and the exit codes, and knows each command") {
  const auto help = run("--help", "", false);
  CHECK(help.code == 0);
  CHECK(run("help", "", false).out == help.out);
  for (const char* word :
       {"demo", "log", "Exit codes", "4  the path is unfit", "128 + n  interrupted by signal n"}) {
    CAPTURE(word);
    CHECK(help.out.find(word) != std::string::npos);
  }
  CHECK(help.out.find("demo-ingest") == std::string::npos);
  CHECK(run("help log create", "", false).out.find("keel log create [OPTIONS] PATH") !=
        std::string::npos);
  CHECK(run("--version", "", false).out.rfind("keel ", 0) == 0);
}

TEST_CASE("a wrong line is exit code 2, one line on standard error, and JSON if it asks for it") {
  for (const char* line : {"",
                           "nix",
                           "--nix",
                           "log",
                           "log nix",
                           "log create",
                           "log create x",
                           "log create x --size",
                           "log create x --size 4X",
                           "log info",
                           "log info a b",
                           "log dump x --from minus",
                           "log dump x --from -1",
                           "log dump x --to 18446744073709551616",
                           "help nix",
                           "demo --rounds 0",
                           "demo --threads 99",
                           "demo --limit 0",
                           "demo --seed x",
                           "demo --seed -5",
                           "demo --seed 18446744073709551616",
                           "demo --threads -1",
                           "mem",
                           "mem nix",
                           "mem info x",
                           "mem bench x",
                           "mem bench --workload nix",
                           "mem bench --seconds 0",
                           "mem bench --seconds nan",
                           "mem bench --threads 0"}) {
    CAPTURE(line);
    const auto outcome = run(line, "timeout 60", false);  // What is taken might run for ever.
    CAPTURE(outcome.err);
    CHECK(outcome.code == 2);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.rfind("keel: ", 0) == 0);
    CHECK(outcome.err.find('\n') == outcome.err.size() - 1);
  }
  for (const char* line : {"log create --json", "help nix --json"}) {
    CAPTURE(line);
    const auto outcome = run(line, "", false);
    CHECK(outcome.code == 2);
    CHECK(outcome.json()["ok"] == false);
    CHECK(outcome.json()["exit"] == 2);
    CHECK(outcome.json()["error"]["code"] == "usage");
  }
}

TEST_CASE("a result that cannot be printed is a failure") {
  const auto outcome = run("--version", "exec 3>&1; f() { \"$@\" >/dev/full; }; f", false);
  CHECK(outcome.code == 3);
}

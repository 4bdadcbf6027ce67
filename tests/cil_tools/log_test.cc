#include <doctest/doctest.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "binary.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "support/memory_directory.h"
#include "support/skip_case.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel::tools::test;

namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr const char* kCreate = "log create --size 8M ";

// A log with three checkpoints: object 7 in three forms, object 8 erased, a large object 9, an
// object 10 that takes two records.
class Writer {
 public:
  explicit Writer(const std::string& path) {
    REQUIRE(run(kCreate + path).code == 0);
    JournalConfig config;
    config.buffered = buffered();
    auto opened = Journal::open(path, config, [](const RecoveredCheckpoint&) { return Status{}; });
    REQUIRE(opened.ok());
    journal_ = std::move(*opened);
    commit(seven_, "first");
    commit(seven_, "second");
    eight_.erase();
    commit(eight_);
    force();
    commit(nine_, large_);
    force();
    commit(seven_, "third");
    commit(ten_, huge_);
    force();
  }
  ~Writer() { CHECK(journal_->close().ok()); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

 private:
  void commit(ObjectItem& item, const std::string& bytes) {
    item.set(bytes.data(), bytes.size());
    commit(item);
  }
  void commit(ObjectItem& item) {
    auto transaction = journal_->begin(ObjectItem::log_bytes(huge_.size()), 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(item).ok());
    REQUIRE(transaction->commit().ok());
  }
  void force() { REQUIRE(journal_->force_all().ok()); }

  const std::string large_ = std::string(10000, 'x');
  const std::string huge_ = std::string(1200000, 'y');
  ObjectItem seven_{7}, eight_{8}, nine_{9}, ten_{10};
  std::unique_ptr<Journal> journal_;
};

// A copy of the log as it is while it is open: what a crash would leave.
std::string crashed_log(const TestDirectory& directory) {
  std::string path = directory.path("crashed");
  const Writer writer(directory.path("open"));
  std::filesystem::copy_file(directory.path("open"), path);
  return path;
}

std::uint64_t lsn_of(const std::string& path, std::size_t checkpoint) {
  return run("log dump --json " + path).json()["checkpoints"][checkpoint]["lsn"];
}

}  // namespace

TEST_CASE("a path that is no log is told apart, with one line, and not touched") {
  const TestDirectory directory;
  const std::string noise(2U << 20U, 'n');
  write_file(directory.path("noise"), noise);
  write_file(directory.path("small"), "keel");
  write_file(directory.path("empty"), "");
  REQUIRE(::symlink("noise", directory.path("link").c_str()) == 0);
  REQUIRE(::mkfifo(directory.path("pipe").c_str(), 0600) == 0);
  REQUIRE(::mkdir(directory.path("directory").c_str(), 0700) == 0);
  const std::string before = directory.names();
  struct Case {
    const char* name;
    int code;
    const char* says;
  };
  const std::vector<Case> cases{
      {"missing", 3, "not found: open the log: No such file or directory"},
      {"small/x", 3, "not found: open the log: Not a directory"},
      {"directory", 4, "not a keel log: the path is a directory"},
      {"link", 4, "not a keel log: the path is a symbolic link"},
      {"pipe", 4, "not a keel log: the path is neither a regular file nor a block device"},
      {"small", 4, "not a keel log: the file is too small to be a log, bytes (4)"},
      {"empty", 4, "not a keel log: the file is too small to be a log, bytes"},
      {"noise", 4, "not a keel log: no valid superblock in the first block, nor in the last one"}};
  for (const char* command : {"log info ", "log dump ", "log verify "}) {
    for (const Case& one : cases) {
      CAPTURE(command);
      CAPTURE(one.name);
      const std::string path = directory.path(one.name);
      const auto outcome = run(command + path);
      CAPTURE(outcome.err);
      CHECK(outcome.code == one.code);
      CHECK(outcome.says(path + ": " + one.says));
      CHECK(outcome.out.empty());
    }
  }
  const auto json = run("log info --json " + directory.path("noise")).json();
  CHECK(json["ok"] == false);
  CHECK(json["exit"] == 4);
  CHECK(json["error"]["code"] == "not a keel log");
  CHECK(json["error"]["path"] == directory.path("noise"));
  CHECK(directory.names() == before);
  CHECK(read_file(directory.path("noise")) == noise);
}

TEST_CASE("create makes a sound log, where it cannot, it leaves everything as it was") {
  const TestDirectory directory;
  const std::string path = directory.path("log");
  const auto made = run(kCreate + path + " --max-checkpoint 256K --json");
  REQUIRE(made.code == 0);
  CHECK(made.json()["log"]["file_bytes"] == 8U << 20U);
  CHECK(made.json()["log"]["max_checkpoint_bytes"] == 256U << 10U);
  CHECK(std::filesystem::file_size(path) == 8U << 20U);
  CHECK(run("log info --json " + path).json()["log"] == made.json()["log"]);
  CHECK(run("log verify " + path).code == 0);
  const std::string bytes = read_file(path);
  CHECK(run(kCreate + path).code == 4);
  CHECK(read_file(path) == bytes);
  CHECK(run(kCreate + directory.root()).code == 4);
  CHECK(run(kCreate + directory.path("no/log")).code == 3);
  CHECK(run("log create --size 1000K " + directory.path("b")).code == 2);
  CHECK(run("log create --size 4M --max-checkpoint 2M " + directory.path("b")).code == 2);
  CHECK(directory.names() == "log");
}

TEST_CASE("without memory or descriptors for a pool a command says so, and makes nothing") {
#if defined(KEEL_TEST_SANITIZED) || defined(KEEL_TEST_COVERAGE)
  keel_test::skip_case("sanitizers and coverage take descriptors and memory of their own");
#else
  const TestDirectory directory;
  const std::string log = directory.path("log");
  REQUIRE(run(kCreate + log).code == 0);
  // With one descriptor more than those that it inherits the program just starts.
  int descriptors = 4;
  const auto fewest = [&] { return "prlimit --nofile=" + std::to_string(descriptors); };
  while (run("--version", fewest(), false).code != 0) {
    REQUIRE(++descriptors < 1000);
  }
  for (const std::string& limit : {fewest(), std::string("prlimit --as=4000000000")}) {
    CAPTURE(limit);
    if (run("--version", limit, false).code != 0) {
      MESSAGE("without a limit of address space: the program does not start under one");
      continue;
    }
    for (const std::string& command : {"log info " + log, "log verify " + log, "log dump " + log,
                                       kCreate + directory.path("new")}) {
      CAPTURE(command);
      const auto outcome = run(command, limit);
      CHECK(outcome.code == 3);
      CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    }
    CHECK(directory.names() == "log");
  }
#endif
}

TEST_CASE("a full disk is one line and leaves nothing behind") {
  if (keel_test::no_memory_directory()) {
    return;
  }
  const TestDirectory directory(keel_test::kMemoryDirectory);
  const std::string path = directory.path("log");
  const auto outcome = run("log create --buffered --size 8T " + path, "", false);
  CAPTURE(outcome.err);
  CHECK(outcome.code == 3);
  CHECK(
      outcome.says(path + ": no space: allocate the log (8796093022208): No space left on device"));
  const auto json = run("log create --json --buffered --size 8T " + path, "", false).json();
  CHECK(json["error"]["code"] == "no space");
  CHECK(directory.names().empty());
}

TEST_CASE("of eight that make a log at once one does, and it is whole and private") {
  for (int round = 0; round < 3; ++round) {
    const TestDirectory directory;
    const std::string path = directory.path("log");
    std::string line = "umask 0; ";
    for (int i = 0; i < 8; ++i) {
      line += "(\"$KEEL\" log create " + path + (buffered() ? " --buffered" : "") +
              " --size 1M > /dev/null 2>&1; echo $?) & ";
    }
    const std::string codes = directory.path("codes");
    const std::string command = "KEEL=" KEEL_BINARY "; { " + line + "wait; } > " + codes;
    REQUIRE(std::system(command.c_str()) == 0);
    const std::string said = read_file(codes);
    CHECK(std::count(said.begin(), said.end(), '0') == 1);
    CHECK(std::count(said.begin(), said.end(), '4') == 7);
    CHECK(directory.names() == "codes log");
    struct stat found {};
    REQUIRE(::stat(path.c_str(), &found) == 0);
    CHECK((found.st_mode & 07777U) == 0600);
    CHECK(run("log verify " + path).code == 0);
  }
}

TEST_CASE("a log that others may write to is read with a warning") {
  const TestDirectory directory;
  const std::string path = directory.path("log");
  REQUIRE(run(kCreate + path).code == 0);
  for (const auto& [mode, why] :
       {std::pair{0620U, "the log's group may write to it (chmod g-w ends that)"},
        std::pair{0602U, "anybody may write to the log (chmod o-w ends that)"}}) {
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    for (const char* command : {"log info ", "log dump ", "log verify "}) {
      const auto outcome = run(command + path);
      CHECK(outcome.code == 0);
      CHECK(outcome.says(path + ": warning: " + why + "; a journal refuses to open it"));
    }
    struct stat found {};
    REQUIRE(::stat(path.c_str(), &found) == 0);
    CHECK((found.st_mode & 07777U) == mode);
  }
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
  CHECK(run("log verify " + path).err.empty());
}

TEST_CASE("a log that a journal has open is refused to everybody else") {
  const TestDirectory directory;
  const std::string path = directory.path("log");
  const Writer writer(path);
  for (const char* command : {"log info ", "log dump ", "log verify "}) {
    CAPTURE(command);
    const auto outcome = run(command + path);
    CAPTURE(outcome.err);
    CHECK(outcome.code == 4);
    CHECK(outcome.err.find(path + ": in use") != std::string::npos);
  }
}

TEST_CASE("a dump shows what was written") {
  const TestDirectory directory;
  const std::string path = directory.path("log");
  { const Writer writer(path); }
  const auto dump = run("log dump --json --bytes 6 " + path);
  REQUIRE(dump.code == 0);
  const auto json = dump.json();
  const auto& checkpoints = json["checkpoints"];
  REQUIRE(checkpoints.size() == 3);
  CHECK(checkpoints[0]["sequence"] == 1);
  CHECK(checkpoints[0]["lsn"] == 0);
  CHECK(checkpoints[1]["lsn"] == checkpoints[0]["bytes"]);
  const auto& first = checkpoints[0]["items"];
  REQUIRE(first.size() == 2);
  CHECK(first[0]["object"] == 7);
  CHECK(first[0]["operation"] == "write");
  CHECK(first[0]["region_bytes"] == std::vector<int>{24, 6});
  CHECK(first[0]["hex"][1] == "7365636f6e64");  // "second": merged over "first"
  CHECK(first[1]["object"] == 8);
  CHECK(first[1]["operation"] == "erase");
  CHECK(checkpoints[1]["items"][0]["object"] == 9);
  CHECK(checkpoints[1]["items"][0]["region_bytes"] == std::vector<int>{24, 10000});
  CHECK(checkpoints[2]["items"][0]["hex"][1] == "7468697264");  // "third"
  CHECK(checkpoints[2]["items"][1]["object"] == 10);
  CHECK(checkpoints[2]["records"] == 2);
  CHECK(json["report"]["end"] == "clean");
  CHECK(json["report"]["items"] == 5);
  CHECK(json["ok"] == true);

  const auto middle = run("log dump --json --from 2 --to 2 " + path).json();
  REQUIRE(middle["checkpoints"].size() == 1);
  CHECK(middle["checkpoints"][0]["sequence"] == 2);
  CHECK(middle["report"]["checkpoints"] == 3);

  const auto text = run("log dump --bytes 6 " + path);
  CHECK(text.code == 0);
  CHECK(text.out.find("object 8: erase, regions of 24 bytes") != std::string::npos);
  CHECK(text.out.find("|second|") != std::string::npos);
}

namespace {

// As small as an item can be.
class EmptyItem : public LogItem {
 public:
  EmptyItem() : LogItem(kFirstClientType) {}

 protected:
  void size(ItemSize& size) const override { size.region(0); }
  void format(ItemFormatter& formatter) const override { formatter.copy("", 0); }
};

// A log with one checkpoint of so many of them.
void write_items(const std::string& path, std::size_t count) {
  constexpr std::size_t kInTransaction = 1000;
  REQUIRE(run("log create --size 32M " + path).code == 0);
  JournalConfig config;
  config.buffered = buffered();
  config.push_threshold = Bytes(4U << 20U);
  auto opened = Journal::open(path, config, [](const RecoveredCheckpoint&) { return Status{}; });
  REQUIRE(opened.ok());
  std::vector<EmptyItem> items(count);
  for (std::size_t i = 0; i < count; i += kInTransaction) {
    auto transaction = (*opened)->begin(0, kInTransaction);
    REQUIRE(transaction.ok());
    for (std::size_t k = 0; k < kInTransaction; ++k) {
      REQUIRE(transaction->log(items[i + k]).ok());
    }
    REQUIRE(transaction->commit().ok());
  }
  REQUIRE((*opened)->close().ok());
  opened->reset();
}

// Of this process's resident memory. False: the kernel cannot, or the sanitizers' own is in it.
bool reset_peak() {
#if defined(KEEL_TEST_SANITIZED)
  return false;
#else
  (void)::malloc_trim(0);  // What was freed would be used again, and not be seen.
  std::ofstream file("/proc/self/clear_refs");
  return (file << '5').flush().good();
#endif
}

std::uint64_t peak_bytes() {
  const std::string status = read_file("/proc/self/status");
  const std::size_t at = status.find("VmHWM:");
  REQUIRE(at != std::string::npos);
  return std::strtoull(status.c_str() + at + 6, nullptr, 10) * 1024;
}

}  // namespace

TEST_CASE("a dump as JSON of a checkpoint of many items takes no more memory than one as text") {
  if (!reset_peak()) {
    keel_test::skip_case("resident memory cannot be measured here");
    return;
  }
  constexpr std::size_t kItems = 200'000;
  constexpr std::uint64_t kNoise = 32U << 20U;  // Gathered, the items would take over 80 MiB.
  const TestDirectory directory;
  const std::string path = directory.path("log");
  write_items(path, kItems);
  (void)reset_peak();
  CHECK(run_here({"log", "dump", path, "--buffered"}).code == 0);
  const std::uint64_t as_text = peak_bytes();
  (void)reset_peak();
  const Outcome dump = run_here({"log", "dump", "--json", path, "--buffered"});
  CHECK(dump.code == 0);
  CHECK(peak_bytes() < as_text + kNoise);
  const auto json = dump.json();
  REQUIRE(json["checkpoints"].size() == 1);
  const auto& items = json["checkpoints"][0]["items"];
  CHECK(items.size() == kItems);
  CHECK(items.back() == nlohmann::json{{"type", 16}, {"region_bytes", {0}}});
}

TEST_CASE("verify tells a torn end, which is a note, from damage, which is not") {
  const TestDirectory directory;
  const std::string path = crashed_log(directory);
  const std::uint64_t data = 2 * kBlock;
  CHECK(run("log verify " + path).code == 0);

  const std::string torn = directory.path("torn");
  std::filesystem::copy_file(path, torn);
  damage(torn, data + lsn_of(path, 2) + 1200000);  // its second record
  const auto torn_outcome = run("log verify --json " + torn);
  CHECK(torn_outcome.code == 0);
  CHECK(torn_outcome.json()["ok"] == true);
  CHECK(torn_outcome.json()["report"]["end"] == "torn");
  CHECK(torn_outcome.json()["report"]["last_sequence"] == 2);

  const std::string rotten = directory.path("rotten");
  std::filesystem::copy_file(path, rotten);
  damage(rotten, data + lsn_of(path, 1) + 200);
  const auto damaged = run("log verify --json " + rotten);
  CHECK(damaged.code == 1);
  CHECK(damaged.json()["ok"] == false);
  CHECK(damaged.json()["report"]["end"] == "damaged");
  CHECK(damaged.json()["report"]["last_sequence"] == 1);

  // `info` has the same report.
  for (const std::string& log : {path, torn, rotten}) {
    CAPTURE(log);
    const auto info = run("log info --json " + log);
    CHECK(info.code == (log == rotten ? 1 : 0));
    CHECK(info.json()["ok"] == (log != rotten));
    auto told = info.json()["report"];
    auto proven = run("log verify --json " + log).json()["report"];
    told.erase("duration_ns");
    proven.erase("duration_ns");
    CHECK(told == proven);
  }
  CHECK(run("log info " + torn).out.find("missing         from sequence 3 on") !=
        std::string::npos);
  CHECK(run("log dump " + rotten).code == 1);
  CHECK(run("log dump --json " + rotten).json()["checkpoints"].size() == 1);
}

TEST_CASE("one superblock or state slot is enough to read a log, both gone are not") {
  const TestDirectory directory;
  const std::string path = crashed_log(directory);
  const std::uint64_t size = std::filesystem::file_size(path);
  damage(path, 40);
  const auto info = run("log info --json " + path);
  CHECK(info.code == 0);
  CHECK(info.json()["log"]["valid_superblocks"] == 1);
  CHECK(
      info.says(path + ": warning: one of the two superblocks is damaged; the other one is used"));
  CHECK(run("log verify " + path).code == 1);
  CHECK(run("log dump " + path).code == 0);

  damage(path, kBlock + 40);
  const auto verify = run("log verify --json " + path);
  CHECK(verify.json()["log"]["valid_states"] == 1);
  CHECK(verify.json()["report"]["checkpoints"] == 3);

  damage(path, size - 2 * kBlock + 40);
  const auto no_state = run("log info " + path);
  CHECK(no_state.code == 1);
  CHECK(no_state.says(path + ": damaged: both state slots are damaged"));

  damage(path, size - kBlock + 40);
  const auto nothing = run("log verify " + path);
  CHECK(nothing.code == 4);
  CHECK(nothing.says(
      path + ": not a keel log: no valid superblock in the first block, nor in the last one"));
}

TEST_CASE("a log cut short is damaged, not read past its end") {
  const TestDirectory directory;
  const std::string path = crashed_log(directory);
  std::filesystem::resize_file(path, 2U << 20U);
  const auto outcome = run("log verify " + path);
  CAPTURE(outcome.err);
  CHECK(outcome.code == 1);
  CHECK(outcome.err.find("the file is shorter than its superblock says") != std::string::npos);
}

// keel log recover: all of a log as files, or nothing.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

#include "binary.h"
#include "interrupt.h"
#include "keel/base/os.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "output.h"
#include "recovered_directory.h"
#include "support/as_user.h"
#include "support/skip_case.h"

using namespace keel;
using namespace keel::tools::test;

namespace {

// An item of a client's own type.
class NoteItem : public LogItem {
 public:
  explicit NoteItem(std::string text) : LogItem(77), text_(std::move(text)) {}

 protected:
  void size(ItemSize& size) const override {
    size.region(text_.size());
    size.region(1);
  }
  void format(ItemFormatter& formatter) const override {
    formatter.copy(text_.data(), text_.size());
    formatter.copy("!", 1);
  }

 private:
  std::string text_;
};

const std::string kLarge(300000, 'z');

// Four checkpoints: object 1 twice, object 2 written and erased, a note, a large object 0xab.
void fill(const std::string& path) {
  REQUIRE(run("log create --size 8M " + path).code == 0);
  JournalConfig config;
  config.buffered = buffered();
  auto opened = Journal::open(path, config, [](const RecoveredCheckpoint&) { return Status{}; });
  REQUIRE(opened.ok());
  Journal& journal = **opened;
  ObjectItem one(1), two(2), three(3), large(0xab);
  NoteItem note("note");
  const auto commit = [&journal](LogItem& item) {
    auto transaction = journal.begin(kLarge.size() + 100, 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(item).ok());
    REQUIRE(transaction->commit().ok());
  };
  const auto set = [&commit](ObjectItem& item, const std::string& bytes) {
    item.set(bytes.data(), bytes.size());
    commit(item);
  };
  set(one, std::string(9000, 'o'));
  set(two, "two");
  set(three, "three");  // holds the tail, so that no checkpoint leaves the log
  REQUIRE(journal.force_all().ok());
  set(one, "newest");
  two.erase();
  commit(two);
  REQUIRE(journal.force_all().ok());
  commit(note);
  REQUIRE(journal.force_all().ok());
  set(large, kLarge);
  REQUIRE(journal.force_all().ok());
  REQUIRE(journal.close().ok());
}

std::uint64_t lsn_of(const std::string& path, std::size_t checkpoint) {
  return run("log dump --json " + path).json()["checkpoints"][checkpoint]["lsn"];
}

std::string names_in(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : " ") + name;
  }
  return text;
}

constexpr const char* kOne = "0000000000000001";
constexpr const char* kThree = "0000000000000003";
constexpr const char* kLargeName = "00000000000000ab";

}  // namespace

TEST_CASE("log recover writes the newest state of each object, and other items as JSON lines") {
  const TestDirectory directory;
  const std::string log = directory.path("log"), to = directory.path("to");
  fill(log);
  const std::string before = read_file(log);
  const Outcome outcome = run("log recover " + log + " --json --to-directory " + to);
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  const auto json = outcome.json();
  CHECK(json["ok"] == true);
  CHECK(json["objects"] == 3);
  CHECK(json["other_items"] == 1);
  CHECK(json["salvaged"] == false);
  CHECK(json["report"]["end"] == "clean");
  CHECK(json["report"]["lost_lsn_range"].is_null());
  CHECK(names_in(to) == std::string(kOne) + " " + kThree + " " + kLargeName + " items.jsonl");
  CHECK(read_file(to + "/" + kOne) == "newest");
  CHECK(read_file(to + "/" + kLargeName) == kLarge);
  const auto item = nlohmann::json::parse(read_file(to + "/items.jsonl"));
  CHECK(item["sequence"] == 3);
  CHECK(item["type"] == 77);
  CHECK(item["regions"] == nlohmann::json({"6e6f7465", "21"}));
  CHECK(directory.names() == "log to");
  CHECK(read_file(log) == before);
}

TEST_CASE(
    "log recover takes an empty directory as it is, and refuses anything else that is there") {
  const TestDirectory directory;
  const std::string log = directory.path("log"), to = directory.path("to");
  fill(log);
  std::filesystem::create_directory(to);
  REQUIRE(::chmod(to.c_str(), 0751) == 0);
  CHECK(run("log recover " + log + " --to-directory " + to + "/").code == 0);
  struct stat found {};
  REQUIRE(::stat(to.c_str(), &found) == 0);
  CHECK((found.st_mode & 07777U) == 0751);
  Outcome outcome = run("log recover " + log + " --to-directory " + to);
  CHECK(outcome.code == 4);
  CHECK(outcome.says(to + ": the directory is not empty"));
  outcome = run("log recover " + log + " --to-directory " + log);
  CHECK(outcome.code == 4);
  CHECK(outcome.says(log + ": there is something there that is no directory"));
  outcome = run("log recover " + log + " --to-directory " + directory.path("no/where"));
  CHECK(outcome.code == 3);
  CHECK(directory.names() == "log to");
}

TEST_CASE("log recover says what is wrong with a directory that it cannot look at or stand in") {
  const TestDirectory directory;
  const std::string log = directory.path("log");
  fill(log);
  const std::string too_long = directory.path(std::string(300, 'n'));
  Outcome outcome = run("log recover " + log + " --to-directory " + too_long);
  CHECK(outcome.code == 3);
  CHECK(outcome.says(too_long + ": system call failed: look at the directory: File name too long"));
}

TEST_CASE("log recover begins nothing where it may not look or could not sync the new name") {
  if (keel_test::have_no_plain_user()) {
    return;
  }
  const TestDirectory directory;
  REQUIRE(::chmod(directory.root().c_str(), 0711) == 0);
  const std::string above = directory.path("above"), to = above + "/to";
  std::filesystem::create_directory(above);
  if (keel_test::is_root()) {
    REQUIRE(::chown(above.c_str(), keel_test::kNobody, keel_test::kNobody) == 0);
  }
  struct Case {
    unsigned mode;
    std::string why;
  };
  for (const Case& one :
       {Case{0600U, "look at the directory"}, Case{0300U, "open the directory above"}}) {
    CAPTURE(one.mode);
    REQUIRE(::chmod(above.c_str(), one.mode) == 0);
    const std::string line = to + ": no permission: " + one.why + ": Permission denied";
    const auto ending = keel_test::run_as_plain_user([&] {
      try {
        const tools::RecoveredDirectory made(to);
      } catch (const tools::Failure& failure) {
        ::_exit(failure.line() == line && failure.exit_code() == 3 ? 0 : 1);
      }
      ::_exit(2);
    });
    REQUIRE(::chmod(above.c_str(), 0700) == 0);
    CHECK(ending.exit_code == 0);
    CHECK(std::filesystem::is_empty(above));
  }
}

TEST_CASE("log recover refuses at once a directory that another one cannot take the place of") {
  const TestDirectory directory;
  const std::string log = directory.path("log"), to = directory.path("to");
  fill(log);
  std::filesystem::create_directory(to);
  const auto refuses = [&](const std::string& name, const std::string& before,
                           const std::string& why) {
    CAPTURE(name);
    const Outcome outcome = run("log recover " + log + " --to-directory " + name, before);
    CAPTURE(outcome.err);
    CHECK(outcome.code == 4);
    CHECK(outcome.err.find(": " + why + "\n") != std::string::npos);
    CHECK(directory.names() == "log to");
    CHECK(names_in(to).empty());
  };
  for (const char* name : {".", "./", "../to/.", "''"}) {
    refuses(name, "cd " + to + " &&", "the directory must be named as the one above it knows it");
  }
  // As a user's own mounts, of another file system and of the same one.
  for (const std::string& mount : {std::string("-t tmpfs none "), "--bind " + to + " "}) {
    const std::string before =
        "unshare --user --map-root-user --mount sh -c 'mount " + mount + to + R"( && "$@"' sh)";
    if (std::system((before + " true 2> " + directory.path("said")).c_str()) != 0) {
      keel_test::skip_case("this user may not mount: " + read_file(directory.path("said")));
      return;
    }
    std::filesystem::remove(directory.path("said"));
    refuses(to, before, "a mount point: name a directory in it");
  }
}

TEST_CASE("log recover refuses damage and leaves nothing, --salvage writes what is before") {
  const TestDirectory directory;
  const std::string log = directory.path("log"), to = directory.path("to");
  fill(log);
  damage(log, 2 * 4096 + lsn_of(log, 1) + 200);
  Outcome outcome = run("log recover " + log + " --json --to-directory " + to);
  CHECK(outcome.code == 1);
  CHECK(outcome.json()["ok"] == false);
  CHECK(outcome.err.find("lost for sure: what was stable from LSN") != std::string::npos);
  CHECK(directory.names() == "log");
  outcome = run("log recover " + log + " --json --salvage --to-directory " + to);
  CHECK(outcome.code == 0);
  CHECK(outcome.json()["salvaged"] == true);
  CHECK(outcome.json()["report"]["first_missing_sequence"] == 2);
  CHECK(outcome.json()["report"]["lost_lsn_range"].size() == 2);
  CHECK(names_in(to) == std::string(kOne) + " 0000000000000002 " + kThree);
  CHECK(read_file(to + "/" + kOne) == std::string(9000, 'o'));
}

namespace {

// A log as a journal that is killed leaves it.
void fill_and_kill(const std::string& path, const std::string& size = "8M") {
  REQUIRE(run("log create --size " + size + " " + path).code == 0);
  JournalConfig config;
  config.buffered = buffered();
  auto opened = Journal::open(path, config, [](const RecoveredCheckpoint&) { return Status{}; });
  REQUIRE(opened.ok());
  ObjectItem one(1);
  one.set("one", 3);
  auto transaction = (*opened)->begin(100, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(one).ok());
  REQUIRE((*opened)->force(*transaction->commit()).ok());
  const std::string killed = path + ".killed";
  std::filesystem::copy_file(path, killed);
  REQUIRE((*opened)->close().ok());
  opened->reset();
  std::filesystem::rename(killed, path);
}

// Reads that meet `bad` fail, and the first of those that begin in `signals` brings a SIGINT.
class TroubledReads : public Os {
 public:
  std::uint64_t bad = UINT64_MAX;
  struct {
    std::uint64_t from = UINT64_MAX, to = UINT64_MAX;
  } signals;
  std::atomic<unsigned> reads{0};  // of those

  ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                  int flags) override {
    std::uint64_t end = offset;
    for (int i = 0; i < count; ++i) {
      end += parts[i].iov_len;
    }
    if (offset <= bad && bad < end) {
      return -EIO;
    }
    if (offset >= signals.from && offset < signals.to && ++reads == 1) {
      ::kill(::getpid(), SIGINT);
    }
    return Os::preadv2(fd, parts, count, offset, flags);
  }
};

std::uint64_t head_of(const std::string& log) {
  return run("log info --json " + log).json()["report"]["head_lsn"];
}

}  // namespace

TEST_CASE("log recover of a log whose next block cannot be read claims no loss that nobody knows") {
  const TestDirectory directory;
  const std::string log = directory.path("log");
  fill_and_kill(log);
  TroubledReads troubled;
  troubled.bad = 2 * 4096 + head_of(log);
  const ScopedOs scope(troubled);
  const Outcome outcome = run_here(
      {"log", "recover", log, "--buffered", "--salvage", "--to-directory", directory.path("to")});
  CHECK(outcome.code == 0);
  CHECK(outcome.err.find("; nothing is known to be lost") != std::string::npos);
  CHECK(outcome.out.find("lost            nothing that is known; what stands at the head cannot "
                         "be read") != std::string::npos);
  CHECK(outcome.out.find("what was stable") == std::string::npos);
}

TEST_CASE("log recover keeps objects that the log holds only in part apart from whole ones") {
  const TestDirectory directory;
  const std::string log = directory.path("log"), to = directory.path("to");
  REQUIRE(run("log create --size 8M " + log).code == 0);
  JournalConfig config;
  config.buffered = buffered();
  auto opened = Journal::open(log, config, [](const RecoveredCheckpoint&) { return Status{}; });
  REQUIRE(opened.ok());
  Journal& journal = **opened;
  std::string text(10000, 'h'), whole(9000, 'w'), gone(50, 'g');
  ObjectItem part(1), both(2), erased(3);
  const auto commit = [&journal](ObjectItem& item) {
    auto transaction = journal.begin(ObjectItem::log_bytes(10000), 1);
    REQUIRE(transaction.ok());
    REQUIRE(transaction->log(item).ok());
    REQUIRE(journal.force(*transaction->commit()).ok());
  };
  const auto bytes_of = [](const std::string& of) { return std::as_bytes(std::span(of)); };
  part.attach(bytes_of(text));  // holds the tail, so that no checkpoint leaves the log
  text.replace(100, 5, "first");
  part.mark(100, 5);
  commit(part);
  both.set(bytes_of(whole));
  commit(both);
  REQUIRE(journal.release(both));
  both.clean();
  whole.replace(8000, 3, "new");
  both.mark(8000, 3);
  commit(both);
  erased.attach(bytes_of(gone));
  erased.mark(0, 3);
  commit(erased);
  erased.erase();
  commit(erased);
  opened->reset();  // closed, and the log let go of
  const auto json = run("log recover " + log + " --json --to-directory " + to).json();
  CHECK(json["objects"] == 2);
  CHECK(json["partial_objects"] == 1);
  const std::string partial = std::string(kOne) + ".partial";
  CHECK(names_in(to) == partial + " " + kOne + ".ranges 0000000000000002");
  CHECK(read_file(to + "/" + kOne + ".ranges") == "100 5\n");
  std::string holes(10000, '\0');
  holes.replace(100, 5, "first");
  CHECK((read_file(to + "/" + partial) == holes));
  CHECK((read_file(to + "/0000000000000002") == whole));
  const Outcome dump = run("log dump " + log);
  CHECK(dump.out.find("object 1: write-ranges, 1 ranges of 10000 bytes: 100+5") !=
        std::string::npos);
  const auto dumped = run("log dump --json " + log).json()["checkpoints"][0]["items"][0];
  CHECK(dumped["operation"] == "write-ranges");
  CHECK(dumped["ranges"][0][0] == 100);
  CHECK(dumped["ranges"][0][1] == 5);
}

namespace {

// A checkpoint of one object, id 5.
struct OneObject {
  explicit OneObject(const std::string& bytes) : header{5, bytes.size(), 1} {
    regions[0].rest = std::as_bytes(std::span(header));
    regions[1].rest = std::as_bytes(std::span(bytes.data(), bytes.size()));
    checkpoint.items = std::span(&item, 1);
  }
  const std::uint64_t header[3];
  RecoveredRegion regions[2];
  RecoveredItem item{1, regions};
  RecoveredCheckpoint checkpoint;
};

}  // namespace

TEST_CASE("a full disk ends log recover with one line, and leaves nothing") {
  const TestDirectory directory;
  const std::string bytes(100000, 'b');
  const OneObject object(bytes);
  // A limit on file sizes is a full disk that needs no disk.
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto old_action = ::signal(SIGXFSZ, SIG_IGN);
  std::string line;
  {
    tools::RecoveredDirectory made(directory.path("to"));
    const struct rlimit small { 65536, before.rlim_max };
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    try {
      made.add(object.checkpoint);
    } catch (const tools::Failure& failure) {
      line = failure.line();
      CHECK(failure.exit_code() == 3);
    }
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  }
  (void)::signal(SIGXFSZ, old_action);
  CHECK(line.find(directory.path("to") + ": ") == 0);
  CHECK(line.find("write an object's file") != std::string::npos);
  CHECK(line.find('\n') == std::string::npos);
  CHECK(directory.names().empty());
}

TEST_CASE(
    "an interrupted recovery ends with 128 + signal and leaves nothing, before and after the last "
    "item") {
  const TestDirectory directory;
  const std::string to = directory.path("to");
  const std::string bytes = "bytes";
  const OneObject object(bytes);
  const RecoveredCheckpoint& checkpoint = object.checkpoint;
  const UsualSignals usual;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    for (const bool at_the_end : {false, true}) {
      CAPTURE(signal);
      const tools::Interrupt interrupt;
      tools::RecoveredDirectory made(to);
      made.add(checkpoint);
      CHECK(made.objects() == 1);
      ::raise(signal);
      try {
        at_the_end ? made.publish() : made.add(checkpoint);
        FAIL("not interrupted");
      } catch (const tools::Failure& failure) {
        CHECK(failure.exit_code() == 128 + signal);
      }
      CHECK_FALSE(std::filesystem::exists(to));
    }
  }
  CHECK(directory.names().empty());
  tools::RecoveredDirectory made(to);
  made.add(checkpoint);
  const tools::Interrupt fresh;
  made.publish();
  CHECK(read_file(to + "/0000000000000005") == bytes);
}

TEST_CASE("a signal that was ignored before a command stays ignored: nohup") {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    CAPTURE(signal);
    const auto before = std::signal(signal, SIG_IGN);
    {
      const tools::Interrupt interrupt;
      ::raise(signal);
      CHECK_FALSE(tools::Interrupt::came());
    }
    CHECK((std::signal(signal, before) == SIG_IGN));
  }
}

TEST_CASE("log recover ends soon after a signal also while it looks for what a crash has left") {
  const TestDirectory directory;
  const std::string log = directory.path("log");
  fill_and_kill(log, "128M");
  TroubledReads troubled;
  // Half of the log is looked through, in reads of 4 MiB; five of them at most are ahead. So the
  // signal does not come before the last item has been handed over, which would mind it too.
  const std::uint64_t head = 2 * 4096 + head_of(log);
  troubled.signals = {head + (24U << 20U), head + (64U << 20U)};
  const ScopedOs scope(troubled);
  const Outcome outcome =
      run_here({"log", "recover", log, "--buffered", "--to-directory", directory.path("to")});
  CHECK(outcome.code == 130);
  CHECK(outcome.says("interrupted; nothing was left behind"));
  CHECK(directory.names() == "log");
  CHECK(troubled.reads.load() > 0);
  CHECK(troubled.reads.load() <= 6);
}

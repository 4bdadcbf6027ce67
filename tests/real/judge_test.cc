// The judge of all campaigns, given logs that hold less than was promised, or something else: it
// must be able to fail. A log here is made by a journal, and the ledger tells of another one.
#include "judge.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "environment.h"
#include "keel/base/check.h"
#include "keel/cil/journal.h"
#include "keel/cil/log_file.h"
#include "keel/cil/object_item.h"
#include "support/skip_case.h"

using namespace keel;
using namespace keel_test;

namespace {

// An object and its version.
using Change = std::pair<std::uint32_t, Version>;
using Changes = std::vector<Change>;

std::string content(Version version) {
  std::string bytes(size_of(version), '\0');
  fill_content(version, bytes.data(), bytes.size());
  return bytes;
}

// True, and the case is skipped, where no log can be made.
bool have_no_direct_io() {
  const std::string why = why_no_direct_io(Scratch().path());
  if (!why.empty()) {
    skip_case(why);
  }
  return !why.empty();
}

// What one writer thread did by the ledger, and what its log holds.
class Life {
 public:
  Life() {
    const auto made = create_log(log(), {.size = kMinLogBytes});
    KEEL_CHECK(made.ok(), "a log");
    auto opened = Journal::open(log(), {}, [](const RecoveredCheckpoint&) { return Status{}; });
    KEEL_CHECK(opened.ok(), "a journal");
    journal_ = std::move(*opened);
    for (std::size_t id = 0; id < kLedgerObjects; ++id) {
      objects_.push_back(std::make_unique<ObjectItem>(id));
    }
  }

  // A transaction, in a checkpoint of its own.
  void commit(const Changes& changes) { note(changes, write(changes)); }
  // One of which the log holds something else.
  void commit(const Changes& changes, const Changes& written) { note(changes, write(written)); }
  // One that the log does not hold.
  void lose(const Changes& changes) { note(changes, ++last_); }
  // One that was killed in commit(), before its sequence was known.
  void commit_unknown(const Changes& changes, const Changes& written) {
    (void)write(written);
    note(changes, 0);
  }
  // The last one is home too, or said to be.
  void bring_home(Change change) { ledger_->promises.home[change.first] = change.second; }
  void release(std::uint32_t id) { (void)journal_->release(*objects_[id]); }

  // Of all sequences, promised.
  Verdict judged(Reading reading = Reading::kScan, bool lied = false) {
    ledger_->promises.forced = last_;
    return judged_unforced(reading, lied);
  }
  Verdict judged_unforced(Reading reading = Reading::kScan, bool lied = false) {
    if (journal_ != nullptr) {
      const Status closed = journal_->close();
      KEEL_CHECK(closed.ok(), "close");
      journal_.reset();
    }
    return judge(log(), *ledger_, ledger_.promises(), reading, lied);
  }
  // Flips a bit of the version's bytes, wherever the log has them.
  void damage(Version version) {
    KEEL_CHECK(journal_ == nullptr, "the log is closed");
    std::ifstream in(log(), std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    const std::string wanted = content(version).substr(0, 32);
    std::size_t found = 0;
    for (auto at = bytes.find(wanted); at != std::string::npos; at = bytes.find(wanted, at)) {
      bytes[at] = static_cast<char>(bytes[at] ^ 1);
      ++found;
    }
    KEEL_CHECK(found != 0, "the version in the log");
    std::ofstream(log(), std::ios::binary) << bytes;
  }

 private:
  [[nodiscard]] std::string log() const { return scratch_ / "log"; }

  std::uint64_t write(const Changes& changes) {
    std::vector<std::string> bytes;
    std::size_t sum = 0;
    for (const auto& [id, version] : changes) {
      bytes.push_back(content(version));
      sum += ObjectItem::log_bytes(bytes.back().size());
    }
    auto transaction = journal_->begin(sum, static_cast<std::uint32_t>(changes.size()));
    KEEL_CHECK(transaction.ok(), "begin");
    for (std::size_t i = 0; i < changes.size(); ++i) {
      ObjectItem& object = *objects_[changes[i].first];
      if (is_erasure(changes[i].second)) {
        object.erase();
      } else {
        object.set(bytes[i].data(), bytes[i].size());
      }
      const Status logged = transaction->log(object);
      KEEL_CHECK(logged.ok(), "log");
    }
    const auto sequence = transaction->commit();
    KEEL_CHECK(sequence.ok(), "commit");
    const Status forced = journal_->force(*sequence);
    KEEL_CHECK(forced.ok(), "force");
    return last_ = sequence->value();
  }

  void note(const Changes& changes, std::uint64_t sequence) {
    LedgerThread& thread = ledger_->threads[0];
    LedgerTransaction& one = thread.transactions[thread.begun];
    one.sequence = sequence;
    for (std::size_t i = 0; i < changes.size(); ++i) {
      one.objects[i] = changes[i].first;
      one.versions[i] = changes[i].second;
    }
    ++thread.begun;
  }

  Scratch scratch_;
  LedgerFile ledger_{scratch_ / "ledger"};
  std::vector<std::unique_ptr<ObjectItem>> objects_;  // outlive the journal
  std::unique_ptr<Journal> journal_;
  std::uint64_t last_ = 0;
};

// The beginning of all: three objects, two of them twice.
void begin(Life& life) {
  life.commit({{0, 1}, {1, 2}});
  life.commit({{1, 3}, {2, 4}});
}

constexpr Reading kReadings[] = {Reading::kScan, Reading::kOpen};

}  // namespace

TEST_CASE("the judge: a log that holds what the ledger says is right, however it is read") {
  if (have_no_direct_io()) {
    return;
  }
  for (const Reading reading : kReadings) {
    for (const bool lied : {false, true}) {
      Life life;
      begin(life);
      life.commit({{0, 13}, {2, 5}});  // an erasure
      life.commit({{3, 6}});
      life.bring_home({3, 6});
      life.release(3);
      const Verdict verdict = life.judged(reading, lied);
      CHECK_MESSAGE(verdict.ok(), verdict.what);
      CHECK(verdict.now[0] == 13);
      CHECK(verdict.now[1] == 3);
      CHECK(verdict.now[3] == 6);
    }
  }
}

TEST_CASE("the judge: a sequence that was promised and is cut off is lost") {
  if (have_no_direct_io()) {
    return;
  }
  for (const Reading reading : kReadings) {
    Life life;
    begin(life);
    life.lose({{0, 5}});
    CHECK(life.judged(reading).fault == Fault::kLost);
  }
  Life life;
  begin(life);
  life.lose({{0, 5}});
  CHECK(life.judged_unforced().ok());
  CHECK(life.judged(Reading::kScan, true).ok());  // by a disk that lied
}

TEST_CASE("the judge: a transaction of which one object is missing is a hole") {
  if (have_no_direct_io()) {
    return;
  }
  for (const Reading reading : kReadings) {
    for (const bool lied : {false, true}) {
      Life life;
      begin(life);
      life.commit({{0, 5}, {3, 6}}, {{0, 5}});
      life.commit({{1, 7}});
      CHECK(life.judged(reading, lied).fault == Fault::kHole);
    }
  }
}

TEST_CASE("the judge: an object that is one version back is a hole") {
  if (have_no_direct_io()) {
    return;
  }
  for (const Reading reading : kReadings) {
    for (const bool lied : {false, true}) {
      Life life;
      begin(life);
      life.commit({{0, 5}, {1, 6}}, {{0, 5}, {1, 3}});
      CHECK(life.judged(reading, lied).fault == Fault::kHole);
      // The version before it stands where it was.
      Life other;
      begin(other);
      other.commit({{0, 5}, {1, 6}}, {{0, 5}});
      CHECK(other.judged(reading, lied).fault == Fault::kHole);
    }
  }
}

TEST_CASE("the judge: a transaction of which no sequence is known is there whole or not at all") {
  if (have_no_direct_io()) {
    return;
  }
  const Changes last = {{0, 5}, {3, 6}};
  for (const bool lied : {false, true}) {
    Life whole;
    begin(whole);
    whole.commit_unknown(last, last);
    CHECK(whole.judged(Reading::kScan, lied).ok());
    Life none;
    begin(none);
    none.commit_unknown(last, {{4, 7}});
    none.commit({{4, 7}}, {{4, 7}});
    CHECK(none.judged(Reading::kScan, lied).ok());
    Life half;
    begin(half);
    half.commit_unknown(last, {{3, 6}});
    CHECK(half.judged(Reading::kScan, lied).fault == Fault::kHole);
  }
}

TEST_CASE("the judge: an erasure is right where one was committed, and not before") {
  if (have_no_direct_io()) {
    return;
  }
  for (const bool lied : {false, true}) {
    Life never;
    begin(never);
    never.commit({{3, 5}}, {{3, 5}, {4, 13}});
    CHECK(never.judged(Reading::kScan, lied).fault == Fault::kHole);
    Life older;
    begin(older);
    older.commit({{0, 13}});
    older.commit({{0, 5}});
    older.commit({{0, 26}, {3, 6}}, {{3, 6}});
    CHECK(older.judged(Reading::kScan, lied).fault == Fault::kHole);
    Life erased_twice;
    begin(erased_twice);
    erased_twice.commit({{0, 13}});
    erased_twice.commit({{0, 26}, {3, 6}}, {{3, 6}});
    CHECK(erased_twice.judged(Reading::kScan, lied).fault == Fault::kHole);
  }
}

TEST_CASE("the judge: what is not in the log is home, in the version that was last") {
  if (have_no_direct_io()) {
    return;
  }
  Life life;
  begin(life);
  life.commit({{3, 6}}, {{4, 7}});
  life.bring_home({3, 6});
  life.bring_home({4, 7});
  // Object 4 was never committed.
  CHECK(life.judged().fault == Fault::kHole);
  Life home;
  begin(home);
  home.commit({{3, 6}}, {{2, 4}});
  home.bring_home({3, 6});
  CHECK(home.judged().ok());
  home.bring_home({3, 5});
  CHECK(home.judged().fault == Fault::kHole);
  CHECK(home.judged(Reading::kScan, true).fault == Fault::kHole);
  // Of a disk that lied it may be newer: a checkpoint that was lost brought it there.
  home.bring_home({3, 8});
  CHECK(home.judged().fault == Fault::kHole);
  CHECK(home.judged(Reading::kScan, true).ok());
}

// As where the journal had logged it again, in a checkpoint that the disk has lost.
TEST_CASE("the judge: of a disk that lied nobody knows what stood before the tail") {
  if (have_no_direct_io()) {
    return;
  }
  Life life;
  life.commit({{3, 6}});
  life.release(3);
  life.commit({{0, 5}});
  CHECK(life.judged().fault == Fault::kHole);
  CHECK(life.judged(Reading::kScan, true).ok());
}

TEST_CASE("the judge: damage is told, and what was handed over before it is judged") {
  if (have_no_direct_io()) {
    return;
  }
  const auto damaged = [](const Changes& written, Reading reading, bool lied) {
    Life life;
    begin(life);
    life.commit({{0, 5}, {3, 6}}, written);
    life.commit({{0, 7}});
    life.commit({{0, 8}});
    (void)life.judged();
    life.damage(7);
    return life.judged(reading, lied).fault;
  };
  for (const Reading reading : kReadings) {
    const Changes whole = {{0, 5}, {3, 6}};
    CHECK(damaged(whole, reading, false) == Fault::kRefused);
    CHECK(damaged(whole, reading, true) == Fault::kNone);
    CHECK(damaged({{0, 5}}, reading, true) == Fault::kHole);
  }
}

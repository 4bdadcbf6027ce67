// The demo must be able to fail: each promise that a journal could break, broken by hand.
#include "demo/judge.h"

#include <doctest/doctest.h>

#include <cstring>
#include <deque>

#include "binary.h"
#include "demo/edit.h"

using namespace keel;
using namespace keel::tools;
using namespace keel::tools::test;

namespace {

constexpr std::uint64_t kSeed = 42;
constexpr std::uint32_t kTypeObject = 1;

// Two files, and checkpoints of them as recovery would hand them over.
class Bench {
 public:
  Bench() {
    write_file(directory_.path("a"), std::string(5000, 'a'));
    write_file(directory_.path("b"), "bbb");
    plan = make_plan(directory_.root(), Bytes(1U << 20U));
    ledger.life = 1;
  }

  struct Image {
    std::uint64_t id;
    std::vector<std::byte> bytes;
  };

  [[nodiscard]] Image object(std::uint32_t object, std::uint32_t version,
                             const TransactionName& name) const {
    std::vector<std::byte> bytes = read_planned(plan, plan.objects[object]);
    for (std::uint32_t v = 2; v <= version; ++v) {
      apply_edit(bytes, plan.objects[object].size_bytes, kSeed, object, v);
    }
    append(bytes, Trailer{0, name, object, version});
    return {object_id(object), bytes};
  }
  [[nodiscard]] static Image record(const TransactionName& name, std::vector<ObjectVersion> made) {
    return {record_id(name), encode(TransactionRecord{name, std::move(made)})};
  }

  void recover(std::uint64_t sequence, const std::vector<Image>& images) {
    struct Header {
      std::uint64_t id, size;
      std::uint32_t operation, reserved;
    };
    std::deque<Header> headers;
    std::deque<std::array<RecoveredRegion, 2>> regions;
    std::vector<RecoveredItem> items;
    for (const Image& image : images) {
      headers.push_back({image.id, image.bytes.size(), 1, 0});
      regions.push_back({RecoveredRegion{{}, std::as_bytes(std::span(&headers.back(), 1))},
                         RecoveredRegion{{}, image.bytes}});
      items.emplace_back(kTypeObject, regions.back());
    }
    RecoveredCheckpoint checkpoint;
    checkpoint.sequence = Sequence(sequence);
    checkpoint.items = items;
    recovered.checkpoint(checkpoint);
  }

  // Thread 0's transactions 1 and 2 to sequence 1 and 2; all acknowledged, all there.
  void all_is_well() {
    recover(1, {object(0, 1, one), object(1, 1, one), record(one, {{0, 1}, {1, 1}})});
    recover(2, {object(1, 2, two), record(two, {{1, 2}})});
    ledger.committed[0] = {{1, Sequence(1)}, {1, Sequence(2)}};
    ledger.acknowledged[0] = 2;
    ledger.acknowledged_sequence = Sequence(2);
  }

  // All that is found wrong, as one text.
  [[nodiscard]] std::string judge() const {
    Findings findings;
    judge_transactions(recovered, report, ledger, findings);
    judge_bytes(recovered, plan, kSeed, findings);
    std::string text;
    for (const std::string& one_text : findings.texts()) {
      text += one_text + "\n";
    }
    return text;
  }
  [[nodiscard]] bool accuses(const std::string& of) const {
    const std::string text = judge();
    CAPTURE(text);
    CHECK(text.find(of) != std::string::npos);
    return text.find(of) != std::string::npos;
  }

  const TransactionName one{1, 0, 1}, two{1, 0, 2}, three{1, 0, 3};
  Plan plan;
  Recovered recovered{2};
  Ledger ledger;
  RecoveryReport report;

 private:
  TestDirectory directory_;
};

}  // namespace

TEST_CASE("the judge has nothing to say when all is well") {
  Bench bench;
  bench.all_is_well();
  CHECK(bench.judge().empty());
  CHECK(bench.recovered.object_count() == 2);
  CHECK(bench.recovered.transaction_count() == 2);
}

TEST_CASE("the judge has nothing to say when only what nobody was promised is gone") {
  Bench bench;
  bench.all_is_well();
  bench.ledger.committed[0].push_back({1, Sequence(3)});
  CHECK(bench.judge().empty());
}

TEST_CASE("the judge accepts a last transaction that was committed but not yet noted") {
  Bench bench;
  bench.all_is_well();
  bench.recover(3, {bench.object(0, 2, bench.three), bench.record(bench.three, {{0, 2}})});
  CHECK(bench.judge().empty());
}

TEST_CASE("the judge sees transactions that nobody committed") {
  Bench bench;
  bench.all_is_well();
  bench.ledger.committed[0].clear();
  CHECK(bench.accuses("transactions that thread 1 never committed: 2 found, 0 known"));
  Bench stale;
  stale.all_is_well();
  stale.ledger.committed[0].pop_back();
  stale.ledger.life = 2;  // the one that is not known must be of the newest life
  CHECK(stale.accuses("transactions that thread 1 never committed: 2 found, 1 known"));
}

TEST_CASE("the judge sees an acknowledged transaction that is gone") {
  Bench bench;
  bench.all_is_well();
  bench.ledger.committed[0].push_back({1, Sequence(3)});
  bench.ledger.acknowledged[0] = 3;
  CHECK(bench.accuses("lost: transaction 3 of thread 1"));
}

TEST_CASE("the judge sees an acknowledged sequence that is gone") {
  Bench bench;
  bench.all_is_well();
  bench.ledger.acknowledged_sequence = Sequence(3);
  CHECK(bench.accuses("lost: sequence 3 was acknowledged"));
}

TEST_CASE("the judge sees a transaction missing from a checkpoint that is there") {
  Bench bench;
  bench.all_is_well();
  bench.ledger.committed[1] = {{1, Sequence(2)}};
  CHECK(bench.accuses("not a prefix: transaction 1 of thread 2"));
}

TEST_CASE("the judge sees a transaction in a checkpoint that commit() did not name") {
  Bench bench;
  bench.all_is_well();
  bench.ledger.committed[0][1].sequence = Sequence(1);
  CHECK(bench.accuses("was committed to sequence 1 and found in 2"));
}

TEST_CASE("the judge sees an object whose transaction is not there, and the other way round") {
  Bench bench;
  bench.recover(1, {bench.object(0, 1, bench.one), bench.record(bench.one, {{0, 1}, {1, 1}})});
  CHECK(bench.accuses("a transaction in part: object 2"));
  Bench other;
  other.recover(1, {other.object(0, 1, other.one), other.object(1, 1, other.one),
                    other.record(other.one, {{0, 1}})});
  CHECK(other.accuses("a transaction in part: object 2"));
}

TEST_CASE("the judge sees an object that another transaction made, and one at another version") {
  Bench stale;
  stale.recover(1, {stale.object(0, 1, {2, 0, 1}), stale.record(stale.one, {{0, 1}})});
  CHECK(stale.accuses("a transaction in part: object 1"));
  Bench version;
  version.recover(1, {version.object(0, 2, version.one), version.record(version.one, {{0, 1}})});
  CHECK(version.accuses("a transaction in part: object 1"));
}

TEST_CASE("the judge sees an object at an old version, though a later one overwrites it") {
  Bench bench;
  bench.recover(1, {bench.object(0, 1, bench.one), bench.record(bench.one, {{0, 1}})});
  bench.recover(2, {bench.record(bench.two, {{0, 2}})});
  bench.recover(3, {bench.object(0, 3, bench.three), bench.record(bench.three, {{0, 3}})});
  CHECK(bench.accuses("a transaction in part: object 1 is there at version 1"));
}

TEST_CASE("the judge sees gaps: in sequences, in a thread's transactions, in versions") {
  Bench bench;
  bench.recover(2, {bench.object(0, 1, bench.one), bench.record(bench.one, {{0, 1}})});
  CHECK(bench.accuses("sequence 2 follows 0"));
  Bench transactions;
  transactions.recover(1, {transactions.object(0, 1, transactions.two),
                           transactions.record(transactions.two, {{0, 1}})});
  CHECK(transactions.accuses("transaction 2 of thread 1 in life 1 follows number 0"));
  Bench versions;
  versions.recover(1,
                   {versions.object(0, 2, versions.one), versions.record(versions.one, {{0, 2}})});
  CHECK(versions.accuses("made version 2 of object 1, after version 0"));
}

TEST_CASE("the judge sees a transaction of another life") {
  Bench bench;
  bench.all_is_well();
  bench.ledger.life = 2;
  bench.ledger.committed[0][1].life = 2;
  CHECK(bench.accuses("was found as made in life 1"));
}

TEST_CASE("the judge sees one wrong byte, and one byte too many") {
  Bench bench;
  auto wrong = bench.object(0, 1, bench.one);
  wrong.bytes[4321] ^= std::byte{1};
  bench.recover(1, {wrong, bench.record(bench.one, {{0, 1}})});
  CHECK(bench.accuses("object 1 at version 1 differs from the file and its edits at byte 4321"));
  Bench longer;
  auto large = longer.object(1, 1, longer.one);
  large.bytes.insert(large.bytes.begin() + 3, std::byte{0});
  longer.recover(1, {large, longer.record(longer.one, {{1, 1}})});
  CHECK(longer.accuses("differs from the file and its edits at byte 3"));
}

TEST_CASE("the judge sees items that nobody logged, and a damaged log") {
  Bench bench;
  bench.recover(1, {{object_id(0), std::vector<std::byte>(100)}});
  CHECK(bench.accuses("object 1 as nobody logged it"));
  Bench damaged;
  damaged.all_is_well();
  damaged.report.end = LogEnd::kDamaged;
  CHECK(damaged.accuses("the log is damaged"));
}

TEST_CASE("what was recovered once must stay") {
  Bench bench;
  bench.all_is_well();
  Ledger ledger = bench.ledger;
  ledger.settle(bench.recovered);
  CHECK(ledger.acknowledged[0] == 2);
  CHECK(ledger.committed[0].size() == 2);
  Bench later;
  later.ledger = ledger;
  later.recover(1, {later.object(0, 1, later.one), later.object(1, 1, later.one),
                    later.record(later.one, {{0, 1}, {1, 1}})});
  CHECK(later.accuses("lost: transaction 2 of thread 1"));
}

TEST_CASE("a file that changes under the demo is told as that, not as a loss") {
  Bench bench;
  bench.all_is_well();
  bench.plan.files[0].modified_ns += 1;
  CHECK_THROWS_WITH((void)bench.judge(), "the file has changed while the demo ran");
}

TEST_CASE("a plan survives its way to the child, and stays within its limit") {
  Bench bench;
  const Plan copy = decode_plan(encode(bench.plan));
  CHECK(copy.files.size() == 2);
  CHECK(copy.files[0].path == bench.plan.files[0].path);
  CHECK(copy.files[1].modified_ns == bench.plan.files[1].modified_ns);
  CHECK(copy.objects.size() == 2);
  CHECK(copy.bytes == bench.plan.bytes);
  CHECK_THROWS((void)decode_plan(encode(bench.plan).substr(0, 50)));
  const TestDirectory tree;
  write_file(tree.path("large"), std::string((3U << 20U) + 1, 'l'));
  const Plan cut = make_plan(tree.root(), Bytes((1U << 20U) + 7));
  CHECK(cut.bytes == Bytes((1U << 20U) + 7));
  CHECK(cut.objects.size() == 2);
}

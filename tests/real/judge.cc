#include "judge.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "until_free.h"

using namespace keel;

namespace keel_test {
namespace {

using Versions = std::array<Version, kLedgerObjects>;

struct Delivered {
  Versions versions{};
  std::array<bool, kLedgerObjects> there{};
  std::array<std::uint64_t, kLedgerObjects> sequences{};  // of what is there: its checkpoint
  // The checkpoints that were handed over; 0: none.
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  bool marked = false;  // what the judge has committed itself is there
  std::string fault;
};

// The object that the judge commits: no writer has one of that number.
constexpr std::uint64_t kMarkId = kLedgerObjects;
const std::string& mark_bytes() {
  static const std::string bytes(5000, 'j');
  return bytes;
}

void take(Delivered& delivered, const RecoveredItem& item, Sequence sequence) {
  const auto object = RecoveredObject::from(item);
  if (object && object->id == kMarkId) {
    std::string bytes(object->bytes.size_bytes(), '\0');
    object->bytes.copy_to(bytes.data(), bytes.size());
    delivered.marked = bytes == mark_bytes();
    return;
  }
  if (!object || object->id >= kLedgerObjects) {
    delivered.fault = "an item that nobody logged";
    return;
  }
  delivered.there[object->id] = true;
  delivered.sequences[object->id] = sequence.value();
  delivered.versions[object->id] = 0;
  if (object->erased) {
    return;
  }
  std::vector<char> bytes(object->bytes.size_bytes());
  object->bytes.copy_to(bytes.data(), bytes.size());
  Version version = 0;
  std::memcpy(&version, bytes.data(), std::min(sizeof version, bytes.size()));
  std::vector<char> wanted(bytes.size());
  fill_content(version, wanted.data(), wanted.size());
  if (bytes.size() != size_of(version) || bytes != wanted) {
    delivered.fault = "wrong bytes for object " + std::to_string(object->id);
  }
  delivered.versions[object->id] = version;
}

RecoveryHandler collector(Delivered& delivered) {
  return [&delivered](const RecoveredCheckpoint& checkpoint) -> Status {
    delivered.last = checkpoint.sequence.value();
    delivered.first = delivered.first == 0 ? delivered.last : delivered.first;
    for (const RecoveredItem& item : checkpoint.items) {
      take(delivered, item, checkpoint.sequence);
    }
    return {};
  };
}

// `dropped`: there was no room for it but that of what was recovered.
Result<Transaction> begin_mark(Journal& journal, bool& dropped) {
  const std::size_t bytes = ObjectItem::log_bytes(mark_bytes().size());
  auto transaction = journal.begin(bytes, 1);
  if (transaction || transaction.error().code != Errc::kLogFull) {
    return transaction;
  }
  dropped = true;
  journal.release_recovered();
  return journal.begin(bytes, 1);
}

Result<Sequence> commit_mark(Journal& journal, ObjectItem& mark, bool& dropped) {
  mark.set(mark_bytes().data(), mark_bytes().size());
  auto transaction = begin_mark(journal, dropped);
  if (!transaction) {
    return transaction.error();
  }
  if (auto logged = transaction->log(mark); !logged) {
    return logged.error();
  }
  return transaction->commit();
}

// Goes on with the log as its next user would: what was found and what is committed then must be
// there when it is opened again.
Result<RecoveryReport> read_and_go_on(const std::string& path, Delivered& delivered) {
  ObjectItem mark(kMarkId);
  auto journal = tools::until_free([&] { return Journal::open(path, {}, collector(delivered)); });
  if (!journal) {
    return journal.error();
  }
  const RecoveryReport report = (*journal)->recovery();
  bool dropped = false;
  const auto committed = commit_mark(**journal, mark, dropped);
  if (!committed) {
    return committed.error();
  }
  if (auto closed = (*journal)->close(); !closed) {
    return closed.error();
  }
  journal->reset();
  Delivered again;
  auto second = Journal::open(path, {}, collector(again));
  if (!second) {
    return second.error();
  }
  const RecoveryReport& found = (*second)->recovery();
  if (*committed <= report.last_sequence || found.last_sequence != *committed || !again.marked) {
    delivered.fault = "what was committed after recovery is not there";
  } else if (found.end != LogEnd::kClean || !again.fault.empty() ||
             (!dropped && again.versions != delivered.versions)) {
    delivered.fault = "a second recovery found something else: " + again.fault + found.message();
  }
  if (auto closed = (*second)->close(); !closed) {
    return closed.error();
  }
  return report;
}

Result<RecoveryReport> read(const std::string& path, Reading reading, Delivered& delivered) {
  auto report = reading == Reading::kOpen
                    ? read_and_go_on(path, delivered)
                    : tools::until_free([&] { return scan_log(path, collector(delivered)); });
  if (delivered.marked) {
    delivered.fault = "an item that nobody logged";
  }
  return report;
}

// An object's version, and the sequence of the transaction that made it so: 0 if this life knows
// none.
struct Wanted {
  Version version = 0;
  std::uint64_t sequence = 0;
};
using AllWanted = std::array<Wanted, kLedgerObjects>;

class Judge {
 public:
  Judge(const Ledger& ledger, const PromisesCopy& promises, const Delivered& delivered,
        std::uint64_t last, bool lied)
      : ledger_(ledger), promises_(promises), delivered_(delivered), last_(last), lied_(lied) {}

  // The transactions of a thread up to the recovered sequence. The last one may have been killed
  // inside commit(), before its sequence was known: then it is there whole or not at all.
  void check(std::size_t thread, Verdict& verdict) const {
    AllWanted without;
    for (std::size_t id = 0; id < kLedgerObjects; ++id) {
      without[id].version = ledger_.base[id];
    }
    const LedgerThread& mine = ledger_.threads[thread];
    const std::uint64_t begun = mine.begun;
    const LedgerTransaction* unknown = nullptr;
    for (std::uint64_t n = 0; n < begun; ++n) {
      const LedgerTransaction& one = mine.transactions[n];
      if (one.sequence == 0) {
        unknown = &one;
      } else if (one.sequence <= last_) {
        apply(one, without);
      }
    }
    std::string first;
    if (matches(thread, without, first, verdict)) {
      return;
    }
    if (unknown != nullptr) {
      AllWanted with = without;
      apply(*unknown, with);
      std::string second;
      if (matches(thread, with, second, verdict)) {
        return;
      }
      first += ", or " + second;
    }
    verdict.fault = Fault::kHole;
    verdict.what = first;
  }

 private:
  static void apply(const LedgerTransaction& one, AllWanted& objects) {
    for (std::size_t i = 0; i < kObjectsOfTransaction; ++i) {
      if (one.versions[i] != 0) {
        objects[one.objects[i]] = {one.versions[i], one.sequence};
      }
    }
  }

  // An erasure does not say which it is, but it cannot stand before the checkpoint that it is of.
  [[nodiscard]] bool right_in_log(std::size_t id, const Wanted& wanted) const {
    const Version found = delivered_.versions[id];
    return found != 0 ? found == wanted.version
                      : wanted.version != 0 && is_erasure(wanted.version) &&
                            delivered_.sequences[id] >= wanted.sequence;
  }
  [[nodiscard]] bool right_at_home(std::size_t id, const Wanted& wanted) const {
    const Version home = promises_.home[id];
    if (!lied_) {
      return home == wanted.version;
    }
    // What a disk has lost may have gone home before: then home is newer. Or it may have been the
    // object, logged again at the head by a commit or by the journal itself: then what was wanted
    // stands before the tail. A checkpoint that was handed over was whole.
    const bool handed_over = delivered_.first != 0 && wanted.sequence >= delivered_.first;
    return (home & ~kLargeVersion) >= (wanted.version & ~kLargeVersion) || !handed_over;
  }

  bool matches(std::size_t thread, const AllWanted& objects, std::string& what,
               Verdict& verdict) const {
    for (std::size_t id = thread * kObjectsOfThread; id < (thread + 1) * kObjectsOfThread; ++id) {
      const Wanted& wanted = objects[id];
      const bool there = delivered_.there[id];
      if (!(there ? right_in_log(id, wanted) : right_at_home(id, wanted))) {
        what = "object " + std::to_string(id) + " has version " +
               std::to_string(delivered_.versions[id]) +
               (there ? " in the log" : " nowhere in the log") + ", at home " +
               std::to_string(promises_.home[id]) + ", expected " + std::to_string(wanted.version) +
               " of sequence " + std::to_string(wanted.sequence);
        return false;
      }
      verdict.now[id] = wanted.version;
    }
    return true;
  }

  const Ledger& ledger_;
  const PromisesCopy& promises_;
  const Delivered& delivered_;
  const std::uint64_t last_;
  const bool lied_;
};

}  // namespace

Verdict judge(const std::string& path, const Ledger& ledger, const PromisesCopy& promises,
              Reading reading, bool lied) {
  Verdict verdict;
  verdict.promised = promises.forced != 0;
  Delivered delivered;
  const auto report = read(path, reading, delivered);
  const auto fail = [&](Fault fault, const std::string& what) {
    verdict.fault = fault;
    verdict.what = what + "; promised " + std::to_string(promises.forced) + "; " +
                   (report ? verdict.report.message() : "");
    return verdict;
  };
  // A journal that finds damage has handed over what stands before it.
  const bool told = !report && lied && report.error().code == Errc::kDamaged;
  if (!report && !told) {
    return fail(Fault::kRefused, "recovery failed: " + report.error().message());
  }
  if (report) {
    verdict.report = *report;
  }
  if (!delivered.fault.empty()) {
    return fail(Fault::kPartial, delivered.fault);
  }
  if (told && delivered.last == 0) {
    return verdict;
  }
  if (report && report->end == LogEnd::kDamaged && !lied) {
    return fail(Fault::kRefused, "a crash was taken for damage");
  }
  const std::uint64_t last =
      std::max(told ? delivered.last : report->last_sequence.value(), ledger.base_sequence);
  if (last < promises.forced && !lied) {
    return fail(Fault::kLost, "a promised sequence is gone");
  }
  const Judge held(ledger, promises, delivered, last, lied);
  for (std::size_t thread = 0; thread < kLedgerThreads && verdict.ok(); ++thread) {
    held.check(thread, verdict);
  }
  return verdict.ok() ? verdict : fail(verdict.fault, verdict.what);
}

}  // namespace keel_test

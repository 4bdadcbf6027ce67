#include "crash_life.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "crash_committer.h"
#include "crash_recovery.h"
#include "keel/base/check.h"
#include "keel/base/mutex.h"
#include "keel/base/thread.h"
#include "probe.h"

using namespace keel;

namespace keel_test::crash_lab {
namespace {

// What open() delivers is what the judge was delivered of the same crash; or, of a state slot that
// could not be read, from the older one's tail on, which leaves each object the same.
void check_delivered(const Recovered& recovered, const LifeRecord& record) {
  const Beginning& beginning = record.beginning();
  if (!recovered.fault.empty()) {
    FAIL("open() delivered " << recovered.fault << ", depth " << record.depth() << " seed "
                             << record.seed());
  }
  for (std::size_t id = 0; id < kCrashObjects; ++id) {
    const bool same = recovered.versions[id] == beginning.logged[id] &&
                      recovered.erased[id] == beginning.erased[id];
    const bool was_logged = beginning.logged[id] != 0 || beginning.erased[id];
    const bool as_before = recovered.erased[id] ? is_erasure(beginning.base[id])
                                                : recovered.versions[id] == beginning.base[id];
    const bool may_be_more = record.may_fail(Failing::kOpen, {Errc::kIo, EIO, "", 0});
    if (!same && (was_logged || !as_before || !may_be_more)) {
      FAIL("open() delivered version " << recovered.versions[id] << " of object " << id << ", not "
                                       << beginning.logged[id] << ", depth " << record.depth()
                                       << " seed " << record.seed());
    }
  }
}

// nullptr: an injected fault ended the life before it began.
std::unique_ptr<Journal> open_journal(Run& run, LifeRecord& record) {
  Recovered recovered;
  JournalConfig config = run.plan.journal;
  config.depth = run.plan.in_flight;
  config.push_threshold = Bytes(run.plan.push_threshold);
  auto journal = Journal::open(kLogPath, config, collector(recovered, run.contents));
  if (!journal) {
    if (!record.may_fail(Failing::kOpen, journal.error())) {
      FAIL("open: " << journal.error().message() << ", depth " << record.depth() << " seed "
                    << record.seed());
    }
    record.fail();
    record.take_moment(false);
    return nullptr;
  }
  const std::uint64_t last = (*journal)->recovery().last_sequence.value();
  KEEL_CHECK(last == record.first_sequence(), "reopened at", last, record.first_sequence());
  check_delivered(recovered, record);
  return std::move(*journal);
}

// Those that have ended: their objects outlive the journal.
struct Ended {
  Mutex mutex{LockRank::kLeaf};
  std::vector<std::unique_ptr<Committer>> committers KEEL_GUARDED_BY(mutex);
};

void commit_all(const CrashPlan& plan, LifeRecord& record, Journal& journal, Ended& ended) {
  const std::uint32_t share = plan.transactions / plan.threads / (record.depth() == 0 ? 1 : 2);
  const auto commit_share = [&plan, &record, &journal, &ended, share](std::uint32_t number) {
    auto committer = std::make_unique<Committer>(plan, record, number);
    committer->commit_many(journal, share);
    MutexLock lock(ended.mutex);
    ended.committers.push_back(std::move(committer));
  };
  std::vector<Thread> threads;
  for (std::uint32_t number = 1; number < plan.threads; ++number) {
    try {
      threads.emplace_back("committer", [&commit_share, number] { commit_share(number); });
    } catch (const std::system_error& error) {
      record.was_refused("no thread for a committer", {Errc::kSystem, error.code().value(), "", 0});
    }
  }
  commit_share(0);
  for (Thread& thread : threads) {
    thread.join();
  }
}

void run_journal(Run& run, LifeRecord& record, SimDisk& disk) {
  const CrashPlan& plan = run.plan;
  if (plan.inject) {
    plan.inject(disk);
  }
  Ended ended;
  std::unique_ptr<Journal> journal = open_journal(run, record);
  if (journal == nullptr) {
    return;
  }
  commit_all(plan, record, *journal, ended);
  run.tally.bytes_logged += journal->stats().written.value();
  journal->audit();
  // Every other life ends in order: moments of the close are crashed as well.
  if (record.seed() % 2 == 0) {
    if (record.succeeded(journal->close(), "close")) {
      record.closed_in_order();
    } else {
      record.take_moment(false);
    }
  }
  journal.reset();
  record.check_callbacks();
}

}  // namespace

void live(Run& run, LifeRecord& record, SimDisk& disk) {
  disk.on_io([&record](const SimIo& io) {
    if (io.op != SimOp::kRead && io.op != SimOp::kStat) {
      record.take_moment(false);
    }
  });
  disk.on_durable_write(
      [&record](const SimDurableWrite& write) { record.take_moment(false, &write); });
  run_journal(run, record, disk);
  disk.on_io(nullptr);
  disk.on_durable_write(nullptr);
  ++run.tally.lives;
  run.tally.moments += record.moments().size();
  run.tally.failed += record.failed() ? 1U : 0U;
}

}  // namespace keel_test::crash_lab

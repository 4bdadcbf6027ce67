// Whose turn the AIL is, on simulated threads.
#include <doctest/doctest.h>

#include <cstdint>

#include "ail_support.h"
#include "keel/base/thread.h"
#include "probe.h"
#include "support/sim_scheduler.h"
#include "support/test_seed.h"

#if defined(KEEL_DEBUG)

using namespace keel;
using namespace keel_test;

TEST_CASE("who waits for the AIL has it before the next batch of a walk") {
  const std::uint64_t first = test_seed("sim ail turn", 1);
  for (std::uint64_t seed = first; seed < first + test_rounds(20, 3); ++seed) {
    CAPTURE(seed);
    Trace trace;
    Probe item(trace, 1);
    Ail ail;
    Bucket* bucket = ail.publish(ail.make_bucket(), Lsn(1), {});
    ail.adopt(*bucket, item);
    ail.let_go(*bucket);
    bool is_held = false;
    bool was_in = false;
    {
      SimScheduler scheduler({.seed = seed, .switch_one_in = 500, .spurious_one_in = 0});
      Ail::Walk walk(ail, Lsn(UINT64_MAX));
      Thread waiter("waiter", [&] {
        while (!is_held) {
          yield_thread();
        }
        ail.for_items(1, [&](LogItem&) { return !(was_in = true); });
      });
      ail.for_items(1, [&](LogItem&) {  // Which is to be asleep under the lock, for once.
        is_held = true;
        scheduler.sleep(ThreadPoint::kSleep, 1'000'000);  // the other comes to wait
        return false;
      });
      CHECK(walk.hold_next().count == 1);
      CHECK(was_in);
      waiter.join();
    }
    let_go(ail, item, true);
    CHECK(forget(ail, item));
  }
}

#endif

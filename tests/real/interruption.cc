#include "interruption.h"

#include <unistd.h>

#include <algorithm>

#include "faultfs/store.h"

namespace keel_test {

using faultfs::random_step;

Interruption Interruption::draw(std::uint64_t seed, std::uint64_t& random, WriterPlan& plan) {
  Interruption one;
  switch (seed % 4) {
    case 0: one.when_ = When::kBegun; break;
    case 1: one.when_ = seed % 16 == 1 ? When::kEnded : When::kClosing; break;
    default: one.when_ = When::kOpened; break;
  }
  if (one.when_ == When::kOpened) {
    one.later_usec_ = random_step(random) % 4000;
    return one;
  }
  const auto few = static_cast<std::uint32_t>(20 + random_step(random) % 181);
  plan.transactions = std::min(plan.transactions, few);
  one.begun_ = 1 + random_step(random) % (plan.transactions * plan.threads);
  // Short times more often: close() does not last long.
  one.later_usec_ = random_step(random) % (std::uint64_t{8} << random_step(random) % 9);
  return one;
}

void Interruption::wait(const Ledger& ledger, Child& writer) const {
  const auto come = [&] {
    switch (when_) {
      case When::kOpened: return ledger.opened != 0;
      case When::kBegun: return begun_of(ledger) >= begun_;
      case When::kClosing: return ledger.closing != 0;
      case When::kEnded: return false;
    }
    return true;
  };
  while (!come()) {
    if (writer.poll() >= 0) {
      return;
    }
    (void)::usleep(50);
  }
  (void)::usleep(static_cast<useconds_t>(later_usec_));
}

bool was_closing(const Ledger& ledger) { return ledger.closing != 0 && ledger.done == 0; }

}  // namespace keel_test

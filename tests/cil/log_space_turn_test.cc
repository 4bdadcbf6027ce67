// Whose turn it is to get log space, and what they are told who ask after the end.
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "gate.h"
#include "keel/base/check.h"
#include "log_space.h"

using namespace keel;
using namespace keel_test;

namespace {

LogSpace::Helpers no_help() {
  return {[] {}, [] {}, [] { return Sequence{}; }};
}

}  // namespace

TEST_CASE("who takes back what is held comes before all who wait for a grant") {
  LogSpace space({1000, 250, 0, 1 << 20}, Lsn(0), Lsn(0), no_help());
  REQUIRE(space.reserve({60, 0}).ok());
  space.hold(60);
  REQUIRE(space.reserve({240, 0}).ok());
  std::thread unholder([&] {
    const Status status = space.unhold(60);
    KEEL_CHECK(status.ok(), "unhold");
  });
  yield_until([&] { return space.contended(); });
  std::atomic<bool> granted{false};
  std::thread waiter([&] {
    const Status status = space.reserve({5, 0});  // would fit at once
    KEEL_CHECK(status.ok(), "reserve");
    granted = true;
  });
  yield_until([&] { return space.longest().since_ns != 0 || granted; });
  let_others_run();
  CHECK_FALSE(granted);
  CHECK(space.sums().granted.log_bytes == 240);
  space.give_back({60, 0});
  unholder.join();
  waiter.join();
  CHECK(space.sums().granted.log_bytes == 245);
  CHECK(space.sums().held_bytes == 0);
}

TEST_CASE("who asks for space after several failures is told the first") {
  LogSpace space({1000, 250, 0, 1 << 20}, Lsn(0), Lsn(0), no_help());
  space.fail({Errc::kIo, EIO, "first", 1});
  space.fail({Errc::kShutdown, 0, "second", 2});
  const Status status = space.reserve({10, 0});
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().code == Errc::kIo);
  CHECK(status.error().value == 1);
}

// Who opens the log of a process that it has killed.
#include "until_free.h"

#include <doctest/doctest.h>

using keel::Errc;
using keel::Error;
using keel::Result;
using keel::tools::until_free;

TEST_CASE("a log that is busy is tried again until it is free, a bounded number of times") {
  int calls = 0;
  const auto free_at = [&calls](int call) {
    return [&calls, call]() -> Result<int> {
      return ++calls < call ? Result<int>(Error{Errc::kBusy, 0, "locked", 0}) : Result<int>(calls);
    };
  };
  CHECK(until_free(free_at(1)).ok());
  CHECK(calls == 1);
  calls = 0;
  const auto last = until_free(free_at(60));
  REQUIRE(last.ok());
  CHECK(*last == 60);
  calls = 0;
  CHECK(until_free(free_at(1000)).error().code == Errc::kBusy);
  CHECK(calls == 60);
  calls = 0;
  CHECK(until_free(free_at(1000), [] { return true; }).error().code == Errc::kBusy);
  CHECK(calls == 1);
}

TEST_CASE("a log that cannot be opened for another reason is not tried again") {
  int calls = 0;
  const auto damaged = until_free([&calls]() -> Result<int> {
    ++calls;
    return Error{Errc::kDamaged, 0, "damaged", 0};
  });
  CHECK(damaged.error().code == Errc::kDamaged);
  CHECK(calls == 1);
}

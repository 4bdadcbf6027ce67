#include "keel/base/scopes.h"

#include <doctest/doctest.h>

#include <thread>
#include <utility>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "support/death.h"

using keel::NoAllocScope;
using keel::NoReclaimScope;
using keel_test::run_in_child;

namespace {
int g_reports = 0;
void count(const keel::BugReport& report) {
  g_reports += report.bug == keel::Bug::kAllocationInNoAllocScope ? 1 : 0;
}
}  // namespace

TEST_CASE("scopes nest and end, each in its own thread") {
  CHECK_FALSE(NoReclaimScope::active());
  CHECK_FALSE(NoAllocScope::active());
  {
    const NoReclaimScope outer;
    {
      const NoReclaimScope inner;
      const NoAllocScope other;
      CHECK(NoAllocScope::active());
    }
    CHECK(NoReclaimScope::active());
    CHECK_FALSE(NoAllocScope::active());
    bool elsewhere = true;
    std::thread([&elsewhere] { elsewhere = NoReclaimScope::active(); }).join();
    CHECK_FALSE(elsewhere);
  }
  CHECK_FALSE(NoReclaimScope::active());
}

TEST_CASE("a scope that was moved ends once, with whom it was moved to") {
  {
    NoReclaimScope first;
    {
      const NoReclaimScope second(std::move(first));
      CHECK(NoReclaimScope::active());
    }
    CHECK_FALSE(NoReclaimScope::active());
  }
  CHECK_FALSE(NoReclaimScope::active());
  const NoReclaimScope next;
  CHECK(NoReclaimScope::active());
}

TEST_CASE("an allocation of metadata inside a NoAllocScope is reported and aborts") {
  const auto ending = run_in_child([] {
    const NoAllocScope scope;
    (void)keel::os().metadata_allocate(1);
  });
  CHECK(ending.aborted_with("metadata_allocate: allocation inside a NoAllocScope"));
}

TEST_CASE("if the bug handler returns, the allocation is refused") {
  const keel::BugHandler before = keel::set_bug_handler(count);
  g_reports = 0;
  void* refused = nullptr;
  {
    const NoAllocScope scope;
    refused = keel::os().metadata_allocate(64);
  }
  (void)keel::set_bug_handler(before);
  CHECK(refused == nullptr);
  CHECK(g_reports == 1);

  void* given = keel::os().metadata_allocate(64);
  CHECK(given != nullptr);
  CHECK(g_reports == 1);
  keel::os().metadata_free(given);
}

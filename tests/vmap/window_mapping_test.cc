// Areas while map() makes them and while a purge removes them, as other threads may see them; and
// what of map()'s failures a purge cannot help.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "support/bug_recorder.h"
#include "support/fault_os.h"
#include "vmap/window_fixture.h"

using namespace keel;
using keel_test::BugRecorder;
using keel_test::FaultOs;
using keel_test::mask_of;
using keel_test::OsCall;
using keel_test::run_of;
using Fixture = keel_test::WindowFixture;
using Snapshot = keel_test::WindowSnapshot;

namespace {

// Calls back inside the system calls that put aliases and nothing into the window.
class MomentOs final : public Os {
 public:
  std::function<void(void*)> while_mapping = [](void*) {};
  std::function<void(void*)> while_purging = [](void*) {};

  int mremap(void* old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
             void* new_address, void** out) override {
    while_mapping(new_address);
    return Os::mremap(old_address, old_bytes, new_bytes, flags, new_address, out);
  }
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    if ((flags & MAP_FIXED) != 0) while_purging(address);
    return Os::mmap(address, bytes, protection, flags, fd, offset, out);
  }
};

struct Ranges final : VmapVisitor {
  void visit(const VmapRange& range) override { seen.push_back(range); }
  std::vector<VmapRange> seen;
};

std::vector<VmapRange> ranges(const Window& window) {
  Ranges found;
  window.visit_ranges(found);
  return found.seen;
}

}  // namespace

TEST_CASE("an area that is being mapped is shown as such, and is nobody's to unmap") {
  MomentOs os;
  const ScopedOs scope(os);
  Fixture f({.bytes = 1U << 20, .shards = 1});
  BugRecorder bugs;
  unsigned moments = 0;
  os.while_mapping = [&](void* at) {
    ++moments;
    const auto shown = ranges(*f.window);
    REQUIRE(shown.size() == 1);
    CHECK(shown[0].state == VmapState::kMapping);
    CHECK(shown[0].area.start == at);
    CHECK(shown[0].area.cookie == 0);
    CHECK_FALSE(f.window->find(at).has_value());
    CHECK_FALSE(f.window->unmap(at));
    CHECK(bugs.take().bug == Bug::kUnknownAddress);
  };
  std::byte* at = f.map(run_of(3, 2), {.cookie = 9});
  CHECK(moments == 1);
  CHECK(ranges(*f.window)[0].state == VmapState::kLive);
  CHECK(f.window->unmap(at));
  CHECK(bugs.count() == 0);
  f.window->audit();
}

TEST_CASE("an area that a purge is at is shown as such, and its second unmap is told") {
  MomentOs os;
  const ScopedOs scope(os);
  Fixture f({.bytes = 1U << 20, .shards = 1});
  BugRecorder bugs;
  std::byte* at = f.map(run_of(3, 2));
  CHECK(f.window->unmap(at));
  CHECK(ranges(*f.window)[0].state == VmapState::kLazy);
  unsigned moments = 0;
  os.while_purging = [&](void* place) {
    ++moments;
    CHECK(place == at);
    CHECK(ranges(*f.window)[0].state == VmapState::kPurging);
    CHECK_FALSE(f.window->unmap(at));
    CHECK(bugs.take().bug == Bug::kDoubleFree);
  };
  CHECK(f.window->purge().ok());
  CHECK(moments == 1);
  CHECK(ranges(*f.window).empty());
  CHECK(bugs.count() == 0);
  f.window->audit();
}

TEST_CASE("a failure that a purge cannot help is map()'s own, at once") {
  FaultOs os;
  const ScopedOs scope(os);
  Fixture f;
  CHECK(f.window->unmap(f.map(run_of(0, 2))));
  const Snapshot before(*f.window);
  const std::uint64_t purges = f.window->stats().purges;
  os.fail_nth(1, mask_of(OsCall::kMremap), EFAULT);
  const auto mapped = f.window->map(run_of(5, 2));
  CHECK(mapped.error().sys_errno == EFAULT);
  CHECK(os.fired());
  CHECK(Snapshot(*f.window) == before);
  CHECK(f.window->stats().purges == purges);
  f.window->audit();
}

TEST_CASE("a map() that finds no room gives up in the end, though others unmap all the while") {
  MomentOs os;
  const ScopedOs scope(os);
  Fixture f({.bytes = 16U << 20, .shards = 1});
  std::vector<std::byte*> areas;
  for (std::uint64_t i = 0; i < 600; ++i) {
    areas.push_back(f.map(run_of(i % 256, 1)));
  }
  const auto unmap_one = [&] {
    if (!areas.empty()) {
      CHECK(f.window->unmap(areas.back()));
      areas.pop_back();
    }
  };
  std::vector<Pfn> frames;
  for (int i = 0; i < 15; ++i) {
    const auto run = run_of(0, 256);
    frames.insert(frames.end(), run.begin(), run.end());
  }
  unmap_one();
  os.while_purging = [&](void*) { unmap_one(); };
  const auto refused = f.window->map(frames);
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == Errc::kNoAddressSpace);
  CHECK(f.window->stats().map_retries < 10);
  os.while_purging = [](void*) {};
  for (std::byte* area : areas) {
    CHECK(f.window->unmap(area));
  }
  f.map(frames);
  f.window->audit();
}

TEST_CASE("a list that the window could never hold is refused without a purge") {
  Fixture f({.bytes = 1U << 20, .max_mappings = 50});
  CHECK(f.window->unmap(f.map(run_of(0, 2))));
  const Snapshot before(*f.window);
  const std::vector<Pfn> runs = keel_test::scattered(50);  // and a gap
  CHECK(f.window->map(runs).error().code == Errc::kNoMappings);
  CHECK(f.window->map(run_of(0, 256), {.guard = true}).error().code == Errc::kNoAddressSpace);
  CHECK(Snapshot(*f.window) == before);
  CHECK(f.window->stats().purges == 0);
  f.map(keel_test::scattered(48));
  f.window->audit();
}

TEST_CASE("a window that is too small or too large or no whole pages is refused") {
  const Fixture f;
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1} << 19, (std::size_t{1} << 20) + 1, std::size_t{1} << 40}) {
    CAPTURE(bytes);
    CHECK(Window::create(*f.store, {.bytes = bytes}).error().code == Errc::kInvalidArgument);
  }
}

TEST_CASE("every state of an area has a name of its own") {
  const std::pair<VmapState, const char*> names[] = {{VmapState::kMapping, "mapping"},
                                                     {VmapState::kLive, "live"},
                                                     {VmapState::kLazy, "lazy"},
                                                     {VmapState::kPurging, "purging"},
                                                     {static_cast<VmapState>(255), "unknown"}};
  for (const auto& [state, name] : names) {
    CHECK(std::strcmp(to_string(state), name) == 0);
  }
}

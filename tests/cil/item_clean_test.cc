// clean() when it is called, as it may be, by release(), beside a commit that has crossed with it.
#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "item_home.h"
#include "keel/cil/object_item.h"
#include "keel/cil/range_item.h"
#include "probe.h"
#include "support/gate.h"

using namespace keel;
using namespace keel_test;

namespace {

constexpr std::size_t kBytes = 60'000;

// Goes home when it is asked to, and is told so at the gate; what is home then is clean.
template <class Base>
class Homing : public Base {
 public:
  explicit Homing(std::string& bytes) : Base(1) {
    if constexpr (std::is_same_v<Base, RangeItem>) {
      REQUIRE(this->attach(bytes.data(), bytes.size()).ok());
    } else {
      this->attach(bytes_of(bytes));
    }
  }
  Journal* journal = nullptr;
  Gate gate;
  std::atomic<int> cleaned{0};

 protected:
  [[nodiscard]] bool has_home() const override { return true; }
  PushResult push() override {
    CHECK_FALSE(journal->release(*this));  // The journal calls release() after this.
    return PushResult::kStarted;
  }
  void release(bool /*aborted*/) override {
    if (!gate.arrived()) {
      gate.pass();
    }
    this->clean();
    ++cleaned;
  }
};

// Bytes that are dirty after a release() that a commit crosses with (`crosses`), and after the one
// that follows.
template <class Base>
std::vector<std::size_t> dirty_after(bool crosses) {
  LogWorld world;
  Trace trace;
  std::string bytes(4096, 'x');
  std::vector<std::unique_ptr<Probe>> others;
  Homing<Base> item(bytes);
  auto journal = world.open();
  item.journal = journal.get();
  item.mark(0, RangeItem::kChunkBytes);
  REQUIRE(journal->force(commit(*journal, {&item}, 2 * bytes.size())).ok());
  while (!item.gate.arrived()) {
    others.push_back(std::make_unique<Probe>(trace, 100));
    others.back()->regions = {std::string(kBytes, 'x')};
    others.back()->after = Tracking::kRelease;
    REQUIRE(journal->force(commit(*journal, {others.back().get()}, kBytes)).ok());
    if (journal->stats().log_used.value() > journal->info().data.value() / 4 * 3) {
      item.gate.wait_for_arrival();
    }
  }
  if (crosses) {
    item.mark(2048, RangeItem::kChunkBytes);
    REQUIRE(journal->force(commit(*journal, {&item}, 2 * bytes.size())).ok());
    CHECK_FALSE(item.pinned());
  }
  item.gate.open();
  yield_until([&] { return item.cleaned == 1; });
  std::vector<std::size_t> dirty{item.dirty_bytes()};
  if (crosses) {
    if (!journal->release(item)) {
      yield_until([&] { return item.cleaned > 1; });
    }
    item.clean();
    dirty.push_back(item.dirty_bytes());
  }
  finish(journal);
  return dirty;
}

}  // namespace

TEST_CASE("clean() in release() forgets nothing that a commit has logged which crossed with that") {
  constexpr std::size_t kMarked = RangeItem::kChunkBytes;
  CHECK(dirty_after<ObjectItem>(true) == std::vector<std::size_t>{2 * kMarked, 0});
  CHECK(dirty_after<RangeItem>(true) == std::vector<std::size_t>{2 * kMarked, 0});
  CHECK(dirty_after<ObjectItem>(false) == std::vector<std::size_t>{0});
  CHECK(dirty_after<RangeItem>(false) == std::vector<std::size_t>{0});
}

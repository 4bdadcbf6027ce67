// release() beside commits, logging again and trimming: true means gone.
#include <doctest/doctest.h>

#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "keel/cil/object_item.h"
#include "probe.h"
#include "support/gate.h"
#include "support/test_seed.h"

using namespace keel;
using namespace keel_test;

namespace {

class Item : public ObjectItem {
 public:
  using ObjectItem::ObjectItem;
  std::atomic<bool> told{false};

 protected:
  void release(bool aborted) override {
    (void)aborted;
    told = true;
  }
};

struct Object {
  explicit Object(std::uint64_t id) : item(std::make_unique<Item>(id)) {}
  std::mutex mutex;
  std::unique_ptr<Item> item;
  bool leaving = false;  // released, and not yet let go
};

// Releases the item, or looks whether it is gone meanwhile; then a new one takes its place.
bool replace(Journal& journal, Object& object) {
  if (!object.leaving) {
    object.leaving = !journal.release(*object.item);
    KEEL_CHECK(object.leaving || !object.item->told, "gone and told");
  } else if (object.item->told) {
    object.leaving = false;
  }
  if (object.leaving) {
    return false;
  }
  KEEL_CHECK(!object.item->pinned() && !object.item->tracked(), "gone");
  object.item = std::make_unique<Item>(1);
  return true;
}

}  // namespace

TEST_CASE(
    "a release that returns true leaves an item that may be destroyed, also while logs wrap") {
  LogWorld world;
  const std::uint64_t seed = test_seed("release", 3);
  const std::string bytes(20'000, 'x');
  std::vector<std::unique_ptr<Object>> objects;
  for (std::uint64_t id = 0; id < 24; ++id) {
    objects.push_back(std::make_unique<Object>(id));
  }
  auto journal = world.open({.cil_memory = Bytes(1U << 20)});
  std::vector<std::thread> threads;
  std::atomic<std::uint64_t> destroyed{0};
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::uint64_t random = seed * 100 + t;
      for (std::uint64_t i = 0; i < test_rounds(2500, 250); ++i) {
        Object& object = *objects[sim_random(random) % objects.size()];
        if (sim_random(random) % 4 == 0) {
          const std::lock_guard<std::mutex> lock(object.mutex);
          destroyed += replace(*journal, object) ? 1 : 0;
          continue;
        }
        auto transaction = journal->begin(21'000, 1);
        if (!transaction) {
          KEEL_CHECK(transaction.error().code == Errc::kLogFull, "begin");
          continue;
        }
        const std::lock_guard<std::mutex> lock(object.mutex);
        if (object.leaving) {
          continue;
        }
        object.item->set(bytes.data(), 1 + sim_random(random) % bytes.size());
        KEEL_CHECK(transaction->log(*object.item).ok(), "log");
        KEEL_CHECK(transaction->commit().ok(), "commit");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(destroyed > 0);
  REQUIRE(journal->force_all().ok());
  yield_until([&] { return journal->stats().in_flight == 0; });
  journal->audit();
  finish(journal);
}

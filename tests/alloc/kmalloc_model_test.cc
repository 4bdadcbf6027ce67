// Random objects of all sizes against a map of what is live, with refusals, releases, wrong frees.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kmalloc.h"
#include "support/extent_memory.h"
#include "support/seeded.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;

namespace {

constexpr std::uint64_t kSteps = 400'000;
constexpr std::uint64_t kAuditEachUntil = 2'000;
constexpr std::uint64_t kAuditEvery = 1'000;

struct Object {
  unsigned char* at;
  std::size_t size;
  std::uint16_t tag;
};

class Model {
 public:
  Model() {
    auto made = Kmalloc::create({memory_.base(), memory_.capacity(), &memory_});
    REQUIRE(made.ok());
    kmalloc_ = std::move(*made);
  }

  void step() {
    const std::uint64_t act = random_(1000);
    if (act < 505) {
      allocate();
    } else if (act < 960) {
      free_one();
    } else if (act < 996) {
      free_wrongly();
    } else if (act < 997) {
      kmalloc_->release();
    } else {
      memory_.refuse_nth(1 + random_(2));
      for (int i = 0; i < 40; ++i) {
        allocate();
      }
      memory_.refuse_nth(0);
    }
  }

  void audit() {
    kmalloc_->audit();
    const KmallocStats stats = kmalloc_->stats();
    REQUIRE(stats.objects == objects_.size());
    REQUIRE(stats.live == Bytes(live_bytes_));
    REQUIRE(stats.held == Bytes(memory_.held() * kPageBytes));
    REQUIRE(stats.bypasses == 0);  // one thread
  }

  void finish() {
    while (!objects_.empty()) {
      free_one();
    }
    audit();
    kmalloc_->release();
    REQUIRE(memory_.held() == 0);
    REQUIRE(kmalloc_->stats().refusals > 0);
  }

 private:
  std::size_t random_size() {
    return random_.one_in(3) ? 1 + random_(kKmallocMaxBytes) : 1 + random_(128);
  }

  void allocate() {
    const std::size_t size = random_size();
    const auto tag = static_cast<std::uint16_t>(random_(std::uint64_t{kMaxKmallocTag} + 1));
    const std::uint64_t failures = memory_.failures();
    auto* at = static_cast<unsigned char*>(kmalloc_->allocate(size, tag));
    if (at == nullptr) {
      REQUIRE(memory_.failures() != failures);  // never for a reason of its own
      return;
    }
    std::memset(at, tag & 0xFF, size);
    live_bytes_ += kmalloc_->size(at);
    objects_.push_back({at, size, tag});
  }

  void free_one() {
    if (objects_.empty()) {
      return;
    }
    std::swap(objects_[random_(objects_.size())], objects_.back());
    const Object object = objects_.back();
    objects_.pop_back();
    const auto mark = static_cast<unsigned char>(object.tag & 0xFF);
    REQUIRE(std::count(object.at, object.at + object.size, mark) ==
            static_cast<std::ptrdiff_t>(object.size));
    const KmallocObject freed = kmalloc_->free(object.at);
    REQUIRE(freed.outcome == KmallocOutcome::kOk);
    REQUIRE(freed.tag == object.tag);
    live_bytes_ -= freed.bytes.value();
    if (random_.one_in(20)) {
      const KmallocObject again = kmalloc_->free(object.at);
      REQUIRE(again.outcome == KmallocOutcome::kDouble);
      REQUIRE(again.tag == object.tag);
    }
  }

  void free_wrongly() {
    if (objects_.empty()) {
      return;
    }
    const Object& object = objects_[random_(objects_.size())];
    const std::size_t bytes = kmalloc_->size(object.at);
    const KmallocObject found = kmalloc_->free(object.at + 1 + random_(bytes - 1));
    REQUIRE(found.outcome == KmallocOutcome::kInterior);
    REQUIRE(found.start == object.at);
    REQUIRE(found.tag == object.tag);
  }

  keel_test::Seeded random_{"kmalloc model"};
  keel_test::ExtentMemory memory_{Pages(1500)};
  std::unique_ptr<Kmalloc> kmalloc_;
  std::vector<Object> objects_;
  std::size_t live_bytes_ = 0;
};

}  // namespace

TEST_CASE("small objects keep their contents and owners, and are counted to the byte") {
  Model model;
  const std::uint64_t steps = keel_test::test_rounds(kSteps, kSteps);
  for (std::uint64_t i = 0; i < steps; ++i) {
    model.step();
    if (i < kAuditEachUntil || i % kAuditEvery == 0) {
      model.audit();
    }
  }
  model.finish();
  keel_test::say_tried("kmalloc_model", steps);
}

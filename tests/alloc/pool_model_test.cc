// Random kvmalloc and kvfree of all sizes near the cap, with failing system calls, purges and
// trims: every buffer keeps what was written to it, and live bytes are exact to the page.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "keel/alloc/pool.h"
#include "support/fault_os.h"
#include "support/seeded.h"
#include "support/test_seed.h"
#include "support/tried.h"

using namespace keel;

namespace {

constexpr std::uint64_t kSteps = 15'000;
constexpr std::uint64_t kAuditEvery = 50;  // a whole pool's audit walks some thousand records
constexpr std::size_t kCapacity = std::size_t{12} << 20;
constexpr std::size_t kComparedWhole = std::size_t{16} << 10;

struct Buffer {
  unsigned char* at;
  std::size_t size;
  std::uint64_t mark;
  std::size_t held;
};

// Differs from byte to byte and from buffer to buffer, so that swapped ones are seen.
unsigned char byte_of(const Buffer& buffer, std::size_t at) {
  const std::uint64_t mixed = (buffer.mark + at) * 0x9e3779b97f4a7c15U;
  return static_cast<unsigned char>(mixed >> 56U);
}

class Model {
 public:
  Model() {
    auto made = Pool::create({.capacity_bytes = kCapacity,
                              .chunk_bytes = std::size_t{1} << 20,
                              .window_bytes = std::size_t{24} << 20,
                              .max_mappings = 2'000,
                              .background = false});  // audits need a quiet pool
    REQUIRE(made.ok());
    pool_ = std::move(*made);
  }

  void step() {
    const std::uint64_t act = random_(100);
    if (act < 52) {
      allocate();
    } else if (act < 96) {
      free_one();
    } else if (act < 97) {
      pool_->purge();
    } else if (act < 98) {
      random_.one_in(2) ? static_cast<void>(pool_->trim()) : pool_->upkeep();
    } else {
      faults_.fail_nth(1 + random_(6));
      allocate();
      faults_.disarm();
    }
  }

  void audit() {
    pool_->audit();
    REQUIRE(pool_->stats().live == Bytes(live_));
    REQUIRE(pool_->stats().populated <= Bytes(kCapacity));
  }

  void finish() {
    while (!buffers_.empty()) {
      free_one();
    }
    audit();
    pool_->trim();
    REQUIRE(pool_->stats().populated == Bytes(0));
    REQUIRE(pool_->stats().mappings == 1);
    REQUIRE(pool_->stats().vmalloc_allocations > 100);
    REQUIRE(pool_->stats().contiguous_allocations > 100);
  }

 private:
  std::size_t random_size() {
    switch (random_(20)) {
      case 0: return 1 + random_(std::size_t{6} << 20);
      case 1:
      case 2: return 1 + random_(std::size_t{1} << 20);
      default: return 1 + random_(std::size_t{80} << 10);
    }
  }

  // All bytes of a small buffer; beyond that the first and last of each page, enough to see a
  // frame given to two owners.
  template <class Act>
  static void for_each_marked(const Buffer& buffer, Act act) {
    const std::size_t whole = std::min(buffer.size, kComparedWhole);
    for (std::size_t at = 0; at < whole; ++at) {
      act(at);
    }
    for (std::size_t at = whole; at < buffer.size; at += kPageBytes) {
      act(at);
      act(std::min(at + kPageBytes, buffer.size) - 1);
    }
  }

  void allocate() {
    Buffer buffer{nullptr, random_size(), random_(std::uint64_t{1} << 40), 0};
    const bool zero = random_.one_in(4);
    const AllocFlags flags = AllocFlags::kNoWarn |
                             (zero ? AllocFlags::kZero : AllocFlags::kKernel) |
                             (random_.one_in(10) ? AllocFlags::kNoWait : AllocFlags::kKernel);
    buffer.at = static_cast<unsigned char*>(pool_->kvmalloc(buffer.size, flags, "model"));
    if (buffer.at == nullptr) {
      return;
    }
    bool clear = true;
    for_each_marked(buffer, [&](std::size_t at) { clear = clear && buffer.at[at] == 0; });
    REQUIRE((clear || !zero));
    for_each_marked(buffer, [&](std::size_t at) { buffer.at[at] = byte_of(buffer, at); });
    // Its own pages, or those of an idle buffer: at most of the class above its own, of which there
    // are eight to a doubling.
    buffer.held = pool_->kvsize(buffer.at);
    REQUIRE(buffer.held >=
            (buffer.size < kPageBytes ? buffer.size : bytes_of(pages_for(buffer.size))));
    REQUIRE(buffer.held <= buffer.size + buffer.size / 4 + kPageBytes);
    live_ += buffer.held;
    buffers_.push_back(buffer);
  }

  void free_one() {
    if (buffers_.empty()) {
      return;
    }
    std::swap(buffers_[random_(buffers_.size())], buffers_.back());
    const Buffer buffer = buffers_.back();
    buffers_.pop_back();
    bool whole = true;
    for_each_marked(buffer,
                    [&](std::size_t at) { whole = whole && buffer.at[at] == byte_of(buffer, at); });
    REQUIRE(whole);
    pool_->kvfree(buffer.at);
    live_ -= buffer.held;
  }

  keel_test::Seeded random_{"pool model"};
  keel_test::FaultOs faults_;
  ScopedOs scope_{faults_};
  std::unique_ptr<Pool> pool_;
  std::vector<Buffer> buffers_;
  std::size_t live_ = 0;
};

}  // namespace

TEST_CASE("buffers of a pool keep their contents and are counted to the page") {
  Model model;
  const std::uint64_t steps = keel_test::test_rounds(kSteps, kSteps);
  for (std::uint64_t i = 0; i < steps; ++i) {
    model.step();
    if (i % kAuditEvery == 0) {
      model.audit();
    }
  }
  model.finish();
  keel_test::say_tried("pool_model", steps);
}

// Campaign: a space of numbered cases, of which a run of the tests does a slice and a campaign all.
//
//   Campaign campaign("bit flips", flips, {.usual = 4000, .sanitized = 400});
//   campaign.run([&](std::uint64_t index) { return check(index); });  // "" if it is as it must be
//
// Without anything set, as many cases as are usual, evenly spread over the space from a seeded
// start (KEEL_TEST_SEED; KEEL_TEST_ROUNDS takes so many times as many). Of a campaign:
//
//   KEEL_CAMPAIGN=all       every case
//   KEEL_CAMPAIGN_FIRST     from this one on (0)
//   KEEL_CAMPAIGN_COUNT     so many (to the end)
//   KEEL_CAMPAIGN_SECONDS   no longer than so long
//
// Any of these makes it one. It ends with a line that says which case would be next, so that it can
// go on there, and what failed: KEEL_CAMPAIGN_FIRST=<case> KEEL_CAMPAIGN_COUNT=1 repeats one.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "support/again.h"
#include "support/test_seed.h"
#include "support/tried.h"

namespace keel_test {

// How many cases without a campaign.
struct Slice {
  std::uint64_t usual;
  std::uint64_t sanitized;
};

class Campaign {
 public:
  Campaign(const char* property, std::uint64_t total, const Slice& slice)
      : property_(property), total_(total) {
    const char* all = std::getenv("KEEL_CAMPAIGN");
    const std::uint64_t count = setting("KEEL_CAMPAIGN_COUNT", UINT64_MAX);
    first_ = setting("KEEL_CAMPAIGN_FIRST", 0);
    seconds_ = setting("KEEL_CAMPAIGN_SECONDS", UINT64_MAX);
    REQUIRE(first_ < total);
    if (all != nullptr || count != UINT64_MAX || first_ != 0 || seconds_ != UINT64_MAX) {
      end_ = total - std::min(first_, total) < count ? total : first_ + count;
      full_ = true;
      return;
    }
    const std::uint64_t wanted = test_rounds(slice.usual, slice.sanitized);
    stride_ = wanted == 0 || wanted >= total ? 1 : total / wanted;
    first_ = stride_ == 1 ? 0 : test_seed(property, 1) % stride_;
    end_ = total;
  }

  // Calls check(index) for each; it returns what is wrong, or nothing.
  template <class Check>
  void run(Check&& check) {
    using Clock = std::chrono::steady_clock;
    const auto started = Clock::now();
    std::uint64_t tried = 0, failures = 0, index = first_;
    double seconds = 0;
    for (; index < end_ && failures < kMostFailures; index += stride_) {
      const std::string fault = check(index);
      ++tried;
      if (!fault.empty()) {
        ++failures;
        FAIL_CHECK(property_ << ", case " << index << ": " << fault
                             << "\nagain: KEEL_CAMPAIGN_FIRST=" << index
                             << " KEEL_CAMPAIGN_COUNT=1 " << this_case_again());
      }
      if (tried % 16 == 0 || index + stride_ >= end_) {
        seconds = std::chrono::duration<double>(Clock::now() - started).count();
        if (seconds >= static_cast<double>(seconds_)) {
          index += stride_;
          break;
        }
      }
    }
    const auto fact = [](const char* name, std::uint64_t value) {
      return " " + std::string(name) + "=" + std::to_string(value);
    };
    say_tried(property_, tried,
              fact("failures", failures) + fact("seconds", static_cast<std::uint64_t>(seconds)) +
                  fact("first", first_) + fact("next", index) + fact("of", total_) + note_);
    CHECK(failures == 0);
  }

  // False: a case may content itself with a part of what it stands for.
  [[nodiscard]] bool full() const { return full_; }
  // What the line says beside.
  void note(const std::string& text) { note_ = " " + text; }

 private:
  static constexpr std::uint64_t kMostFailures = 10;

  const std::string property_;
  const std::uint64_t total_;
  std::uint64_t first_ = 0;
  std::uint64_t end_ = 0;
  std::uint64_t stride_ = 1;
  std::uint64_t seconds_ = UINT64_MAX;
  bool full_ = false;
  std::string note_;
};

}  // namespace keel_test

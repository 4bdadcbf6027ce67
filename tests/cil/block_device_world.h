// Logs on block devices, for tests.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include "keel/cil/journal.h"
#include "keel/cil/log_file.h"
#include "log/log_device.h"
#include "probe.h"

namespace keel_test {

inline constexpr std::uint64_t kDeviceBytes = std::uint64_t{4} << 20;

inline keel::LogConfig whole_device() {
  keel::LogConfig config;
  config.size = keel::Bytes(0);
  return config;
}

inline keel::Errc create_code(const std::string& path, const keel::LogConfig& config) {
  const auto made = keel::create_log(path, config);
  REQUIRE_FALSE(made.ok());
  return made.error().code;
}

// One checkpoint goes in and comes out.
inline void check_usable(const std::string& path) {
  Trace trace;
  Probe item(trace, 1);
  item.regions = {std::string(20000, 'x'), "small"};
  {
    auto journal = keel::Journal::open(path, {}, kIgnore);
    REQUIRE(journal.ok());
    REQUIRE((*journal)->force(commit(**journal, {&item}, 100000)).ok());
    CHECK(keel::Journal::open(path, {}, kIgnore).error().code == keel::Errc::kBusy);
    const auto over = create_code(path, whole_device());
    CHECK(over == (*keel::LogDevice::kind_of(path) == keel::LogDevice::PathKind::kBlockDevice
                       ? keel::Errc::kBusy
                       : keel::Errc::kExists));
  }
  Found found;
  REQUIRE(keel::scan_log(path, collect_into(found)).ok());
  CHECK(found == Found{{1, {{17, item.regions}}}});
}

}  // namespace keel_test

// The first error that a log device is told of, by whoever writes to it.
#include <doctest/doctest.h>

#include <cerrno>

#include "log/log_device.h"
#include "probe.h"

using namespace keel;
using namespace keel_test;

TEST_CASE("a log device keeps the first error that it is told of") {
  const LogWorld world;
  const auto device = LogDevice::open(kLogPath, DeviceMode::kReadWrite, false);
  REQUIRE(device.ok());
  CHECK((*device)->status().ok());
  CHECK((*device)->fail({Errc::kIo, EIO, "first", 1}).error().value == 1);
  CHECK((*device)->fail({Errc::kNoSpace, ENOSPC, "second", 2}).error().value == 1);
  CHECK((*device)->status().error().sys_errno == EIO);
}

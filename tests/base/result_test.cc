#include "keel/base/result.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "keel/base/version.h"
#include "support/death.h"

using keel::Errc;
using keel::Error;
using keel::Result;
using keel::Status;
using keel_test::run_in_child;

TEST_CASE("an error's message names the code, the act, the value and the system's word") {
  CHECK(Error{Errc::kDamaged}.message() == "damaged");
  CHECK(Error{Errc::kLogFull, 0, "begin", 4096}.message() == "log full: begin (4096)");
  CHECK(keel::system_error(EIO, "pwritev2", 512).message() ==
        "I/O error: pwritev2 (512): Input/output error");
}

TEST_CASE("every error code has a name of its own") {
  CHECK(std::strcmp(keel::to_string(static_cast<Errc>(255)), "unknown error") == 0);
  for (int i = 0; i <= static_cast<int>(Errc::kSystem); ++i) {
    CHECK(std::strcmp(keel::to_string(static_cast<Errc>(i)), "unknown error") != 0);
    for (int j = 0; j < i; ++j) {
      CHECK(std::strcmp(keel::to_string(static_cast<Errc>(i)),
                        keel::to_string(static_cast<Errc>(j))) != 0);
    }
  }
}

TEST_CASE("an errno maps to the closest code and is kept") {
  const std::pair<int, Errc> pairs[] = {
      {ENOENT, Errc::kNotFound},  {EEXIST, Errc::kExists},    {EROFS, Errc::kPermission},
      {ENOSPC, Errc::kNoSpace},   {EDQUOT, Errc::kNoSpace},   {ENOMEM, Errc::kNoMemory},
      {EIO, Errc::kIo},           {EAGAIN, Errc::kBusy},      {EOPNOTSUPP, Errc::kUnsupported},
      {EISDIR, Errc::kSystem},    {ENOTDIR, Errc::kNotFound}, {EACCES, Errc::kPermission},
      {EPERM, Errc::kPermission}, {EFBIG, Errc::kNoSpace},    {EBUSY, Errc::kBusy},
      {ENODATA, Errc::kIo},       {EILSEQ, Errc::kIo},        {EREMOTEIO, Errc::kIo},
      {ENOLINK, Errc::kIo},       {ETIMEDOUT, Errc::kIo},     {EBADE, Errc::kIo},
      {EBADMSG, Errc::kIo},       {EUCLEAN, Errc::kIo},
  };
  for (const auto& pair : pairs) {
    const Error error = keel::system_error(pair.first, "open");
    CHECK(error.code == pair.second);
    CHECK(error.sys_errno == pair.first);
  }
}

TEST_CASE("a result holds a value or an error, and hands a value over by move") {
  Result<std::unique_ptr<int>> good = std::make_unique<int>(7);
  REQUIRE(good.ok());
  CHECK(**good == 7);
  const std::unique_ptr<int> taken = std::move(good).value();
  CHECK(*taken == 7);

  const Result<int> bad = Error{Errc::kBusy, 0, "lock"};
  CHECK_FALSE(bad.ok());
  CHECK(bad.error().code == Errc::kBusy);

  CHECK(Status().ok());
  CHECK_FALSE(Status(Error{Errc::kIo}).ok());
}

TEST_CASE("asking a result for what it does not hold aborts") {
  CHECK(run_in_child([] {
          const Result<int> bad = Error{Errc::kBusy, EAGAIN, "lock of the log"};
          (void)bad.value();
        }).aborted_with("lock of the log"));
  CHECK(run_in_child([] {
          const Result<int> good = 1;
          (void)good.error();
        }).aborted_with("holds a value"));
  CHECK(run_in_child([] { (void)Status().error(); }).aborted_with("is ok"));
}

TEST_CASE("the version's parts and its text agree") {
  const std::string text = std::to_string(KEEL_VERSION_MAJOR) + "." +
                           std::to_string(KEEL_VERSION_MINOR) + "." +
                           std::to_string(KEEL_VERSION_PATCH);
  CHECK(text == keel::kVersion);
}

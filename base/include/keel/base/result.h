// Errors as values: what went wrong in the world (I/O, a damaged log, no address space).
//
// A caller's bug is not an Error, it is a bug report (check.h). Error is a plain value without
// allocation, so that the first error of a journal can be kept and handed to every later caller.
#pragma once

#include <cstdint>
#include <new>
#include <string>
#include <utility>
#include <variant>

#include "keel/base/check.h"

namespace keel {

enum class Errc : std::uint8_t {
  kInvalidArgument,
  kNoMemory,
  kNoAddressSpace,
  kNoMappings,   // the window's mapping budget is used up
  kIo,           // a read, write or flush failed; sys_errno says how
  kNoSpace,      // the file system has no room
  kUnsupported,  // for example a file system without O_DIRECT
  kNotALog,
  kBadVersion,
  kDamaged,  // damage below what is known to be stable
  kLogFull,
  kTooLarge,
  kReservationExceeded,
  kShutdown,
  kBusy,  // another process or journal has the log open
  kFutureSequence,
  kTimeout,
  kForked,  // used in a child of the process that opened it
  kExists,
  kNotFound,
  kLagged,  // what was to be read next is no longer in the log
  kPermission,
  kUntrusted,  // somebody else owns the file or may write to it
  kSystem,     // any other system call; sys_errno says how
};

// Name of the code in lower case words, for messages and JSON. Static storage.
[[nodiscard]] const char* to_string(Errc code);

struct Error {
  Errc code = Errc::kSystem;
  int sys_errno = 0;        // 0 where no system call failed
  const char* what = "";    // static storage: the act that failed
  std::uint64_t value = 0;  // what the act was about (bytes, LSN, sequence), as `what` says

  // One line for a person, without a final newline. Allocates.
  [[nodiscard]] std::string message() const;
};

// Maps an errno of a file operation to the closest code.
[[nodiscard]] Error system_error(int sys_errno, const char* what, std::uint64_t value = 0);

// A value or an Error. Asking for the one that is not there is a bug and aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(*-explicit-*)
  Result(Error error) : state_(std::in_place_index<1>, error) {}         // NOLINT(*-explicit-*)

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  [[nodiscard]] T& value() & {
    check_ok();
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] const T& value() const& {
    check_ok();
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] T&& value() && {
    check_ok();
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  [[nodiscard]] const Error& error() const {
    KEEL_CHECK(!ok(), "error() of a Result that holds a value");
    return *std::get_if<1>(&state_);
  }

 private:
  void check_ok() const {
    if (!ok()) [[unlikely]] {
      const Error& error = *std::get_if<1>(&state_);
      KEEL_CHECK(false, error.what, static_cast<std::uint64_t>(error.code),
                 static_cast<std::uint64_t>(error.sys_errno));
    }
  }

  std::variant<T, Error> state_;
};

// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(error), ok_(false) {}  // NOLINT(*-explicit-*)

  [[nodiscard]] bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  [[nodiscard]] const Error& error() const {
    KEEL_CHECK(!ok_, "error() of a Status that is ok");
    return error_;
  }

 private:
  Error error_{};
  bool ok_ = true;
};

}  // namespace keel

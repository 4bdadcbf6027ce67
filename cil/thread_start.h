// The edge where a thread that cannot be started becomes an error value.
#pragma once

#include <new>
#include <system_error>

#include "keel/base/result.h"

namespace keel {

// Calls `start`, which starts threads. Errors: kSystem (the process's limit), kNoMemory.
template <class Start>
[[nodiscard]] Status start_or_say(const char* what, Start&& start) {
  try {
    start();
  } catch (const std::system_error& error) {
    return Error{Errc::kSystem, error.code().value(), what, 0};
  } catch (const std::bad_alloc&) {
    return Error{Errc::kNoMemory, 0, what, 0};
  }
  return {};
}

}  // namespace keel

// The edge where the standard library's std::bad_alloc becomes an error value.
#pragma once

#include <new>
#include <utility>

#include "keel/base/result.h"

namespace keel {

// What `act` returns (a Result or Status), or kNoMemory if it ran out of memory by exception.
template <class Act>
[[nodiscard]] auto no_throw(const char* what, Act&& act) -> decltype(act()) {
  try {
    return std::forward<Act>(act)();
  } catch (const std::bad_alloc&) {
    return Error{Errc::kNoMemory, 0, what, 0};
  }
}

}  // namespace keel

// Opening the log of a process that was killed.
#pragma once

#include "keel/base/result.h"

namespace keel::tools {

// Calls `open` until it gives something else than kBusy, 60 times at most, or until it is to stop:
// of who was killed the kernel may still hold writes, and with them the log's lock, for longer than
// one opening waits for it (a second) on a machine that has much to do.
template <class Open>
auto until_free(const Open& open, bool (*stopped)() = nullptr) {
  constexpr int kTries = 60;
  auto result = open();
  for (int i = 1; i < kTries && !result && result.error().code == Errc::kBusy; ++i) {
    if (stopped != nullptr && stopped()) {
      break;
    }
    result = open();
  }
  return result;
}

}  // namespace keel::tools

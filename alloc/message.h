// Lines for a person, through the hook that set_message_hook() replaces.
#pragma once

#include <optional>

#include "keel/base/units.h"

namespace keel {

class PageAllocator;

// What is said of an allocation that cannot be had.
struct MemoryReport {
  const char* headline;
  std::size_t size_bytes;
  std::uint32_t flags;
  const char* owner;
  std::optional<Bytes> limit;  // of the owner, who holds `limited` of it
  Bytes limited;
  Bytes capacity;
  Bytes populated;
};

// Says it in one line, with the owners that hold most. Allocates nothing.
void send_memory_report(const MemoryReport& report, const PageAllocator& allocator);

}  // namespace keel

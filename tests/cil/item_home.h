// What is home: objects and ranges of memory as plain values, and recovery onto them as a client
// would do it.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "keel/cil/journal.h"
#include "probe.h"

namespace keel_test {

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

struct ItemHome {
  std::map<std::uint64_t, std::string> objects;
  std::map<std::uint64_t, std::string> memory;  // of range items

  void apply(const keel::RecoveredItem& item) {
    if (const auto object = keel::RecoveredObject::from(item)) {
      if (object->erased) {
        objects.erase(object->id);
        return;
      }
      std::string& text = objects[object->id];
      text.resize(object->size_bytes);
      REQUIRE(object->apply_to(std::as_writable_bytes(std::span(text))).ok());
    } else if (const auto range = keel::RecoveredRange::from(item)) {
      std::string& text = memory[range->id];
      text.resize(range->size_bytes);
      REQUIRE(range->apply_to(std::as_writable_bytes(std::span(text))).ok());
    }
  }

  [[nodiscard]] keel::RecoveryHandler handler() {
    return [this](const keel::RecoveredCheckpoint& checkpoint) {
      for (const keel::RecoveredItem& item : checkpoint.items) {
        apply(item);
      }
      return keel::Status{};
    };
  }

  // Of the log in force; the journal must be gone.
  void recover() {
    const auto report = keel::scan_log(kLogPath, handler());
    REQUIRE(report.ok());
    REQUIRE(report->end != keel::LogEnd::kDamaged);
  }
};

// Lengths of the regions of the log's items, checkpoint by checkpoint: "24 16 50 | 24 3".
inline std::string region_sizes(const Found& found) {
  std::string text;
  for (const FoundCheckpoint& checkpoint : found) {
    for (const FoundItem& item : checkpoint.items) {
      text += text.empty() ? "" : " |";
      for (const std::string& region : item.regions) {
        text += (text.empty() ? "" : " ") + std::to_string(region.size());
      }
    }
  }
  return text;
}

}  // namespace keel_test

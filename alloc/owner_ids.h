// OwnerIds: small numbers for owners' names, so that an object of 16 bytes can say whose it is.
//
// Names are told apart by address, not by text: the same text in two libraries is two owners here,
// and one again in reports. A name is never forgotten; when the table is full all further ones are
// kOthers.
// Locks: none. A slot is written once; whoever reads it there relies on nothing else.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace keel {

class OwnerIds {
 public:
  static constexpr unsigned kMost = 1024;
  static constexpr std::uint16_t kOthers = 0;

  // Id of the name, which is static; a new one if it has none. Threads: any.
  [[nodiscard]] std::uint16_t of(const char* name) {
    const std::uintptr_t hash = reinterpret_cast<std::uintptr_t>(name) * 0x9E3779B97F4A7C15ULL;
    const unsigned first = 1 + static_cast<unsigned>(hash >> 48) % (kMost - 1);
    for (unsigned step = 0; step < kMostSteps; ++step) {
      std::atomic<const char*>& slot = names_[1 + (first - 1 + step) % (kMost - 1)];
      const char* found = slot.load(std::memory_order_relaxed);  // See the head comment.
      if (found == nullptr &&
          slot.compare_exchange_strong(found, name, std::memory_order_relaxed)) {
        found = name;
      }
      if (found == name) {
        return static_cast<std::uint16_t>(&slot - names_.data());
      }
    }
    return kOthers;
  }

  [[nodiscard]] const char* name(std::uint16_t id) const {
    const char* found = names_[id].load(std::memory_order_relaxed);  // See the head comment.
    return id == kOthers || found == nullptr ? "(others)" : found;
  }

 private:
  static constexpr unsigned kMostSteps = 64;
  std::array<std::atomic<const char*>, kMost> names_{};
};

}  // namespace keel

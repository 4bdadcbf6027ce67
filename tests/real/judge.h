// The judge: holds what recovery delivers against the ledger.
//
//   1. every sequence that had been promised is there,
//   2. every object has exactly the version that the last recovered sequence left it with: so whole
//      transactions only, and a prefix of the sequences,
//   3. never "damaged", unless the disk lied: then what was handed over before is held to 2.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "keel/cil/recovery.h"
#include "ledger.h"

namespace keel_test {

enum class Fault : std::uint8_t {
  kNone,
  kLost,     // a promised sequence, or an object that is neither in the log nor home
  kPartial,  // bytes of no version, or a part of a transaction
  kHole,     // an object has an older or newer version than the recovered sequence says
  kRefused,  // recovery failed, or took a crash for damage
};

struct Verdict {
  Fault fault = Fault::kNone;
  std::string what;
  bool promised = false;  // there was something that must not be lost
  keel::RecoveryReport report{};
  // What all objects are now, for a next life.
  std::array<Version, kLedgerObjects> now{};
  [[nodiscard]] bool ok() const { return fault == Fault::kNone; }
};

// How the log is read.
enum class Reading : std::uint8_t {
  kScan,  // as it is
  kOpen,  // opened as a journal, which commits and closes; then opened again, where that must be
};

// `lied`: the disk did not do what it said, so a promise may be lost, and damage be found; what is
// delivered must be a prefix all the same.
[[nodiscard]] Verdict judge(const std::string& path, const Ledger& ledger,
                            const PromisesCopy& promises, Reading reading = Reading::kScan,
                            bool lied = false);

}  // namespace keel_test

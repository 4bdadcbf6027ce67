// Moments: snapshots of the file under test, each with what a ledger promised just then: a sample
// of all moments, each as likely as any other, without knowing how many will come.
//
// I1 The ledger is copied before the operation is answered at which the moment is: what depends on
//    the answer cannot be promised in it yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "faultfs/store.h"

namespace faultfs {

struct Moment {
  FileMoment file;
  std::string promises;  // the ledger's part, raw; empty: there is no ledger
};

class Moments {
 public:
  // The first bytes of this file, as it is then, are to be copied with every snapshot. False if it
  // can't be mapped: then there is no ledger.
  [[nodiscard]] bool use_ledger(const std::string& path, std::size_t bytes);

  // Forgets those there are and samples up to `most`.
  void begin(std::size_t most, std::uint64_t seed);
  void end() { most_ = 0; }
  [[nodiscard]] bool wanted() const { return most_ != 0; }

  // One of the moments to be sampled. `in_flight`: a write that is not pending yet, or nullptr.
  void sample(const FaultFile& file, const PendingWrite* in_flight);
  // A moment that is kept whatever the sample.
  void keep(const FaultFile& file, const PendingWrite* in_flight);

  [[nodiscard]] std::size_t size() const { return moments_.size(); }
  [[nodiscard]] std::uint64_t seen() const { return seen_; }
  [[nodiscard]] const Moment& operator[](std::size_t index) const { return moments_[index]; }

 private:
  void put(std::size_t index, const FaultFile& file, const PendingWrite* in_flight);

  const char* ledger_ = nullptr;
  std::size_t ledger_bytes_ = 0;
  std::size_t most_ = 0;
  std::uint64_t seen_ = 0;
  std::uint64_t seed_ = 0;
  std::vector<Moment> moments_;
};

}  // namespace faultfs

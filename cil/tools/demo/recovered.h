// The log's content in memory, built from the checkpoints that recovery hands over, and checked
// after each of them: a checkpoint is all or nothing, so after each one every transaction must be
// whole.
//
// I1 After a checkpoint each worker's transactions are numbers 1 to n, each found once.
// I2 After a checkpoint each object's versions, as the records tell them, are 1 to v, each made
//    once; the object is there at version v, made by the transaction that says so.
// I3 Sequences follow one another without gaps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "demo/record.h"
#include "keel/base/units.h"
#include "keel/cil/recovery.h"

namespace keel::tools {

// What was found wrong: the first few in words, all counted.
class Findings {
 public:
  void add(std::string text);
  void add_all(const Findings& other);
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] const std::vector<std::string>& texts() const { return texts_; }

 private:
  std::uint64_t count_ = 0;
  std::vector<std::string> texts_;
};

struct RecoveredImage {
  std::vector<std::byte> bytes;  // without the trailer
  Trailer trailer{};             // version 0: not in the log
  std::uint32_t recorded_version = 0;
  TransactionName recorded_by{};
};

struct RecoveredTransaction {
  std::uint32_t life = 0;
  Sequence sequence{};
};

class Recovered {
 public:
  explicit Recovered(std::size_t objects) : images_(objects), transactions_(kMostThreads) {}

  void checkpoint(const RecoveredCheckpoint& checkpoint);

  [[nodiscard]] const std::vector<RecoveredImage>& images() const { return images_; }
  [[nodiscard]] std::vector<RecoveredImage>& images() { return images_; }
  // A worker's transactions, number 1 first.
  [[nodiscard]] const std::vector<RecoveredTransaction>& of_worker(std::uint32_t worker) const {
    return transactions_[worker];
  }
  [[nodiscard]] std::uint64_t transaction_count() const;
  [[nodiscard]] std::uint64_t object_count() const;
  [[nodiscard]] Sequence last_sequence() const { return last_; }
  [[nodiscard]] const Findings& findings() const { return findings_; }

 private:
  // What one checkpoint brought.
  struct Batch {
    std::vector<TransactionRecord> records;
    std::vector<std::uint32_t> objects;
  };

  void take_item(const RecoveredItem& item, Batch& batch);
  void take_image(std::uint64_t id, std::vector<std::byte> bytes, Batch& batch);
  void enter_transactions(Batch& batch, Sequence sequence);
  void enter_versions(Batch& batch);
  void check_objects(Batch& batch);

  std::vector<RecoveredImage> images_;
  std::vector<std::vector<RecoveredTransaction>> transactions_;
  Sequence last_{};
  Findings findings_;
};

}  // namespace keel::tools

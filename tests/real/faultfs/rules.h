// Rules of faultfs: which of the operations on the file under test go wrong, and how.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace faultfs {

enum class Op : std::uint8_t { kWrite, kRead, kFsync, kChange };  // kChange: a write or an fsync

enum class Action : std::uint8_t {
  kEio,
  kEnospc,
  kEioDrop,   // fsync: fails, and what it should have made durable never will be
  kShort,     // write: `argument` bytes are written, and told of
  kFlip,      // read: one bit is wrong; `argument` says which, modulo the bits read
  kHang,      // no answer until released
  kLose,      // write: said to be done, not done
  kMisplace,  // write: done `argument` bytes further on
  kDelay,     // the answer comes `argument` milliseconds later
  kLie,       // fsync, or a write that is to be durable: said to be done, nothing became durable
  kOff,       // the power goes before the operation: a snapshot, and then every operation fails
};

[[nodiscard]] const char* name_of(Op op);
[[nodiscard]] const char* name_of(Action action);

struct Rule {
  Op op = Op::kWrite;
  std::uint64_t first = 1;  // of the operations of that kind since the rules were cleared
  std::uint64_t last = 1;
  Action action = Action::kEio;
  std::uint64_t argument = 0;
};

class Rules {
 public:
  // "write 3 3 eio 0"; false if it is none.
  [[nodiscard]] bool add(const std::string& text);
  void clear();
  // Counts the operation and gives the rule that it meets, or nullptr.
  [[nodiscard]] const Rule* meet(Op op);
  [[nodiscard]] std::uint64_t count(Op op) const { return counts_[static_cast<std::size_t>(op)]; }

 private:
  std::vector<Rule> rules_;
  std::array<std::uint64_t, 4> counts_{};
};

}  // namespace faultfs

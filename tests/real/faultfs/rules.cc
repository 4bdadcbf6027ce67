#include "faultfs/rules.h"

#include <sstream>

namespace faultfs {
namespace {

constexpr std::array<const char*, 4> kOps = {"write", "read", "fsync", "change"};
constexpr std::array<const char*, 11> kActions = {
    "eio", "enospc", "eiodrop", "short", "flip", "hang", "lose", "misplace", "delay", "lie", "off"};

template <class Enum, std::size_t N>
bool named(const std::string& name, const std::array<const char*, N>& names, Enum& value) {
  for (std::size_t i = 0; i < N; ++i) {
    if (name == names[i]) {
      value = static_cast<Enum>(i);
      return true;
    }
  }
  return false;
}

}  // namespace

const char* name_of(Op op) { return kOps[static_cast<std::size_t>(op)]; }
const char* name_of(Action action) { return kActions[static_cast<std::size_t>(action)]; }

bool Rules::add(const std::string& text) {
  std::istringstream in(text);
  std::string op;
  std::string action;
  Rule rule;
  if (!(in >> op >> rule.first >> rule.last >> action >> rule.argument) ||
      !named(op, kOps, rule.op) || !named(action, kActions, rule.action)) {
    return false;
  }
  rules_.push_back(rule);
  return true;
}

void Rules::clear() {
  rules_.clear();
  counts_ = {};
}

const Rule* Rules::meet(Op op) {
  const std::uint64_t mine = ++counts_[static_cast<std::size_t>(op)];
  const bool change = op != Op::kRead;
  const std::uint64_t changes = change ? ++counts_[static_cast<std::size_t>(Op::kChange)] : 0;
  for (const Rule& rule : rules_) {
    const bool counts_all = rule.op == Op::kChange && change;
    const std::uint64_t count = counts_all ? changes : mine;
    if ((rule.op == op || counts_all) && count >= rule.first && count <= rule.last) {
      return &rule;
    }
  }
  return nullptr;
}

}  // namespace faultfs

#include "owner_ids.h"

#include <doctest/doctest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

using keel::OwnerIds;

TEST_CASE("an owner's name keeps its id, and the id leads back to it") {
  const auto ids = std::make_unique<OwnerIds>();
  const std::vector<char> names(200);
  std::set<std::uint16_t> seen;
  for (const char& name : names) {
    const std::uint16_t id = ids->of(&name);
    CHECK(id != OwnerIds::kOthers);
    CHECK(id < OwnerIds::kMost);
    CHECK(ids->of(&name) == id);
    CHECK(ids->name(id) == &name);
    seen.insert(id);
  }
  CHECK(seen.size() == names.size());
}

TEST_CASE("owners that came when the table was full are the others, as is an id of nobody") {
  const auto ids = std::make_unique<OwnerIds>();
  CHECK(std::string(ids->name(OwnerIds::kOthers)) == "(others)");
  CHECK(std::string(ids->name(7)) == "(others)");
  const std::vector<char> names(std::size_t{64} * OwnerIds::kMost);
  std::size_t others = 0;
  for (const char& name : names) {
    others += ids->of(&name) == OwnerIds::kOthers ? 1U : 0U;
  }
  CHECK(others >= names.size() - OwnerIds::kMost);
  CHECK(std::string(ids->name(OwnerIds::kOthers)) == "(others)");
}

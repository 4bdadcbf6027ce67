// keel's own items as a log may hold them: each bound broken alone, and nothing is made of it.
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "keel/cil/recovery.h"
#include "log/format.h"

using namespace keel;

namespace {

// An item whose regions are plain strings.
struct Crafted {
  template <class Header>
  Crafted(std::uint32_t item_type, const Header& header, std::vector<std::string> following = {})
      : type(item_type), texts(std::move(following)) {
    texts.insert(texts.begin(), std::string(sizeof header, '\0'));
    std::memcpy(texts[0].data(), &header, sizeof header);
    for (const std::string& text : texts) {
      regions.push_back({{}, std::as_bytes(std::span(text))});
    }
  }
  [[nodiscard]] RecoveredItem item() const { return {type, regions}; }

  std::uint32_t type;
  std::vector<std::string> texts;
  std::vector<RecoveredRegion> regions;
};

Crafted object(format::ObjectHeader header, std::vector<std::string> following) {
  return Crafted(format::kTypeObject, header, std::move(following));
}

bool is_object(format::ObjectHeader header, std::vector<std::string> following) {
  const Crafted crafted = object(header, std::move(following));
  return RecoveredObject::from(crafted.item()).has_value();
}

constexpr auto kWrite = static_cast<std::uint32_t>(format::ObjectOperation::kWrite);
constexpr auto kErase = static_cast<std::uint32_t>(format::ObjectOperation::kErase);

}  // namespace

TEST_CASE("an object in the log is its header and at most one region of as many bytes as it says") {
  CHECK(is_object({7, 3, kWrite, 0}, {"abc"}));
  CHECK(is_object({7, 0, kWrite, 0}, {}));
  CHECK(is_object({7, 0, kErase, 0}, {}));
  CHECK_FALSE(is_object({7, 3, kWrite, 0}, {}));
  CHECK_FALSE(is_object({7, 4, kWrite, 0}, {"abc"}));
  CHECK_FALSE(is_object({7, 0, kWrite, 0}, {"abc"}));
  CHECK_FALSE(is_object({7, 0, kWrite, 0}, {"", ""}));
  CHECK_FALSE(is_object({7, 3, kWrite, 0}, {"abc", "d"}));
  CHECK_FALSE(is_object({7, 3, kErase, 0}, {"abc"}));
  CHECK_FALSE(is_object({7, 3, kErase, 0}, {}));
  CHECK_FALSE(is_object({7, 3, 77, 0}, {"abc"}));
}

TEST_CASE("an item of another type, of no regions or with another header is none of keel's") {
  const Crafted good(format::kTypeDone, format::DoneHeader{5});
  CHECK(RecoveredDone::from(good.item())->id == 5);
  const RecoveredItem empty(format::kTypeDone, {});
  CHECK_FALSE(RecoveredDone::from(empty).has_value());
  const Crafted foreign(format::kFirstClientType, format::DoneHeader{5});
  CHECK_FALSE(RecoveredDone::from(foreign.item()).has_value());
  const Crafted longer(format::kTypeDone, format::IntentHeader{5, 0});
  CHECK_FALSE(RecoveredDone::from(longer.item()).has_value());
  const Crafted with_more(format::kTypeDone, format::DoneHeader{5}, {"x"});
  CHECK_FALSE(RecoveredDone::from(with_more.item()).has_value());
  CHECK_FALSE(RecoveredObject::from(good.item()).has_value());
  CHECK_FALSE(RecoveredRange::from(good.item()).has_value());
  CHECK_FALSE(RecoveredIntent::from(good.item()).has_value());
}

TEST_CASE("an intent in the log has a payload as long as its header says") {
  const auto is_intent = [](std::uint64_t bytes, std::vector<std::string> following) {
    const Crafted crafted(format::kTypeIntent, format::IntentHeader{9, bytes},
                          std::move(following));
    return RecoveredIntent::from(crafted.item()).has_value();
  };
  CHECK(is_intent(0, {}));
  CHECK(is_intent(3, {"abc"}));
  CHECK_FALSE(is_intent(3, {}));
  CHECK_FALSE(is_intent(0, {"abc"}));
  CHECK_FALSE(is_intent(4, {"abc"}));
  CHECK_FALSE(is_intent(3, {"abc", ""}));
}

TEST_CASE("ranges are recovered onto memory of their size and onto no other") {
  const format::Range table{2, 3};
  std::string table_text(sizeof table, '\0');
  std::memcpy(table_text.data(), &table, sizeof table);
  const Crafted crafted(format::kTypeRange, format::RangeHeader{4, 8, 1}, {table_text, "abc"});
  const auto range = RecoveredRange::from(crafted.item());
  REQUIRE(range.has_value());
  std::string memory(8, '-');
  const auto place = std::as_writable_bytes(std::span(memory));
  const Status wrong = range->apply_to(place.first(7));
  REQUIRE_FALSE(wrong.ok());
  CHECK(wrong.error().code == Errc::kInvalidArgument);
  CHECK(wrong.error().value == 8);
  CHECK(memory == "--------");
  REQUIRE(range->apply_to(place).ok());
  CHECK(memory == "--abc---");
  const Crafted none(format::kTypeRange, format::RangeHeader{4, 8, 0});
  CHECK_FALSE(RecoveredRange::from(none.item()).has_value());
}

TEST_CASE("each end of a log has a name, and what is no end has none") {
  CHECK(std::string(to_string(LogEnd::kClean)) == "clean");
  CHECK(std::string(to_string(LogEnd::kTorn)) == "torn");
  CHECK(std::string(to_string(LogEnd::kDamaged)) == "damaged");
  CHECK(std::string(to_string(static_cast<LogEnd>(77))) == "unknown");
}

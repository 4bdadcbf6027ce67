// What the demo writes into the log, so that the parent can tell whole from part:
//   an object   the bytes of its version, then a Trailer that names the version and its transaction
//   a record    one for each transaction: its name, and every (object, version) that it made
//
// A transaction is there in part if its record is there and one of its objects is not, or the other
// way round. Numbers of a worker's transactions run from 1 without gaps, over all lives of a log.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "keel/cil/recovery.h"

namespace keel::tools {

inline constexpr std::uint32_t kMostThreads = 32;
inline constexpr std::uint32_t kMostObjectsInTransaction = 8;

// Life: which of the processes that had the log made the transaction, counted from 1.
struct TransactionName {
  std::uint32_t life = 0;
  std::uint32_t worker = 0;
  std::uint64_t number = 0;
  auto operator<=>(const TransactionName&) const = default;
};
static_assert(sizeof(TransactionName) == 16);

[[nodiscard]] std::string to_string(const TransactionName& name);

struct Trailer {
  std::uint64_t magic = 0;
  TransactionName transaction{};
  std::uint32_t object = 0;
  std::uint32_t version = 0;
};
static_assert(sizeof(Trailer) == 32 && std::has_unique_object_representations_v<Trailer>);
inline constexpr std::uint64_t kTrailerMagic = 0x72656c6961727421U;

void append(std::vector<std::byte>& bytes, Trailer trailer);

struct ObjectVersion {
  std::uint32_t object = 0;
  std::uint32_t version = 0;
  auto operator<=>(const ObjectVersion&) const = default;
};

struct TransactionRecord {
  TransactionName name{};
  std::vector<ObjectVersion> made;
};

// Log object ids: objects count from 1, records have the top bit.
[[nodiscard]] constexpr std::uint64_t object_id(std::uint32_t object) {
  return std::uint64_t{object} + 1;
}
[[nodiscard]] constexpr std::uint64_t record_id(const TransactionName& name) {
  return (std::uint64_t{1} << 63U) | (std::uint64_t{name.worker} << 48U) | name.number;
}
[[nodiscard]] constexpr bool is_record_id(std::uint64_t id) { return (id >> 63U) != 0; }

[[nodiscard]] std::vector<std::byte> encode(const TransactionRecord& record);
[[nodiscard]] std::size_t record_bytes(std::size_t object_count);
// nullopt: not what encode() makes.
[[nodiscard]] std::optional<TransactionRecord> decode_record(const std::vector<std::byte>& bytes);
// Takes the trailer off the end of `bytes`. nullopt: there is none.
[[nodiscard]] std::optional<Trailer> take_trailer(std::vector<std::byte>& bytes);

}  // namespace keel::tools

#include "demo/record.h"

#include <cstring>

namespace keel::tools {
namespace {

constexpr std::uint64_t kRecordMagic = 0x2164726f63657221U;

struct RecordHeader {
  std::uint64_t magic;
  TransactionName name;
  std::uint64_t count;
};
static_assert(sizeof(RecordHeader) == 32);

void append_raw(std::vector<std::byte>& bytes, const void* data, std::size_t size) {
  const auto* from = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), from, from + size);
}

}  // namespace

std::string to_string(const TransactionName& name) {
  return "transaction " + std::to_string(name.number) + " of thread " +
         std::to_string(name.worker + 1) + " in life " + std::to_string(name.life);
}

void append(std::vector<std::byte>& bytes, Trailer trailer) {
  trailer.magic = kTrailerMagic;
  append_raw(bytes, &trailer, sizeof trailer);
}

std::vector<std::byte> encode(const TransactionRecord& record) {
  std::vector<std::byte> bytes;
  bytes.reserve(record_bytes(record.made.size()));
  const RecordHeader header{kRecordMagic, record.name, record.made.size()};
  append_raw(bytes, &header, sizeof header);
  append_raw(bytes, record.made.data(), record.made.size() * sizeof(ObjectVersion));
  return bytes;
}

std::size_t record_bytes(std::size_t object_count) {
  return sizeof(RecordHeader) + object_count * sizeof(ObjectVersion);
}

std::optional<TransactionRecord> decode_record(const std::vector<std::byte>& bytes) {
  RecordHeader header{};
  if (bytes.size() < sizeof header) {
    return std::nullopt;
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kRecordMagic || header.count == 0 ||
      header.count > kMostObjectsInTransaction || header.name.worker >= kMostThreads ||
      bytes.size() != record_bytes(header.count)) {
    return std::nullopt;
  }
  TransactionRecord record{header.name, std::vector<ObjectVersion>(header.count)};
  std::memcpy(record.made.data(), bytes.data() + sizeof header, bytes.size() - sizeof header);
  return record;
}

std::optional<Trailer> take_trailer(std::vector<std::byte>& bytes) {
  Trailer trailer;
  if (bytes.size() < sizeof trailer) {
    return std::nullopt;
  }
  std::memcpy(&trailer, bytes.data() + bytes.size() - sizeof trailer, sizeof trailer);
  if (trailer.magic != kTrailerMagic) {
    return std::nullopt;
  }
  bytes.resize(bytes.size() - sizeof trailer);
  return trailer;
}

}  // namespace keel::tools

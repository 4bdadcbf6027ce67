#include "demo/recovered.h"

#include <algorithm>
#include <utility>

namespace keel::tools {
namespace {

constexpr std::size_t kMostTexts = 10;

std::string object_text(std::uint32_t object) {
  return "object " + std::to_string(object_id(object));
}

}  // namespace

void Findings::add(std::string text) {
  ++count_;
  if (texts_.size() < kMostTexts) {
    texts_.push_back(std::move(text));
  }
}

void Findings::add_all(const Findings& other) {
  for (const std::string& text : other.texts_) {
    add(text);
  }
  count_ += other.count_ - other.texts_.size();
}

void Recovered::checkpoint(const RecoveredCheckpoint& checkpoint) {
  if (checkpoint.sequence != next(last_)) {
    findings_.add("sequence " + std::to_string(checkpoint.sequence.value()) + " follows " +
                  std::to_string(last_.value()));
  }
  last_ = checkpoint.sequence;
  Batch batch;
  for (const RecoveredItem& item : checkpoint.items) {
    take_item(item, batch);
  }
  enter_transactions(batch, checkpoint.sequence);
  enter_versions(batch);
  check_objects(batch);
}

void Recovered::take_item(const RecoveredItem& item, Batch& batch) {
  const auto object = RecoveredObject::from(item);
  if (!object || object->erased) {
    findings_.add("an item that nobody logged, of type " + std::to_string(item.type()));
    return;
  }
  std::vector<std::byte> bytes(object->bytes.size_bytes());
  object->bytes.copy_to(bytes.data(), bytes.size());
  if (!is_record_id(object->id)) {
    take_image(object->id, std::move(bytes), batch);
    return;
  }
  auto record = decode_record(bytes);
  if (!record || record_id(record->name) != object->id) {
    findings_.add("a transaction record that nobody logged");
    return;
  }
  batch.records.push_back(std::move(*record));
}

void Recovered::take_image(std::uint64_t id, std::vector<std::byte> bytes, Batch& batch) {
  const auto trailer = take_trailer(bytes);
  if (!trailer || object_id(trailer->object) != id || trailer->object >= images_.size()) {
    findings_.add("object " + std::to_string(id) + " as nobody logged it");
    return;
  }
  RecoveredImage& image = images_[trailer->object];
  image.trailer = *trailer;
  image.bytes = std::move(bytes);
  batch.objects.push_back(trailer->object);
}

void Recovered::enter_transactions(Batch& batch, Sequence sequence) {
  std::sort(batch.records.begin(), batch.records.end(),
            [](const TransactionRecord& a, const TransactionRecord& b) {
              return std::pair(a.name.worker, a.name.number) <
                     std::pair(b.name.worker, b.name.number);
            });
  for (const TransactionRecord& record : batch.records) {
    auto& found = transactions_[record.name.worker];
    if (record.name.number != found.size() + 1) {
      findings_.add(to_string(record.name) + " follows number " + std::to_string(found.size()));
      continue;
    }
    found.push_back({record.name.life, sequence});
  }
}

void Recovered::enter_versions(Batch& batch) {
  std::vector<std::pair<ObjectVersion, TransactionName>> made;
  for (const TransactionRecord& record : batch.records) {
    for (const ObjectVersion& version : record.made) {
      made.emplace_back(version, record.name);
    }
  }
  std::sort(made.begin(), made.end());
  for (const auto& [version, name] : made) {
    if (version.object >= images_.size()) {
      findings_.add(to_string(name) + " made an object that is not in the plan");
      continue;
    }
    RecoveredImage& image = images_[version.object];
    if (version.version != image.recorded_version + 1) {
      findings_.add(to_string(name) + " made version " + std::to_string(version.version) + " of " +
                    object_text(version.object) + ", after version " +
                    std::to_string(image.recorded_version));
    }
    image.recorded_version = version.version;
    image.recorded_by = name;
    batch.objects.push_back(version.object);
  }
}

void Recovered::check_objects(Batch& batch) {
  std::sort(batch.objects.begin(), batch.objects.end());
  batch.objects.erase(std::unique(batch.objects.begin(), batch.objects.end()), batch.objects.end());
  for (const std::uint32_t object : batch.objects) {
    const RecoveredImage& image = images_[object];
    if (image.trailer.version != image.recorded_version ||
        image.trailer.transaction != image.recorded_by) {
      findings_.add("a transaction in part: " + object_text(object) + " is there at version " +
                    std::to_string(image.trailer.version) + ", its newest transaction made " +
                    std::to_string(image.recorded_version));
    }
  }
}

std::uint64_t Recovered::transaction_count() const {
  std::uint64_t count = 0;
  for (const auto& found : transactions_) {
    count += found.size();
  }
  return count;
}

std::uint64_t Recovered::object_count() const {
  return static_cast<std::uint64_t>(
      std::count_if(images_.begin(), images_.end(),
                    [](const RecoveredImage& image) { return image.trailer.version != 0; }));
}

}  // namespace keel::tools

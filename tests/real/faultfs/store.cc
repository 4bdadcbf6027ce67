#include "faultfs/store.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

namespace faultfs {
namespace {

constexpr const char* kNames[kCuts] = {"none",   "all",     "writes",   "prefix",
                                       "suffix", "torn512", "torn4096", "garbage"};

std::uint64_t page_up(std::uint64_t bytes) { return (bytes + 4095) & ~std::uint64_t{4095}; }

void put(char* image, std::uint64_t image_bytes, std::uint64_t offset, const char* data,
         std::uint64_t bytes) {
  if (offset < image_bytes) {
    std::memcpy(image + offset, data, std::min(bytes, image_bytes - offset));
  }
}

void put_random(char* image, std::uint64_t image_bytes, std::uint64_t offset, std::uint64_t bytes,
                std::uint64_t& seed) {
  for (std::uint64_t done = 0; done < bytes; done += 8) {
    const std::uint64_t word = random_step(seed);
    char data[8];
    std::memcpy(data, &word, sizeof data);
    put(image, image_bytes, offset + done, data, std::min<std::uint64_t>(8, bytes - done));
  }
}

// Each sector by itself.
void put_sectors(char* image, std::uint64_t image_bytes, const PendingWrite& write,
                 std::uint64_t sector, bool garbage, std::uint64_t& seed) {
  const std::uint64_t end = write.offset + write.bytes->size();
  for (std::uint64_t at = write.offset; at < end;) {
    const std::uint64_t next = std::min(end, (at / sector + 1) * sector);
    const std::uint64_t draw = random_step(seed) % (garbage ? 8 : 2);
    if (garbage && draw < 2) {
      put_random(image, image_bytes, at, next - at, seed);
    } else if (draw % 2 == 1) {
      put(image, image_bytes, at, write.bytes->data() + (at - write.offset), next - at);
    }
    at = next;
  }
}

}  // namespace

std::uint64_t random_step(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15U;
  std::uint64_t z = state;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

void apply_cut(char* image, std::uint64_t image_bytes, const Pending& pending, Cut cut,
               std::uint64_t seed) {
  for (const PendingWrite& write : pending) {
    const std::uint64_t bytes = write.bytes->size();
    const std::uint64_t sectors = (bytes + 511) / 512;
    std::uint64_t from = 0;
    std::uint64_t to = bytes;
    if (!write.stable) {
      switch (cut) {
        case Cut::kNone: to = 0; break;
        case Cut::kAll: break;
        case Cut::kWrites: to = random_step(seed) % 2 == 0 ? 0 : bytes; break;
        case Cut::kPrefix: to = std::min(bytes, random_step(seed) % (sectors + 1) * 512); break;
        case Cut::kSuffix: from = std::min(bytes, random_step(seed) % (sectors + 1) * 512); break;
        case Cut::kTorn512: put_sectors(image, image_bytes, write, 512, false, seed); continue;
        case Cut::kTorn4096: put_sectors(image, image_bytes, write, 4096, false, seed); continue;
        case Cut::kGarbage: put_sectors(image, image_bytes, write, 512, true, seed); continue;
      }
    }
    put(image, image_bytes, write.offset + from, write.bytes->data() + from, to - from);
  }
}

bool save(const FileMoment& moment, const char* path) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  const auto put_word = [&](std::uint64_t word) {
    char bytes[8];
    std::memcpy(bytes, &word, sizeof bytes);
    out.write(bytes, sizeof bytes);
  };
  const auto put_bytes = [&](const std::vector<char>& bytes) {
    put_word(bytes.size());
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  };
  put_bytes(moment.durable);
  put_word(moment.pending.size());
  for (const PendingWrite& write : moment.pending) {
    put_word(write.offset);
    put_word(write.stable ? 1 : 0);
    put_bytes(*write.bytes);
  }
  return out.flush().good();
}

bool load(FileMoment& moment, const char* path) {
  std::ifstream in(path, std::ios::binary);
  const auto word = [&] {
    std::uint64_t value = 0;
    char bytes[8] = {};
    in.read(bytes, sizeof bytes);
    std::memcpy(&value, bytes, sizeof value);
    return value;
  };
  const auto take_bytes = [&](std::vector<char>& bytes) {
    bytes.resize(word());
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  };
  take_bytes(moment.durable);
  moment.pending.clear();
  for (std::uint64_t left = word(); in && left > 0; --left) {
    PendingWrite write;
    write.offset = word();
    write.stable = word() != 0;
    std::vector<char> bytes;
    take_bytes(bytes);
    write.bytes = std::make_shared<std::vector<char>>(std::move(bytes));
    moment.pending.push_back(std::move(write));
  }
  return in.good();
}

const char* name_of(Cut cut) { return kNames[static_cast<int>(cut)]; }

bool cut_of(std::string_view name, Cut& cut) {
  for (int i = 0; i < kCuts; ++i) {
    if (name == kNames[i]) {
      cut = static_cast<Cut>(i);
      return true;
    }
  }
  return false;
}

ByteMap::~ByteMap() {
  if (data_ != nullptr) {
    (void)::munmap(data_, mapped_);
  }
}

ByteMap::ByteMap(ByteMap&& other) noexcept { *this = std::move(other); }

ByteMap& ByteMap::operator=(ByteMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

void ByteMap::resize(std::uint64_t bytes) {
  if (page_up(bytes) > mapped_) {
    const std::uint64_t wanted = page_up(bytes);
    void* place = data_ == nullptr ? ::mmap(nullptr, wanted, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                                   : ::mremap(data_, mapped_, wanted, MREMAP_MAYMOVE);
    if (place == MAP_FAILED) {
      std::abort();  // a test tool on a machine without address space
    }
    data_ = static_cast<char*>(place);
    mapped_ = wanted;
  }
  if (bytes < bytes_) {
    std::memset(data_ + bytes, 0, bytes_ - bytes);
  }
  bytes_ = bytes;
}

void FaultFile::resize(std::uint64_t bytes) {
  durable_.resize(bytes);
  current_.resize(bytes);
}

void FaultFile::write(std::uint64_t offset, const char* data, std::size_t bytes, bool stable) {
  if (offset + bytes > size()) {
    resize(offset + bytes);
  }
  put(current_.data(), current_.size(), offset, data, bytes);
  if (stable && pending_.empty()) {
    put(durable_.data(), durable_.size(), offset, data, bytes);
    return;
  }
  pending_.push_back({offset, stable, std::make_shared<std::vector<char>>(data, data + bytes)});
}

std::size_t FaultFile::read(std::uint64_t offset, char* out, std::size_t bytes) const {
  if (offset >= size()) {
    return 0;
  }
  const auto there = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, size() - offset));
  std::memcpy(out, current_.data() + offset, there);
  return there;
}

void FaultFile::flush() {
  apply_cut(durable_.data(), durable_.size(), pending_, Cut::kAll, 0);
  pending_.clear();
}

void FaultFile::drop_pending() {
  dropped_.insert(dropped_.end(), pending_.begin(), pending_.end());
  pending_.clear();
}

// Only there: files under a whole file system are large and mostly empty.
void FaultFile::reread(const Pending& places) {
  for (const PendingWrite& write : places) {
    const std::uint64_t end = std::min(size(), write.offset + write.bytes->size());
    if (write.offset < end) {
      std::memcpy(current_.data() + write.offset, durable_.data() + write.offset,
                  end - write.offset);
    }
  }
}

void FaultFile::cut(Cut cut, std::uint64_t seed) {
  apply_cut(durable_.data(), durable_.size(), pending_, cut, seed);
  reread(pending_);
  reread(dropped_);
  pending_.clear();
  dropped_.clear();
}

FileMoment FaultFile::moment() const {
  return {{durable_.data(), durable_.data() + durable_.size()}, pending_};
}

void FaultFile::become(const FileMoment& moment, Cut cut, std::uint64_t seed) {
  resize(moment.durable.size());
  std::memcpy(durable_.data(), moment.durable.data(), moment.durable.size());
  apply_cut(durable_.data(), durable_.size(), moment.pending, cut, seed);
  std::memcpy(current_.data(), durable_.data(), durable_.size());
  pending_.clear();
  dropped_.clear();
}

}  // namespace faultfs

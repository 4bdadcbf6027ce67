#include "crash_versions.h"

#include <cstring>

#include "probe.h"
#include "support/sim_disk.h"

using namespace keel;

namespace keel_test::crash_lab {

bool is_erasure(Version version) { return version % 13 == 0; }

std::size_t size_of(Version version) {
  std::uint64_t state = version * 77;
  const std::uint64_t draw = sim_random(state);
  if (version >= kLargeVersions && draw % 8 < 6) {
    return 8 + draw / 8 % (768 * 1024);
  }
  switch (draw % 8) {
    case 0: return 4096;
    case 1: return 4096 + draw / 8 % 20000;
    case 2: return 8192 - 8;
    case 3: return 4095;
    default: return 8 + draw / 8 % 4000;
  }
}

std::string content_of(Version version) {
  if (is_erasure(version)) {
    return {};
  }
  std::string bytes = random_bytes(version, size_of(version));
  std::memcpy(bytes.data(), &version, sizeof version);
  return bytes;
}

const std::string& KnownContents::of(Version version) {
  const auto [entry, is_new] = contents_.try_emplace(version);
  if (is_new) {
    bytes_ += size_of(version);
    entry->second = content_of(version);
  }
  return entry->second;
}

void KnownContents::trim() {
  if (bytes_ > kMostBytes) {
    contents_.clear();
    bytes_ = 0;
  }
}

}  // namespace keel_test::crash_lab

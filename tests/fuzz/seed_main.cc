// Writes the inputs that the fuzzers start from, made of real logs: a directory for each fuzzer.
#include <filesystem>
#include <fstream>
#include <string>

#include "fuzz_log.h"
#include "log/format.h"

using namespace keel_fuzz;

namespace {

void write(const std::string& directory, const std::string& name, const std::string& bytes) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/" + name, std::ios::binary) << bytes;
}

// Each seed log as it is, in every way in which it can be read.
void write_images(const std::string& root) {
  for (std::size_t log = 0; log < seed_images().size(); ++log) {
    for (const int way : {0, 3, 5, 7, 224, 255}) {
      const std::string bytes{static_cast<char>(way), static_cast<char>(log)};
      const std::string name = std::to_string(log) + "-" + std::to_string(way);
      write(root + "/log_image", name, bytes);
      write(root + "/tool", name, bytes);
    }
  }
}

// The packed streams of their records, with as many bulk blocks.
void write_streams(const std::string& root) {
  std::size_t count = 0;
  for (const keel::SimContent& image : seed_images()) {
    for (std::size_t at = 2 * kBlock; at + kBlock <= image.size(); at += kBlock) {
      keel::format::RecordHeader header;
      std::memcpy(&header, image.data() + at, sizeof header);
      if (header.magic != keel::format::kRecordMagic || header.packed_bytes > 4000 ||
          header.bulk_blocks >= 40 || header.record_count != 1 || count >= 40) {
        continue;
      }
      std::string bytes{'\x90', static_cast<char>(header.bulk_blocks)};
      bytes += std::string((header.bulk_blocks + 15) / 16, '\x0f');
      bytes.append(reinterpret_cast<const char*>(image.data()) + at + sizeof header,
                   header.packed_bytes);
      write(root + "/checkpoint", std::to_string(count++), bytes);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    (void)std::fputs("usage: keel_fuzz_seeds DIRECTORY\n", stderr);
    return 2;
  }
  (void)fuzz_disk();
  write_images(argv[1]);
  write_streams(argv[1]);
  return 0;
}

// Writes the inputs that the fuzzers start from, made of real logs: a directory for each fuzzer.
#include <filesystem>
#include <fstream>
#include <iterator>
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

// Each with one bit wrong: at many places, with the record's hash repaired and without.
void write_flips(const std::string& root) {
  std::uint64_t random = 1;
  for (std::size_t log = 0; log < seed_images().size(); ++log) {
    for (int i = 0; i < 16; ++i) {
      std::string bytes(8, '\0');
      for (char& byte : bytes) {
        byte = static_cast<char>(keel::sim_random(random));
      }
      bytes[0] = static_cast<char>(160 + i);
      bytes[7] = static_cast<char>(log + (i % 2 == 0 ? 0 : 192));
      write(root + "/log_image", std::to_string(log) + "-flip-" + std::to_string(i), bytes);
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

// Programs of the journal's fuzzer. Any bytes are one, and only long ones get far: to a wrap, to
// several lives, to intents that are finished in a later one.
void write_programs(const std::string& root) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    std::uint64_t random = seed;
    std::string bytes(40 + seed * 12, '\0');
    for (char& byte : bytes) {
      byte = static_cast<char>(keel::sim_random(random));
    }
    write(root + "/journal", std::to_string(seed), bytes);
  }
  // mode; an intent, committed; its done, in the same checkpoint, and in a later one after a force
  // and after a reopening; a range changed, forced, home and changed again.
  const std::string intent("\x13\x20i", 3), commit("\x06", 1), force("\x09", 1);
  const std::string done("\x14\x00", 2), alone("\x15\x01\x00", 3), reopen("\x0c\x00", 2);
  const std::string range("\x10\xc0r\x07\x01\x40", 6), home("\x17\x06", 2);
  const std::string programs[] = {
      intent + commit + done + force,
      intent + force + done + force,
      intent + intent + done + force,
      intent + force + intent + force + alone + force,
      intent + force + range + force + reopen + alone + force,
      range + force + home + range + force + reopen + range + force,
  };
  for (std::size_t i = 0; i < std::size(programs); ++i) {
    for (char mode = 0; mode < 8; mode = static_cast<char>(mode + 1)) {
      write(root + "/journal", std::to_string(i) + "-" + std::to_string(mode), mode + programs[i]);
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
  write_flips(argv[1]);
  write_streams(argv[1]);
  write_programs(argv[1]);
  return 0;
}

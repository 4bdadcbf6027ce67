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

// A program that writes `value` at `offset` of a log's record, with right hashes afterwards.
std::string poke(std::size_t log, std::size_t record, std::size_t offset, std::uint64_t value) {
  std::string bytes{'\0',
                    static_cast<char>(log),
                    '\1',
                    static_cast<char>(record),
                    static_cast<char>(offset % 256),
                    static_cast<char>(offset / 256),
                    '\7'};
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

// Every field of the first records' headers wrong, each by a little and by much; and tables of
// ranges that do not fit what they are ranges of, or overlap.
void write_pokes(const std::string& root) {
  constexpr std::size_t kLog = 1;
  const keel::SimContent& image = seed_images()[kLog];
  std::size_t record = 0, count = 0;
  const auto add = [&](std::size_t offset, std::uint64_t value) {
    write(root + "/log_image", "poke-" + std::to_string(count++),
          poke(kLog, record, offset, value));
  };
  for (std::size_t at = 2 * kBlock; record < 3; at += kBlock) {
    keel::format::RecordHeader header;
    std::memcpy(&header, image.data() + at, sizeof header);
    if (header.magic != keel::format::kRecordMagic) {
      continue;
    }
    const auto word = [&](std::size_t offset) {
      std::uint64_t value = 0;
      std::memcpy(&value, image.data() + at + offset, sizeof value);
      return value;
    };
    for (std::size_t offset = 0; record == 1 && offset < sizeof header; offset += 8) {
      for (const std::uint64_t change : {std::uint64_t{1}, std::uint64_t{kBlock}}) {
        add(offset, word(offset) + change);
      }
    }
    std::size_t place = sizeof header;
    while (place < sizeof header + header.packed_bytes) {
      const auto type = static_cast<std::uint32_t>(word(place));
      const auto regions = static_cast<std::uint32_t>(word(place) >> 32);
      place += 8;
      for (std::uint32_t i = 0; i < regions; ++i) {
        const std::size_t rest = word(place) >> 32;
        place += 8;
        const bool ranged = type <= keel::format::kTypeRange && regions > 2;
        if (ranged && i == 0) {
          add(place + 8, 1);  // of how many bytes
        } else if (ranged && i == 1) {
          for (std::size_t entry = 0; entry < rest; entry += 16) {
            add(place + entry, entry == 0 ? UINT64_MAX : 0);  // where it stands
          }
        }
        place += (rest + 7) / 8 * 8;
      }
    }
    ++record;
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
  // mode; buffers of the C API, grown, cut, freed by a size of 0; statistics into little room
  write(root + "/pool", "c",
        std::string("\x00\x0b\x01\x01\x40\x01\x09\x01\x01\x80\x09\x01\x01\x20\x13\x05"
                    "\x09\x01\x01\x00\x13\x00",
                    22));
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
  write_pokes(argv[1]);
  write_streams(argv[1]);
  write_programs(argv[1]);
  return 0;
}

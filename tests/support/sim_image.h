// What a simulated file holds at one moment, and what a crash at that moment leaves of it.
//
// An image is the stable bytes and, in order, the operations that no flush has made stable. A crash
// decides about each of them, sector by sector: kept, dropped, or damaged. By seed (SimCrash gives
// the odds), or by a function with which a test enumerates all subsets (SimMask).
//
// The model is the worst that a disk may do, not what one disk does:
// I1 Operations not yet flushed survive in any combination; only an overlap keeps their order.
// I2 A damaged sector is damaged whole, also those of its bytes that the write did not touch.
// I3 Same image, same seed, same options: same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "support/sim_bytes.h"

namespace keel {

enum class SimFate : std::uint8_t {
  kKeep,
  kDrop,
  kGarbage,  // random bytes
  kTorn,     // the first half new, the rest as it was
};

// What a crash asks about: one sector of one pending operation.
struct SimSector {
  // kResize (file size) and kName (directory entry) have one "sector"; all but kKeep drops it.
  enum class Kind : std::uint8_t { kData, kResize, kName };
  Kind kind = Kind::kData;
  std::string_view path;     // "" for a file without a name
  std::size_t write = 0;     // number of the operation among all that the crash asks about
  std::size_t sector = 0;    // within the operation
  std::size_t index = 0;     // number of this question; they count up from 0
  std::uint64_t offset = 0;  // in the file, of the sector's first byte
};

// Called once for each sector, in order.
using SimMask = std::function<SimFate(const SimSector&)>;

// Odds of a seeded crash.
struct SimCrash {
  std::size_t sector_bytes = 512;
  // First, one draw for the whole crash: in so many of 100 the operations before a random one are
  // kept, that one is torn and the rest dropped; in so many of 100 all meet the same fate; else
  // each one its own.
  unsigned ordered_percent = 20;
  unsigned uniform_percent = 20;
  // Then the fate of an operation, by weight: kept whole, dropped whole, or sector by sector.
  unsigned keep_weight = 1;
  unsigned drop_weight = 1;
  unsigned tear_weight = 2;
  // Then, sector by sector, so many of 100 garbage and torn; the rest kept or dropped, evenly.
  unsigned garbage_percent = 15;
  unsigned torn_percent = 10;
};

// An operation that no flush has covered.
struct SimWrite {
  std::uint64_t sequence = 0;              // of the I/O that made it
  std::uint64_t offset = 0;                // a resize: the new size
  std::shared_ptr<const SimContent> data;  // null: a resize
  bool durable = false;  // stable by itself (O_DSYNC, RWF_DSYNC), waiting for older ones only

  void apply(SimBytes& content) const;
};

struct SimImage {
  SimBytes stable;
  std::vector<SimWrite> pending;

  // What a flush does: everything pending becomes stable.
  void settle();
  // The bytes that a crash leaves.
  [[nodiscard]] SimContent materialize(std::uint64_t seed, const SimCrash& odds = {}) const;
  [[nodiscard]] SimContent materialize(const SimMask& mask, std::size_t sector_bytes = 512) const;
  // How many questions a crash asks about this file.
  [[nodiscard]] std::size_t sectors(std::size_t sector_bytes = 512) const;
  // How many operations it asks about.
  [[nodiscard]] std::size_t writes() const;
};

// One step of SplitMix64, the generator of everything seeded here.
[[nodiscard]] std::uint64_t sim_random(std::uint64_t& state);

// The mask of a seeded crash over `writes` operations. Good for one crash.
[[nodiscard]] SimMask sim_seeded_mask(std::uint64_t seed, const SimCrash& odds, std::size_t writes);

// One crash going over any number of files and names, numbering its questions.
class SimDamage {
 public:
  SimDamage(const SimMask& mask, std::size_t sector_bytes, std::uint64_t garbage_seed)
      : mask_(mask), sector_bytes_(sector_bytes), garbage_seed_(garbage_seed) {}

  [[nodiscard]] SimBytes apply(const SimImage& image, std::string_view path);
  [[nodiscard]] bool keeps_name(std::string_view path);

 private:
  SimFate ask(SimSector sector);
  void apply_data(const SimWrite& write, std::string_view path, SimBytes& out);
  void fill_garbage(std::uint64_t offset, std::size_t bytes, SimBytes& out) const;

  const SimMask& mask_;
  std::size_t sector_bytes_;
  std::uint64_t garbage_seed_;
  std::size_t write_ = 0;
  std::size_t index_ = 0;
};

}  // namespace keel

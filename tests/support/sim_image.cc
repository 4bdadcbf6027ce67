#include "support/sim_image.h"

#include <algorithm>
#include <cstring>

#include "keel/base/check.h"
#include "keel/base/units.h"

namespace keel {
namespace {

// Draws fates in the order that SimCrash describes.
class SeededFates {
 public:
  SeededFates(std::uint64_t seed, const SimCrash& odds, std::size_t writes)
      : odds_(odds), random_(seed) {
    const std::uint64_t draw = sim_random(random_) % 100;
    if (draw < odds.ordered_percent) {
      mode_ = Mode::kOrdered;
      cut_ = sim_random(random_) % (writes + 1);
    } else if (draw < odds.ordered_percent + odds.uniform_percent) {
      mode_ = Mode::kUniform;
      fate_ = draw_operation();
    }
  }

  SimFate operator()(const SimSector& sector) {
    if (sector.sector == 0) {
      start_operation(sector.write);
    }
    switch (fate_) {
      case Operation::kKeep: return SimFate::kKeep;
      case Operation::kDrop: return SimFate::kDrop;
      case Operation::kTear: break;
    }
    return draw_sector();
  }

 private:
  enum class Mode { kEach, kOrdered, kUniform };
  enum class Operation { kKeep, kDrop, kTear };

  void start_operation(std::size_t write) {
    if (mode_ == Mode::kEach) {
      fate_ = draw_operation();
    } else if (mode_ == Mode::kOrdered) {
      fate_ =
          write < cut_ ? Operation::kKeep : (write == cut_ ? Operation::kTear : Operation::kDrop);
    }
  }

  Operation draw_operation() {
    const std::uint64_t total = odds_.keep_weight + odds_.drop_weight + odds_.tear_weight;
    KEEL_CHECK(total != 0, "a crash needs a fate of non-zero weight");
    const std::uint64_t draw = sim_random(random_) % total;
    if (draw < odds_.keep_weight) {
      return Operation::kKeep;
    }
    return draw < odds_.keep_weight + odds_.drop_weight ? Operation::kDrop : Operation::kTear;
  }

  SimFate draw_sector() {
    const std::uint64_t draw = sim_random(random_) % 100;
    if (draw < odds_.garbage_percent) {
      return SimFate::kGarbage;
    }
    if (draw < odds_.garbage_percent + odds_.torn_percent) {
      return SimFate::kTorn;
    }
    return (sim_random(random_) & 1) != 0 ? SimFate::kKeep : SimFate::kDrop;
  }

  SimCrash odds_;
  std::uint64_t random_;
  Mode mode_ = Mode::kEach;
  Operation fate_ = Operation::kKeep;
  std::size_t cut_ = 0;
};

}  // namespace

std::uint64_t sim_random(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15U;
  std::uint64_t mixed = state;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
  return mixed ^ (mixed >> 31);
}

SimMask sim_seeded_mask(std::uint64_t seed, const SimCrash& odds, std::size_t writes) {
  return SeededFates(seed, odds, writes);
}

void SimWrite::apply(SimBytes& content) const {
  if (data) {
    content.write(offset, data->data(), data->size());
  } else {
    content.resize(offset);
  }
}

void SimImage::settle() {
  for (const SimWrite& write : pending) {
    write.apply(stable);
  }
  pending.clear();
}

SimContent SimImage::materialize(std::uint64_t seed, const SimCrash& odds) const {
  const SimMask mask = sim_seeded_mask(seed, odds, writes());
  return SimDamage(mask, odds.sector_bytes, seed).apply(*this, "").flat();
}

SimContent SimImage::materialize(const SimMask& mask, std::size_t sector_bytes) const {
  return SimDamage(mask, sector_bytes, 0).apply(*this, "").flat();
}

std::size_t SimImage::sectors(std::size_t sector_bytes) const {
  std::size_t count = 0;
  for (const SimWrite& write : pending) {
    if (write.durable) {
      continue;
    }
    const std::uint64_t bytes = write.data ? write.data->size() : 0;
    const std::uint64_t first = round_down(write.offset, sector_bytes);
    count += write.data ? (write.offset + bytes - first + sector_bytes - 1) / sector_bytes : 1;
  }
  return count;
}

std::size_t SimImage::writes() const {
  return static_cast<std::size_t>(std::count_if(
      pending.begin(), pending.end(), [](const SimWrite& write) { return !write.durable; }));
}

SimFate SimDamage::ask(SimSector sector) {
  sector.write = write_;
  sector.index = index_++;
  return mask_(sector);
}

bool SimDamage::keeps_name(std::string_view path) {
  const SimFate fate = ask({.kind = SimSector::Kind::kName, .path = path});
  ++write_;
  return fate == SimFate::kKeep;
}

SimBytes SimDamage::apply(const SimImage& image, std::string_view path) {
  KEEL_CHECK(is_power_of_two(sector_bytes_), "sector size", sector_bytes_);
  SimBytes out = image.stable;
  for (const SimWrite& write : image.pending) {
    if (write.durable) {
      write.apply(out);
      continue;
    }
    if (write.data) {
      apply_data(write, path, out);
    } else if (ask({.kind = SimSector::Kind::kResize, .path = path, .offset = write.offset}) ==
               SimFate::kKeep) {
      write.apply(out);
    }
    ++write_;
  }
  return out;
}

void SimDamage::apply_data(const SimWrite& write, std::string_view path, SimBytes& out) {
  const std::uint64_t end = write.offset + write.data->size();
  std::size_t number = 0;
  for (std::uint64_t start = round_down(write.offset, sector_bytes_); start < end;
       start += sector_bytes_) {
    const SimFate fate = ask({.path = path, .sector = number++, .offset = start});
    const std::uint64_t from = std::max(start, write.offset);
    const std::byte* data = write.data->data() + (from - write.offset);
    const std::size_t bytes = std::min(start + sector_bytes_, end) - from;
    switch (fate) {
      case SimFate::kKeep: out.write(from, data, bytes); break;
      case SimFate::kDrop: break;
      case SimFate::kTorn: out.write(from, data, bytes / 2); break;
      case SimFate::kGarbage:
        // All of the sector that the file has, or gets by this write.
        fill_garbage(start, std::min(start + sector_bytes_, std::max(end, out.size())) - start,
                     out);
        break;
    }
  }
}

void SimDamage::fill_garbage(std::uint64_t offset, std::size_t bytes, SimBytes& out) const {
  std::uint64_t random = garbage_seed_ ^ (index_ * 0xd6e8feb86659fd93U);
  SimContent garbage(round_up(bytes, sizeof random));
  for (std::size_t at = 0; at < garbage.size(); at += sizeof random) {
    const std::uint64_t value = sim_random(random);
    std::memcpy(garbage.data() + at, &value, sizeof value);
  }
  out.write(offset, garbage.data(), bytes);
}

}  // namespace keel

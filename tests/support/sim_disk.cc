// What a test does with the disk: crash, snapshot, content, log, faults. The Os calls stand in
// sim_disk_files.cc and sim_disk_io.cc.
#include "support/sim_disk.h"

#include <algorithm>
#include <set>
#include <utility>

#include "keel/base/check.h"

namespace keel {
namespace {

constexpr std::string_view kPrefix = "/sim/";

std::string_view name_of(std::string_view path) {
  KEEL_CHECK(path.substr(0, kPrefix.size()) == kPrefix, "a simulated file is named /sim/...");
  return path.substr(kPrefix.size());
}

}  // namespace

const SimImage& SimSnapshot::file(std::string_view path) const {
  const auto entry = names.find(name_of(path));
  KEEL_CHECK(entry != names.end(), "no such file in the snapshot");
  return files.at(entry->second).image;
}

std::size_t SimSnapshot::sectors(std::size_t sector_bytes) const {
  std::size_t count = pending_names.size();
  for (const auto& entry : files) {
    count += entry.second.image.sectors(sector_bytes);
  }
  return count;
}

std::size_t SimSnapshot::writes() const {
  std::size_t count = pending_names.size();
  for (const auto& entry : files) {
    count += entry.second.image.writes();
  }
  return count;
}

void SimDisk::crash(std::uint64_t seed, const SimCrash& odds) {
  MutexLock lock(mutex_);
  const SimSnapshot before = take_snapshot();
  const SimMask mask = sim_seeded_mask(seed, odds, before.writes());
  reboot(before, SimDamage(mask, odds.sector_bytes, seed));
}

void SimDisk::crash_with(const SimMask& mask, std::size_t sector_bytes) {
  MutexLock lock(mutex_);
  reboot(take_snapshot(), SimDamage(mask, sector_bytes, 0));
}

SimSnapshot SimDisk::snapshot() const {
  MutexLock lock(mutex_);
  return take_snapshot();
}

void SimDisk::boot(const SimSnapshot& before, std::uint64_t seed, const SimCrash& odds) {
  MutexLock lock(mutex_);
  const SimMask mask = sim_seeded_mask(seed, odds, before.writes());
  reboot(before, SimDamage(mask, odds.sector_bytes, seed));
}

void SimDisk::boot_with(const SimSnapshot& before, const SimMask& mask, std::size_t sector_bytes) {
  MutexLock lock(mutex_);
  reboot(before, SimDamage(mask, sector_bytes, 0));
}

SimSnapshot SimDisk::take_snapshot() const {
  SimSnapshot taken;
  for (const auto& entry : files_) {
    taken.files.emplace(entry.first, entry.second.disk);
  }
  taken.names = names_;
  taken.stable_names = stable_names_;
  taken.pending_names = pending_names_;
  taken.random_draws = random_draws_.load(std::memory_order_relaxed);  // a count, orders nothing
  return taken;
}

// Asks about the names first, then about the files in the order of their creation.
void SimDisk::reboot(const SimSnapshot& before, SimDamage damage) {
  names_ = before.stable_names;
  for (const SimSnapshot::NameChange& change : before.pending_names) {
    if (!damage.keeps_name("/sim/" + change.name)) {
      continue;
    }
    if (change.file == 0) {
      names_.erase(change.name);
    } else {
      names_[change.name] = change.file;
    }
  }
  stable_names_ = names_;
  pending_names_.clear();
  descriptors_.clear();
  first_live_descriptor_ = next_descriptor_;
  random_draws_.store(before.random_draws, std::memory_order_relaxed);

  std::map<std::uint64_t, std::string> paths;
  for (const auto& entry : before.names) {
    paths[entry.second] = "/sim/" + entry.first;
  }
  files_.clear();
  for (const auto& entry : before.files) {
    File file;
    file.path = paths[entry.first];
    file.cached = damage.apply(entry.second.image, file.path);
    file.disk = entry.second;
    file.disk.image = {file.cached, {}};
    files_.emplace(entry.first, std::move(file));
    next_file_ = std::max(next_file_, entry.first + 1);
  }
  for (const auto& entry : names_) {
    files_.at(entry.second).path = "/sim/" + entry.first;
  }
  drop_unreachable();
}

// A file lives while a descriptor, a name or a name that a crash may bring back stands for it.
void SimDisk::drop_unreachable() {
  std::set<std::uint64_t> reachable;
  for (const auto& entry : descriptors_) {
    reachable.insert(entry.second.file);
  }
  for (const SimNames* names : {&names_, &stable_names_}) {
    for (const auto& entry : *names) {
      reachable.insert(entry.second);
    }
  }
  for (const SimSnapshot::NameChange& change : pending_names_) {
    reachable.insert(change.file);
  }
  std::erase_if(files_, [&](const auto& entry) { return reachable.count(entry.first) == 0; });
}

const SimDisk::File& SimDisk::named(std::string_view path) const {
  const auto entry = names_.find(name_of(path));
  KEEL_CHECK(entry != names_.end(), "no such file on the simulated disk");
  return files_.at(entry->second);
}

SimDisk::File& SimDisk::named(std::string_view path) {
  const auto entry = names_.find(name_of(path));
  KEEL_CHECK(entry != names_.end(), "no such file on the simulated disk");
  return files_.at(entry->second);
}

SimContent SimDisk::image(std::string_view path) const {
  MutexLock lock(mutex_);
  return named(path).cached.flat();
}

void SimDisk::set_image(std::string_view path, const SimContent& content) {
  MutexLock lock(mutex_);
  const std::string name(name_of(path));
  if (names_.count(name) == 0) {
    names_[name] = add_file(0600);
  }
  stable_names_[name] = names_[name];
  std::erase_if(pending_names_, [&](const auto& change) { return change.name == name; });
  File& file = named(path);
  file.path = path;
  file.cached = SimBytes(content);
  file.disk.image = {file.cached, {}};
}

bool SimDisk::exists(std::string_view path) const {
  MutexLock lock(mutex_);
  return names_.count(name_of(path)) != 0;
}

void SimDisk::set_owner(std::string_view path, mode_t mode, uid_t uid) {
  MutexLock lock(mutex_);
  File& file = named(path);
  file.disk.mode = mode;
  file.disk.uid = uid;
}

void SimDisk::flip_bit(std::string_view path, std::uint64_t offset, unsigned bit) {
  MutexLock lock(mutex_);
  File& file = named(path);
  for (SimBytes* content : {&file.disk.image.stable, &file.cached}) {
    std::byte value{};
    if (content->read(offset, &value, 1) == 1) {
      value ^= std::byte{1} << (bit % 8);
      content->write(offset, &value, 1);
    }
  }
}

std::vector<SimIo> SimDisk::io_log() const {
  MutexLock lock(mutex_);
  return log_;
}

void SimDisk::clear_io_log() {
  MutexLock lock(mutex_);
  log_.clear();
}

void SimDisk::on_io(std::function<void(const SimIo&)> hook) {
  MutexLock lock(mutex_);
  hook_ = hook ? std::make_shared<const Hook>(std::move(hook)) : nullptr;
}

void SimDisk::on_durable_write(std::function<void(const SimDurableWrite&)> hook) {
  auto shared = hook ? std::make_shared<const DurableWriteHook>(std::move(hook)) : nullptr;
  MutexLock lock(mutex_);
  durable_write_hook_ = std::move(shared);
}

void SimDisk::record(SimIo& io, std::int64_t result) {
  io.sequence = ++last_sequence_;
  io.result = result;
  log_.push_back(io);
}

std::int64_t SimDisk::announce(const SimIo& io) {
  std::shared_ptr<const Hook> hook;
  {
    MutexLock lock(mutex_);
    hook = hook_;
  }
  if (hook) {
    (*hook)(io);
  }
  return io.result;
}

void SimDisk::inject(const SimFault& fault) {
  MutexLock lock(mutex_);
  faults_.push_back({fault, 0});
}

void SimDisk::clear_faults() {
  MutexLock lock(mutex_);
  faults_.clear();
}

std::optional<SimFault> SimDisk::take_fault(SimIo& io) {
  std::optional<SimFault> taken;
  for (ArmedFault& armed : faults_) {
    const SimFault& fault = armed.fault;
    if ((fault.op != SimOp::kAny && fault.op != io.op) ||
        (!fault.path.empty() && fault.path != io.path)) {
      continue;
    }
    ++armed.seen;
    const bool due = armed.seen == fault.nth || (fault.for_good && armed.seen > fault.nth);
    if (due && !taken) {
      taken = fault;
      io.faulty = true;
      advance_clock(fault.delay_ns);
    }
  }
  return taken;
}

int SimDisk::fail_if_asked(SimIo& io) {
  const std::optional<SimFault> fault = take_fault(io);
  const bool fails = fault && (fault->effect == SimFault::Effect::kFail ||
                               fault->effect == SimFault::Effect::kFailAndDrop);
  return fails ? -fault->error : 0;
}

void SimDisk::advance_clock(std::uint64_t duration_ns) {
  clock_ns_.fetch_add(duration_ns, std::memory_order_relaxed);  // a count, orders nothing
}

}  // namespace keel

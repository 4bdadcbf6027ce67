#include "faultfs/fault_io.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace faultfs {
namespace {

// `rule`: nullptr, or one of kDelay.
void delay(const Rule* rule) {
  if (rule != nullptr) {
    (void)::usleep(static_cast<useconds_t>(rule->argument * 1000));
  }
}

}  // namespace

FaultIo::FaultIo(Directory& directory, Moments& moments, const char* log)
    : directory_(directory),
      moments_(moments),
      log_(log != nullptr ? std::fopen(log, "we") : nullptr, std::fclose) {}

void FaultIo::read(fuse_req_t request, InodeNumber number, std::size_t bytes,
                   std::uint64_t offset) {
  const bool target = is_target(number);
  if (target && !power_) {
    (void)fuse_reply_err(request, EIO);
    return;
  }
  const Rule* rule = target ? rules_.meet(Op::kRead) : nullptr;
  buffer_.resize(bytes);
  const std::size_t there = directory_.inode(number)->file.read(offset, buffer_.data(), bytes);
  if (rule != nullptr) {
    say("read", rule, offset, bytes);
    if (rule->action == Action::kEio) {
      (void)fuse_reply_err(request, EIO);
      return;
    }
    if (rule->action == Action::kFlip && there > 0) {
      const std::uint64_t bit = rule->argument % (there * 8);
      buffer_[bit / 8] = static_cast<char>(buffer_[bit / 8] ^ (1 << (bit % 8)));
    }
    if (rule->action == Action::kShort) {
      (void)fuse_reply_buf(request, buffer_.data(), std::min<std::size_t>(there, rule->argument));
      return;
    }
    if (rule->action == Action::kHang) {
      hold([this, request, number, bytes, offset] { read(request, number, bytes, offset); },
           request);
      return;
    }
  }
  (void)fuse_reply_buf(request, buffer_.data(), there);
}

void FaultIo::write(fuse_req_t request, InodeNumber number, const std::string& data,
                    std::uint64_t offset, bool durable) {
  FaultFile& file = directory_.inode(number)->file;
  if (!is_target(number)) {
    file.write(offset, data.data(), data.size(), true);
    (void)fuse_reply_write(request, data.size());
    return;
  }
  if (!power_) {
    (void)fuse_reply_err(request, EIO);
    return;
  }
  const Rule* rule = rules_.meet(Op::kWrite);
  PendingWrite in_flight;
  if (moments_.wanted() || (rule != nullptr && rule->action == Action::kOff)) {
    in_flight = {offset, false, std::make_shared<std::vector<char>>(data.begin(), data.end())};
    moments_.sample(file, &in_flight);
  }
  if (rule != nullptr) {
    say("write", rule, offset, data.size());
    if (rule->action == Action::kOff) {
      lose_power(request, file, &in_flight);
      return;
    }
    if (rule->action == Action::kHang) {
      hold(
          [this, request, number, data, offset, durable] {
            apply_write(request, directory_.inode(number)->file, data, offset, durable, nullptr);
          },
          request);
      return;
    }
  }
  apply_write(request, file, data, offset, durable, rule);
}

void FaultIo::apply_write(fuse_req_t request, FaultFile& file, const std::string& data,
                          std::uint64_t offset, bool durable, const Rule* rule) {
  std::size_t bytes = data.size();
  std::uint64_t place = offset;
  switch (rule != nullptr ? rule->action : Action::kDelay) {
    case Action::kEio:
    case Action::kEioDrop: (void)fuse_reply_err(request, EIO); return;
    case Action::kEnospc: (void)fuse_reply_err(request, ENOSPC); return;
    case Action::kShort: bytes = std::min<std::size_t>(bytes, rule->argument); break;
    case Action::kLose: (void)fuse_reply_write(request, bytes); return;
    case Action::kMisplace:
      place = std::min<std::uint64_t>(offset + rule->argument, file.size() - bytes);
      break;
    case Action::kLie: durable = false; break;
    case Action::kDelay: delay(rule); break;
    default: break;
  }
  file.write(place, data.data(), bytes, durable);
  moments_.sample(file, nullptr);
  (void)fuse_reply_write(request, bytes);
}

void FaultIo::fsync(fuse_req_t request, InodeNumber number) {
  FaultFile& file = directory_.inode(number)->file;
  if (!is_target(number)) {
    file.flush();
    (void)fuse_reply_err(request, 0);
    return;
  }
  if (!power_) {
    (void)fuse_reply_err(request, EIO);
    return;
  }
  moments_.sample(file, nullptr);
  const Rule* rule = rules_.meet(Op::kFsync);
  if (rule != nullptr) {
    say("fsync", rule, 0, 0);
    if (rule->action == Action::kOff) {
      lose_power(request, file, nullptr);
      return;
    }
    if (rule->action == Action::kHang) {
      hold([this, request,
            number] { apply_fsync(request, directory_.inode(number)->file, nullptr); },
           request);
      return;
    }
  }
  apply_fsync(request, file, rule);
}

void FaultIo::apply_fsync(fuse_req_t request, FaultFile& file, const Rule* rule) {
  switch (rule != nullptr ? rule->action : Action::kDelay) {
    case Action::kEnospc: (void)fuse_reply_err(request, ENOSPC); return;
    case Action::kEioDrop: file.drop_pending(); [[fallthrough]];
    case Action::kEio: (void)fuse_reply_err(request, EIO); return;
    case Action::kLie: (void)fuse_reply_err(request, 0); return;
    case Action::kDelay: delay(rule); break;
    default: break;
  }
  file.flush();
  moments_.sample(file, nullptr);
  (void)fuse_reply_err(request, 0);
}

void FaultIo::clear() {
  rules_.clear();
  faults_ = 0;
  power_ = true;
  refuses_space_ = false;
}

void FaultIo::power_off() {
  power_ = false;
  std::list<Held> held;
  held.swap(held_);
  for (const Held& one : held) {
    (void)fuse_reply_err(one.request, EIO);
  }
}

void FaultIo::lose_power(fuse_req_t request, const FaultFile& file, const PendingWrite* in_flight) {
  moments_.keep(file, in_flight);
  power_off();
  (void)fuse_reply_err(request, EIO);
}

bool FaultIo::cut(Cut cut, std::uint64_t seed) {
  Inode* inode = directory_.inode(directory_.number_of(target_));
  if (inode == nullptr) {
    return false;
  }
  inode->file.cut(cut, seed);
  say("cut", nullptr, seed, inode->file.size());
  return true;
}

void FaultIo::hold(std::function<void()> go, fuse_req_t request) {
  held_.push_back({std::move(go), request});
  if (tell_hold_) {
    std::exchange(tell_hold_, nullptr)();
  }
}

std::size_t FaultIo::release() {
  rules_.clear();
  std::list<Held> held;
  held.swap(held_);
  for (const Held& one : held) {
    one.go();
  }
  return held.size();
}

void FaultIo::say(const char* what, const Rule* rule, std::uint64_t offset, std::uint64_t bytes) {
  ++faults_;
  if (log_ != nullptr) {
    (void)std::fprintf(log_.get(), "%s %s %llu at %llu, %llu bytes\n", what,
                       rule != nullptr ? name_of(rule->action) : "power",
                       static_cast<unsigned long long>(rule != nullptr ? rule->argument : 0),
                       static_cast<unsigned long long>(offset),
                       static_cast<unsigned long long>(bytes));
    (void)std::fflush(log_.get());
  }
}

}  // namespace faultfs

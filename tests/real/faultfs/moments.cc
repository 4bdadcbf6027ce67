#include "faultfs/moments.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace faultfs {

bool Moments::use_ledger(const std::string& path, std::size_t bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* place = fd < 0 ? MAP_FAILED : ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  (void)::close(fd);
  ledger_ = place == MAP_FAILED ? nullptr : static_cast<const char*>(place);
  ledger_bytes_ = bytes;
  return ledger_ != nullptr;
}

void Moments::begin(std::size_t most, std::uint64_t seed) {
  moments_.clear();
  seen_ = 0;
  most_ = most;
  seed_ = seed;
}

void Moments::sample(const FaultFile& file, const PendingWrite* in_flight) {
  if (!wanted()) {
    return;
  }
  ++seen_;
  std::size_t index = moments_.size();
  if (index == most_) {
    index = random_step(seed_) % seen_;
  }
  if (index < most_) {
    put(index, file, in_flight);
  }
}

void Moments::keep(const FaultFile& file, const PendingWrite* in_flight) {
  put(moments_.size(), file, in_flight);
}

void Moments::put(std::size_t index, const FaultFile& file, const PendingWrite* in_flight) {
  if (index >= moments_.size()) {
    moments_.resize(index + 1);
  }
  Moment& moment = moments_[index];
  moment.file = file.moment();
  if (in_flight != nullptr) {
    moment.file.pending.push_back(*in_flight);
  }
  moment.promises.clear();
  if (ledger_ != nullptr) {
    moment.promises.assign(ledger_, ledger_bytes_);
  }
}

}  // namespace faultfs

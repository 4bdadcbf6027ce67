// SimScheduledDisk: a simulated disk whose I/O takes time, by the clock of a SimScheduler, and lets
// other threads run meanwhile; clock, sleeps and all that is random are the scheduler's too.
//
// Each operation: a point, a while drawn by the seed, the operation as a whole (SimDisk's locks are
// no points), a note in the trace. Metadata that is allocated is noted, and may fail: for a while,
// or never again, by the seed. What is not of the simulated disk goes to the kernel untold.
// Threads: those of the scheduler; the call of any other one aborts, since no seed would order it.
#pragma once

#include "support/sim_disk.h"
#include "support/sim_scheduler.h"

namespace keel {

struct SimLatency {
  std::uint64_t write_ns = 20'000;  // up to twice that
  std::uint64_t flush_ns = 100'000;
  std::uint64_t read_ns = 20'000;
  unsigned slow_one_in = 0;            // an operation takes so much more; 0: never
  std::uint64_t slow_ns = 50'000'000;  // less than what a watchdog reports
};

class SimScheduledDisk : public SimDisk {
 public:
  SimScheduledDisk(SimScheduler& scheduler, const SimDiskOptions& options,
                   const SimLatency& latency)
      : SimDisk(options), owner_(scheduler), latency_(latency) {}

  // One in so many allocations of metadata fails; 0: none.
  void refuse_metadata(unsigned one_in) { refuse_one_in_ = one_in; }
  [[nodiscard]] std::uint64_t refused() const { return refused_; }

  int open(const char* path, int flags, mode_t mode) override;
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) override;
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override;
  ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                  int flags) override;
  int fdatasync(int fd) override;
  int fsync(int fd) override;
  int ring_create(int fd, const struct iovec* buffers, int buffer_count, unsigned entries,
                  OsRing** out) override;
  int ring_submit(OsRing* ring, const RingWrite& write) override;
  int ring_wait(OsRing* ring, bool block, RingDone* out) override;
  std::uint64_t monotonic_ns() override;
  std::uint64_t realtime_ns() override;
  void sleep_ns(std::uint64_t duration_ns) override;
  std::uint64_t random64() override;
  void* metadata_allocate(std::size_t bytes) override;

 private:
  void take_time(std::uint64_t usual_ns);
  template <class Operation>
  auto run(const char* what, std::uint64_t usual_ns, std::uint64_t offset, Operation operation);
  // The calling thread's.
  [[nodiscard]] SimScheduler& scheduler() const;

  SimScheduler& owner_;
  const SimLatency latency_;
  unsigned refuse_one_in_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace keel

// shift: how much memory stays when the sizes that a program uses change?
//
// At most 512 MiB are live, in sizes log-uniform over whole pages. In a phase random buffers are
// replaced until four times that much has been allocated anew, each page written:
//   small 4K to 64K, large 256K to 4M, back 4K to 64K, mixed 4K to 4M.
// Figures: resident (Pss) over live at the end of each phase. Then all is freed, the program sleeps
// (12 s), and what is resident still is held against the highest that was seen.
#include <cmath>
#include <ctime>
#include <vector>

#include "keel/measure/process.h"
#include "memory/workload.h"

namespace keel::bench {
namespace {

struct Phase {
  const char* name;
  std::size_t least_bytes;
  std::size_t most_bytes;
};

constexpr Phase kPhases[] = {{"small", 4 * kKiB, 64 * kKiB},
                             {"large", 256 * kKiB, 4 * kMiB},
                             {"back", 4 * kKiB, 64 * kKiB},
                             {"mixed", 4 * kKiB, 4 * kMiB}};
constexpr std::size_t kReplacements = 4;
constexpr std::size_t kSampleBytes = 128 * kMiB;  // allocated between two looks at the memory

class LiveSet {
 public:
  LiveSet(const Backend& backend, std::size_t most_bytes)
      : backend_(backend), most_bytes_(most_bytes) {
    buffers_.reserve(most_bytes / kPageBytes);  // virtual until used
  }

  // Allocates `total_bytes` in sizes of the phase, in the place of random others.
  void churn(const Phase& phase, std::size_t total_bytes) {
    std::size_t since_sample = 0;
    for (std::size_t done = 0; done < total_bytes;) {
      const std::size_t bytes = next_size(phase);
      while (live_ + bytes > most_bytes_) {
        free_at(next_random(random_) % buffers_.size());
      }
      void* buffer = backend_.allocate(bytes);
      need(buffer, bytes);
      fill(buffer, bytes);
      buffers_.push_back({buffer, bytes});
      live_ += bytes;
      done += bytes;
      if ((since_sample += bytes) >= kSampleBytes) {
        since_sample = 0;
        (void)look();
      }
    }
  }

  void free_all() {
    while (!buffers_.empty()) {
      free_at(buffers_.size() - 1);
    }
  }

  // Resident now; keeps the peak.
  std::uint64_t look() {
    const std::uint64_t resident = resident_bytes();
    peak_ = resident > peak_ ? resident : peak_;
    return resident;
  }

  [[nodiscard]] std::size_t live() const { return live_; }
  [[nodiscard]] std::uint64_t peak() const { return peak_; }

 private:
  struct Buffer {
    void* start;
    std::size_t bytes;
  };

  std::size_t next_size(const Phase& phase) {
    const double u = static_cast<double>(next_random(random_) >> 11) * 0x1p-53;
    const double ratio =
        static_cast<double>(phase.most_bytes) / static_cast<double>(phase.least_bytes);
    const double bytes = static_cast<double>(phase.least_bytes) * std::pow(ratio, u);
    return round_up(static_cast<std::size_t>(bytes), kPageBytes);
  }

  void free_at(std::size_t at) {
    backend_.free(buffers_[at].start);
    live_ -= buffers_[at].bytes;
    buffers_[at] = buffers_.back();
    buffers_.pop_back();
  }

  const Backend& backend_;
  const std::size_t most_bytes_;
  std::vector<Buffer> buffers_;
  std::size_t live_ = 0;
  std::uint64_t peak_ = 0;
  std::uint64_t random_ = 88172645463325252;
};

}  // namespace

void run_shift(const Backend& backend, const WorkloadOptions& options, FigureList& figures) {
  (void)pin_to_cpu(0);
  const std::size_t most_bytes = options.smoke ? 16 * kMiB : 512 * kMiB;
  LiveSet set(backend, most_bytes);
  set.churn(kPhases[0], most_bytes);  // fills it
  for (const Phase& phase : kPhases) {
    set.churn(phase, kReplacements * most_bytes);
    figures.emplace_back(phase.name,
                         static_cast<double>(set.look()) / static_cast<double>(set.live()));
  }
  set.free_all();
  (void)set.look();
  if (options.idle_s <= 0) {
    return;
  }
  const double idle_s = options.smoke ? 0.01 : options.idle_s;
  const timespec idle{static_cast<time_t>(idle_s),
                      static_cast<long>((idle_s - std::floor(idle_s)) * 1e9)};
  nanosleep(&idle, nullptr);
  const auto peak = static_cast<double>(set.peak());
  figures.emplace_back("idle", static_cast<double>(set.look()) / peak);
  figures.emplace_back("peak_mib", peak / static_cast<double>(kMiB));
}

}  // namespace keel::bench

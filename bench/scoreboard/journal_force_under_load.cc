// journal.force_under_load.*: how long does a small force take while somebody else writes much?
//
// A thread commits 256 B and forces it, every millisecond; another commits objects of 64 KiB, each
// under a new key, and does not wait. The limit for writes is the raw O_DIRECT writer, measured
// just before.
//
//   .idle     p99 of the force, nobody else there; reported
//   .paced    p99 while the other commits at a quarter of the raw bandwidth, over .idle (at most 3)
//   .full     p99 of: time of a force over its bound, while the other commits as fast as it can
//             (at most 1). The bound of a force is 1.5 x the time that the raw writer takes for
//             what was committed and unstable when it began, and 2 x .idle.
//   .within   share of those forces within their bound; reported

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "keel/measure/ticks.h"
#include "log_bench/keel_engine.h"
#include "raw/raw_writer.h"
#include "scoreboard/family.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kLargeBytes = std::size_t{64} << 10;
constexpr std::size_t kSmallBytes = 256;
constexpr std::uint64_t kForcePeriodNs = 1'000'000;

double quantile(std::vector<double> values, double q) {
  const auto rank = static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[static_cast<std::size_t>(rank)];
}

// Bytes committed under each sequence. One thread adds, another asks.
class SequenceBytes {
 public:
  void add(Sequence sequence, std::uint64_t bytes) {
    Slot& slot = slots_[sequence.value() % kSlots];
    if (slot.sequence.load(std::memory_order_relaxed) != sequence.value()) {
      slot.bytes.store(0, std::memory_order_relaxed);
      slot.sequence.store(sequence.value(), std::memory_order_release);  // pairs with between()
    }
    slot.bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  // Of the sequences above `after`, up to `last`.
  [[nodiscard]] std::uint64_t between(Sequence after, Sequence last) const {
    std::uint64_t sum = 0;
    for (std::uint64_t sequence = after.value() + 1; sequence <= last.value(); ++sequence) {
      const Slot& slot = slots_[sequence % kSlots];
      if (slot.sequence.load(std::memory_order_acquire) == sequence) {
        sum += slot.bytes.load(std::memory_order_relaxed);
      }
    }
    return sum;
  }

 private:
  static constexpr std::size_t kSlots = 1024;  // far more than are unstable at a time
  struct Slot {
    std::atomic<std::uint64_t> sequence{0};
    std::atomic<std::uint64_t> bytes{0};
  };
  std::vector<Slot> slots_ = std::vector<Slot>(kSlots);
};

// Commits large objects while it lives, `bytes_per_s` of them, or as many as go.
class Load {
 public:
  Load(KeelEngine& engine, double bytes_per_s)
      : thread_([this, &engine, bytes_per_s] { work(engine, bytes_per_s); }) {}
  ~Load() {
    stop_.store(true, std::memory_order_relaxed);
    thread_.join();
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  [[nodiscard]] const SequenceBytes& bytes() const { return bytes_; }

 private:
  void work(KeelEngine& engine, double bytes_per_s) {
    const TouchedBytes object(kLargeBytes);
    const Stopwatch watch;
    for (std::uint64_t key = 0; !stop_.load(std::memory_order_relaxed); ++key) {
      const Status status = engine.commit(0, key, object.data());
      KEEL_CHECK(status.ok(), "the load's commit failed");
      bytes_.add(engine.last_sequence(0), kLargeBytes);
      if (bytes_per_s > 0) {
        const double ahead_s = static_cast<double>(key * kLargeBytes) / bytes_per_s;
        if (const double early_s = ahead_s - watch.seconds(); early_s > 0) {
          os().sleep_ns(static_cast<std::uint64_t>(early_s * 1e9));
        }
      }
    }
  }

  SequenceBytes bytes_;
  std::atomic<bool> stop_{false};  // relaxed: nothing is published with it
  std::thread thread_;             // last: it uses the others
};

struct Force {
  double seconds = 0;
  std::uint64_t unstable_bytes = 0;  // when it began
};

class Forcer {
 public:
  explicit Forcer(Journal& journal) : journal_(journal), bytes_(kSmallBytes), item_(1) {
    item_.set(bytes_.data(), kSmallBytes);
  }

  // One force a period, for `seconds`. `load`: nullptr for none.
  Result<std::vector<Force>> run(double seconds, const Load* load) {
    std::vector<Force> forces;
    for (const Stopwatch watch; watch.seconds() < seconds || forces.size() < 5;) {
      os().sleep_ns(kForcePeriodNs);
      const auto sequence = commit();
      if (!sequence) {
        return sequence.error();
      }
      const std::uint64_t unstable =
          load == nullptr ? 0 : load->bytes().between(journal_.stable_sequence(), *sequence);
      const Stopwatch force_watch;
      if (auto status = journal_.force(*sequence); !status) {
        return status.error();
      }
      forces.push_back({force_watch.seconds(), unstable});
    }
    return forces;
  }
  // No checkpoint may hold the item when it goes.
  Status let_go() {
    auto status = journal_.force_all();
    while (status.ok() && !journal_.release(item_)) {
      std::this_thread::yield();
    }
    return status;
  }

 private:
  Result<Sequence> commit() {
    auto transaction = journal_.begin(ObjectItem::log_bytes(kSmallBytes), 1);
    if (!transaction) {
      return transaction.error();
    }
    if (auto status = transaction->log(item_); !status) {
      return status.error();
    }
    return transaction->commit();
  }

  Journal& journal_;
  const TouchedBytes bytes_;
  ObjectItem item_;
};

double p99_of(const std::vector<Force>& forces) {
  std::vector<double> seconds;
  for (const Force& force : forces) {
    seconds.push_back(force.seconds);
  }
  return quantile(seconds, 0.99);
}

// Times over bounds.
std::vector<double> ratios_of(const std::vector<Force>& forces, double raw_bytes_per_s,
                              double idle_s) {
  std::vector<double> ratios;
  for (const Force& force : forces) {
    const double write_s = static_cast<double>(force.unstable_bytes) / raw_bytes_per_s;
    ratios.push_back(force.seconds / (1.5 * write_s + 2 * idle_s));
  }
  return ratios;
}

struct Rig {
  std::unique_ptr<RawWriter> raw;
  std::unique_ptr<KeelEngine> engine;  // before the forcer goes its journal must
  std::unique_ptr<Forcer> forcer;
  std::size_t raw_units = 0;
  std::size_t raw_unit_bytes = 0;
  double seconds = 0;  // of each part

  ~Rig() {
    if (forcer != nullptr) {
      (void)forcer->let_go();
    }
  }
};

Result<Figures> sample(Rig& rig) {
  const auto raw_s = rig.raw->write_units(rig.raw_units);
  if (!raw_s) {
    return raw_s.error();
  }
  const double raw = static_cast<double>(rig.raw_units * rig.raw_unit_bytes) / *raw_s;
  const auto idle = rig.forcer->run(rig.seconds, nullptr);
  if (!idle) {
    return idle.error();
  }
  const double idle_s = p99_of(*idle);
  const auto loaded = [&rig](double bytes_per_s) {
    const Load load(*rig.engine, bytes_per_s);
    return rig.forcer->run(rig.seconds, &load);
  };
  const auto paced = loaded(raw / 4);
  if (!paced) {
    return paced.error();
  }
  const auto full = loaded(0);
  if (!full) {
    return full.error();
  }
  const std::vector<double> ratios = ratios_of(*full, raw, idle_s);
  const auto within = std::count_if(ratios.begin(), ratios.end(), [](double r) { return r <= 1; });
  return Figures{
      {"idle", idle_s * 1e6},
      {"paced", p99_of(*paced) / idle_s},
      {"full", quantile(ratios, 0.99)},
      {"within", static_cast<double>(within) / static_cast<double>(ratios.size())},
      {"full_ms", p99_of(*full) * 1e3},
  };
}

Result<Study> prepare(const Setting& setting) {
  auto rig = std::make_shared<Rig>();
  rig->seconds = setting.smoke ? 0.05 : 2;
  rig->raw_units = setting.smoke ? 1 : 12;
  rig->raw_unit_bytes = (setting.smoke ? 4 : 24) * kMiB;
  auto raw =
      RawWriter::create(setting.dir + "/raw", {.block_bytes = 4 * kMiB,
                                               .unit_bytes = rig->raw_unit_bytes,
                                               .file_bytes = rig->raw_units * rig->raw_unit_bytes});
  if (!raw) {
    return raw.error();
  }
  rig->raw = std::move(*raw);
  EngineConfig config;
  config.dir = setting.dir;
  config.use = EngineUse::kAsync;
  config.object_bytes = kLargeBytes;
  config.log = Bytes((setting.smoke ? 32 : 256) * kMiB);
  auto engine = KeelEngine::open(config);
  if (!engine) {
    return engine.error();
  }
  rig->engine = std::move(*engine);
  rig->forcer = std::make_unique<Forcer>(rig->engine->journal());
  Study study;
  study.ours = [rig] { return sample(*rig); };
  return study;
}

const FamilyRegistration kForces{
    {{figure_row("journal.force_under_load.idle", "idle", "us", Goal::kReported, 0,
                 "force of 256 B each millisecond, 99 % of them"),
      figure_row("journal.force_under_load.paced", "paced", "x", Goal::kOursAtMost, 3.0,
                 "beside commits of 64 KiB at a quarter of raw bandwidth: p99 over the idle one"),
      figure_row("journal.force_under_load.full", "full", "x", Goal::kOursAtMost, 1.0,
                 "beside as many as go: 99 % of (time of a force over its bound)"),
      figure_row("journal.force_under_load.full_ms", "full_ms", "ms", Goal::kReported, 0,
                 "of those forces, 99 %"),
      figure_row("journal.force_under_load.within", "within", "x", Goal::kReported, 0,
                 "share of those forces within their bound")},
     prepare}};

}  // namespace
}  // namespace keel::bench

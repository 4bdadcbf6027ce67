// Power cuts of a file system on faultfs, at moments before and after its writes and flushes.
//
// Many cuts leave the same: of one pending block there is little to leave out, and a moment after a
// write is often the one before the next. A state is a log's bytes and what was promised then; each
// of a life is judged and counted once.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>
#include <unordered_set>

#include "campaigns.h"
#include "fuse_lab.h"
#include "judge.h"
#include "keel/base/check.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::Cut;
using faultfs::random_step;

constexpr std::uint64_t kMoments = 32;
constexpr std::uint64_t kCutsOfMoment = 24;

// A file in memory that becomes what cuts leave of one moment, one after the other: only what was
// pending differs.
class ImageFile {
 public:
  ImageFile(std::string path, const faultfs::FileMoment& moment)
      : path_(std::move(path)), moment_(moment), bytes_(moment.durable.size()) {
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    KEEL_CHECK(fd >= 0 && ::ftruncate(fd, static_cast<off_t>(bytes_)) == 0, "an image");
    void* place = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    KEEL_CHECK(place != MAP_FAILED, "map an image");
    (void)::close(fd);
    image_ = static_cast<char*>(place);
    std::memcpy(image_, moment_.durable.data(), bytes_);
    for (const faultfs::PendingWrite& write : moment_.pending) {
      const std::uint64_t end = std::min<std::uint64_t>(bytes_, write.offset + write.bytes->size());
      for (std::uint64_t at = write.offset / kBlock; at * kBlock < end; ++at) {
        touched_.insert(at);
      }
    }
    for (std::uint64_t at = 0; at * kBlock < bytes_; ++at) {
      untouched_hash_ += touched_.count(at) == 0 ? hash_of(at) : 0;
    }
  }
  ~ImageFile() { (void)::munmap(image_, bytes_); }
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;

  void make(Cut cut, std::uint64_t seed) {
    for (const faultfs::PendingWrite& write : moment_.pending) {
      const std::uint64_t end = std::min<std::uint64_t>(bytes_, write.offset + write.bytes->size());
      std::memcpy(image_ + write.offset, moment_.durable.data() + write.offset, end - write.offset);
    }
    faultfs::apply_cut(image_, bytes_, moment_.pending, cut, seed);
  }
  // Of all bytes, whichever of them were pending: the same for two moments that hold the same.
  [[nodiscard]] std::uint64_t hash() const {
    std::uint64_t sum = untouched_hash_;
    for (const std::uint64_t at : touched_) {
      sum += hash_of(at);
    }
    return sum;
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  static constexpr std::uint64_t kBlock = 4096;

  [[nodiscard]] std::uint64_t hash_of(std::uint64_t block) const {
    const std::uint64_t at = block * kBlock;
    std::uint64_t mixed =
        std::hash<std::string_view>()({image_ + at, std::min(kBlock, bytes_ - at)}) + block;
    return random_step(mixed);
  }

  const std::string path_;
  const faultfs::FileMoment& moment_;
  const std::uint64_t bytes_;
  char* image_ = nullptr;
  std::set<std::uint64_t> touched_;  // blocks with anything pending
  std::uint64_t untouched_hash_ = 0;
};

std::uint64_t hash_of(const PromisesCopy& promises) {
  char bytes[sizeof promises];
  std::memcpy(bytes, &promises, sizeof promises);
  return std::hash<std::string_view>()({bytes, sizeof bytes});
}

// All moments of the life that has just ended, cut in ways of all kinds.
void cut_all(FuseLab& lab, Tally& tally, std::uint64_t seed, std::uint64_t moments,
             std::uint64_t& random, std::uint64_t& same) {
  std::unordered_set<std::uint64_t> judged;
  for (std::uint64_t i = 0; i < moments; ++i) {
    const PromisesCopy promises = lab.disk()->promises(i);
    const faultfs::FileMoment moment = lab.disk()->moment(i, lab.path("moment"));
    ImageFile image(lab.path("image"), moment);
    for (std::uint64_t k = 0; k < kCutsOfMoment; ++k) {
      // None and all once: they have no seed.
      const auto cut = static_cast<Cut>(k < faultfs::kCuts ? k : 2 + k % (faultfs::kCuts - 2));
      const std::uint64_t cut_seed = random_step(random);
      const bool opens = random_step(random) % 16 == 0;
      image.make(cut, cut_seed);
      if (!judged.insert(image.hash() ^ hash_of(promises)).second) {
        ++same;
        continue;
      }
      Verdict verdict;
      if (opens) {
        // Recovered by a journal, and through the file system that lost the power.
        lab.disk()->make_image("image", i, cut, cut_seed);
        verdict = judge(*lab.disk() / "image", *lab.ledger(), promises, Reading::kOpen);
      } else {
        verdict = judge(image.path(), *lab.ledger(), promises);
      }
      tally.count(verdict, *lab.ledger(), true, replay_of("fuse", seed));
      if (!verdict.ok()) {
        tally.failures.back() += " (moment " + std::to_string(i) + ", cut " + name_of(cut) + " " +
                                 std::to_string(cut_seed) + ")";
        return;
      }
    }
  }
}

// The writer has closed its log, so it needs nothing that was not flushed.
void cut_closed(FuseLab& lab, Tally& tally, std::uint64_t seed) {
  lab.disk()->cut(Cut::kNone, 0);
  const Verdict verdict = judge(*lab.disk() / "log", *lab.ledger(), lab.ledger().promises());
  tally.count(verdict, *lab.ledger(), true, replay_of("fuse", seed));
  if (tally.ok() && verdict.report.end != LogEnd::kClean) {
    tally.fail("a log that was closed is not clean: " + verdict.report.message(),
               replay_of("fuse", seed));
  }
}

void lives_of(FuseLab& lab, Tally& tally, std::uint64_t seed, std::uint64_t& same,
              std::uint64_t& closed) {
  std::uint64_t random = seed * 1000003;
  const bool large = seed % 8 == 7;
  if (!tally.log_made(lab.make_log(large ? FuseLab::kLargeLog : FuseLab::kSmallLog),
                      replay_of("fuse", seed))) {
    return;
  }
  for (int depth = 0; depth < 3 && tally.ok(); ++depth) {
    lab.disk()->take_snapshots(lab.ledger(), large ? kMoments / 4 : kMoments, random_step(random));
    // The last moment is a real cut: from then on the writer meets EIO.
    lab.disk()->rule("change " + std::to_string(10 + random_step(random) % 120) +
                     " 999999999 off 0");
    Helper writer(lab.plan(random_step(random), large).words());
    const int code = writer.wait();
    ++tally.lives;
    tally.failed_writers += code == kWriterFailed || code == kWriterNotOpened ? 1 : 0;
    if (code != kWriterDone && code != kWriterFailed && code != kWriterNotOpened) {
      tally.fail("the writer ended with " + std::to_string(code), replay_of("fuse", seed));
      return;
    }
    const bool met = lab.disk()->counts().faults != 0;
    if (met == (code == kWriterDone)) {
      tally.fail(met ? "nobody was told of the cut" : "a failure without a fault",
                 replay_of("fuse", seed));
      return;
    }
    const std::uint64_t moments = lab.disk()->snapshots();
    cut_all(lab, tally, seed, moments, random, same);
    if (tally.ok() && !met) {
      cut_closed(lab, tally, seed);
      ++closed;
    }
    if (!tally.ok() || moments == 0) {
      return;
    }
    // The next life begins at one of them.
    const std::uint64_t chosen = random_step(random) % moments;
    const auto cut = static_cast<Cut>(random_step(random) % faultfs::kCuts);
    const PromisesCopy promises = lab.disk()->promises(chosen);
    lab.disk()->make_image("log", chosen, cut, random_step(random));
    lab.disk()->clear();
    const Verdict verdict = judge(*lab.disk() / "log", *lab.ledger(), promises);
    tally.check(verdict, replay_of("fuse", seed));
    lab.ledger().begin_life(
        std::max(verdict.report.last_sequence.value(), lab.ledger()->base_sequence), verdict.now,
        promises.home);
  }
}

}  // namespace

Tally run_fuse(std::uint64_t first, std::uint64_t count) {
  Tally tally("fuse");
  FuseLab lab;
  if (lab.disk() == nullptr) {
    tally.miss("faultfs", lab.why());
    return tally;
  }
  std::uint64_t same = 0;    // cuts that left what another had left
  std::uint64_t closed = 0;  // lives that ended before their cut
  for (std::uint64_t seed = first; seed < first + count && tally.ok(); ++seed) {
    lives_of(lab, tally, seed, same, closed);
  }
  tally.note = " same=" + std::to_string(same) + " closed=" + std::to_string(closed);
  return tally;
}

}  // namespace keel_test

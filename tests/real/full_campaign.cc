// A full disk: a log cannot be made, and says so and leaves nothing; one that was made goes on.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "campaigns.h"
#include "disk_lab.h"
#include "keel/cil/log_file.h"
#include "writer.h"

using namespace keel;

namespace keel_test {
namespace {

using faultfs::random_step;

// Takes every block there is, with files that grow until they cannot.
void fill_up(const std::string& directory) {
  std::string zeros(1U << 20U, 'x');
  const std::string path = directory + "/filler";
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  for (std::size_t bytes = zeros.size(); bytes >= 512;) {
    if (::write(fd, zeros.data(), bytes) <= 0) {
      bytes /= 2;
    }
  }
  (void)::fsync(fd);
  (void)::close(fd);
}

std::size_t names_in(const std::string& directory) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    count += entry.exists() ? 1U : 0U;
  }
  return count;
}

// Nothing may appear, and the answer is "no space". Not counted: a cycle is a fill.
void refuse_to_make(const std::string& directory, Tally& tally, const std::string& what,
                    const std::string& replay) {
  const std::size_t before = names_in(directory);
  const auto made = create_log(directory + "/second", {.size = Bytes(8U << 20U)});
  if (made.ok() || made.error().code != Errc::kNoSpace || names_in(directory) != before) {
    tally.fail("a log on a full " + what + ": " + (made.ok() ? "made" : made.error().message()) +
                   ", " + std::to_string(names_in(directory)) + " names",
               replay);
  }
}

void write_when_full(DiskLab& lab, Tally& tally, std::uint64_t seed, const std::string& type) {
  const std::string replay = replay_of("full", seed);
  fill_up(lab.mounted().directory());
  refuse_to_make(lab.mounted().directory(), tally, type, replay);
  WriterPlan plan = lab.plan(seed * 668265263U);
  plan.transactions = 200;
  Helper writer(plan.words());
  const int code = writer.wait();
  if (code != kWriterDone) {
    tally.fail("the writer ended with " + std::to_string(code) + " on a full " + type, replay);
    return;
  }
  lab.judge_life(tally, true, replay);
  std::filesystem::remove(lab.mounted() / "filler");
}

// What became of logs that share their blocks.
struct Shared {
  std::uint64_t tried = 0;
  std::uint64_t full = 0;      // that met the end of the space, with their log open
  std::uint64_t promised = 0;  // of them, that had promised something before
};

bool share(DiskLab& lab) {
  return run_command("cp --reflink=always " + lab.log() + " " + (lab.mounted() / "copy")) == 0;
}

// Takes all space but `left` bytes.
bool fill_but(DiskLab& lab, std::uint64_t left) {
  const std::string& directory = lab.mounted().directory();
  fill_up(directory);
  fill_up(directory);  // what the file system had set aside for a file that grows
  const std::string filler = directory + "/filler";
  struct stat st {};
  return ::stat(filler.c_str(), &st) == 0 &&
         ::truncate(filler.c_str(),
                    st.st_size - std::min<off_t>(static_cast<off_t>(left), st.st_size)) == 0;
}

// A copy that shares the log's blocks takes the promise away: writing needs new ones. Then it fails
// as any write does, for good, and what was promised before is kept. The copy is made when the log
// is open, and a part of the space left in two of three, so that commits meet the end of it, some
// after others that did not.
void write_when_shared(DiskLab& lab, Tally& tally, std::uint64_t seed, Shared& shared) {
  const std::string replay = replay_of("full", seed);
  std::uint64_t random = seed * 374761393U;
  if (!share(lab)) {
    tally.miss("reflink", "xfs made without it");
    return;
  }
  const std::uint64_t left =
      seed / 2 % 3 == 0 ? 0 : random_step(random) % (kMinLogBytes.value() * 3 / 4);
  WriterPlan plan = lab.plan(random_step(random));
  plan.transactions = 200;
  plan.gated = true;
  Helper writer(plan.words());
  while (lab.ledger()->opened == 0 && writer.poll() < 0) {
    (void)::usleep(50);
  }
  // Again: what opening has written is not shared any more.
  if (!share(lab) || !fill_but(lab, left)) {
    tally.fail("a log could not be shared", replay);
    return;
  }
  lab.ledger()->go = 1;
  const int code = writer.wait();
  const std::uint64_t failed_with = lab.ledger()->failed_with;
  // XFS has said EIO for it too, once in some 300 runs (Linux 6.18).
  const bool full =
      code == kWriterFailed && (failed_with == 1 + static_cast<std::uint64_t>(Errc::kNoSpace) ||
                                failed_with == 1 + static_cast<std::uint64_t>(Errc::kIo));
  if (!full && (code != kWriterDone || left == 0)) {
    tally.fail("the writer ended with " + std::to_string(code) + " on a shared log, " +
                   std::to_string(left) + " bytes left, error " + std::to_string(failed_with),
               replay);
    return;
  }
  ++shared.tried;
  if (full) {
    ++shared.full;
    ++tally.failed_writers;
    shared.promised += lab.ledger().promises().forced != 0 ? 1U : 0U;
  }
  lab.judge_life(tally, full, replay);
  std::filesystem::remove(lab.mounted() / "filler");
  std::filesystem::remove(lab.mounted() / "copy");
}

// Of tmpfs and of a file system that denies fallocate.
void refuse_elsewhere(Tally& tally, std::uint64_t first) {
  const Scratch scratch;
  const std::string replay = replay_of("full", first);
  std::string why;
  if (is_root()) {
    const auto small = Mounted::mount("tmpfs", scratch / "small", "tmpfs", "size=4m", why);
    if (small != nullptr) {
      refuse_to_make(small->directory(), tally, "tmpfs", replay);
    } else {
      tally.miss("tmpfs", why);
    }
  } else {
    tally.miss("tmpfs", kWhyNoMount);
  }
  if (const auto disk = FaultFs::start(scratch, why); disk != nullptr) {
    (void)disk->tell("nospace");
    refuse_to_make(*disk / ".", tally, "disk without fallocate", replay);
  } else {
    tally.miss("faultfs", why);
  }
}

}  // namespace

Tally run_full(std::uint64_t first, std::uint64_t count) {
  Tally tally("full");
  Shared shared;
  refuse_elsewhere(tally, first);
  on_each_file_system(tally, DiskLab::Under::kFile, kMinLogBytes.value(), first, count,
                      [&](DiskLab& lab, std::uint64_t seed, const std::string& type) {
                        write_when_full(lab, tally, seed, type);
                        if (type == "xfs" && tally.ok()) {
                          write_when_shared(lab, tally, seed, shared);
                        }
                      });
  tally.note = " shared=" + std::to_string(shared.tried) +
               " shared_full=" + std::to_string(shared.full) +
               " shared_promised=" + std::to_string(shared.promised);
  if (tally.ok() && shared.tried >= 3 && shared.full == 0) {
    tally.fail("no shared log met the end of the space", replay_of("full", first));
  }
  return tally;
}

}  // namespace keel_test

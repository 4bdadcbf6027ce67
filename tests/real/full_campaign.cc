// A full disk: a log cannot be made, and says so and leaves nothing; one that was made goes on.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

// Nothing may appear, and the answer is "no space".
void refuse_to_make(const std::string& directory, Tally& tally, const std::string& what,
                    const std::string& replay) {
  const std::size_t before = names_in(directory);
  const auto made = create_log(directory + "/second", {.size = Bytes(8U << 20U)});
  ++tally.tried;
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
  lab.judge_life(tally, replay);
  std::filesystem::remove(lab.mounted() / "filler");
}

// A copy that shares the log's blocks takes the promise away: writing needs new ones. Then it fails
// as any write does, for good, and what was promised before is kept.
void write_when_shared(DiskLab& lab, Tally& tally, std::uint64_t seed) {
  const std::string replay = replay_of("full", seed);
  const std::string copy = lab.mounted() / "copy";
  if (run_command("cp --reflink=always " + lab.log() + " " + copy) != 0) {
    tally.miss("reflink", "xfs made without it");
    return;
  }
  fill_up(lab.mounted().directory());
  WriterPlan plan = lab.plan(seed * 374761393U);
  plan.transactions = 200;
  Helper writer(plan.words());
  const int code = writer.wait();
  tally.failed_writers += code == kWriterFailed || code == kWriterNotOpened ? 1 : 0;
  const std::uint64_t failed_with = lab.ledger()->failed_with;
  if (code != kWriterDone && (failed_with != 1 + static_cast<std::uint64_t>(Errc::kNoSpace) ||
                              (code != kWriterFailed && code != kWriterNotOpened))) {
    tally.fail("the writer ended with " + std::to_string(code) + " on a shared log", replay);
    return;
  }
  lab.judge_life(tally, replay);
  std::filesystem::remove(lab.mounted() / "filler");
  std::filesystem::remove(copy);
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
  refuse_elsewhere(tally, first);
  on_each_file_system(tally, DiskLab::Under::kFile, kMinLogBytes.value(), first, count,
                      [&](DiskLab& lab, std::uint64_t seed, const std::string& type) {
                        write_when_full(lab, tally, seed, type);
                        if (type == "xfs" && tally.ok()) {
                          write_when_shared(lab, tally, seed);
                        }
                      });
  return tally;
}

}  // namespace keel_test

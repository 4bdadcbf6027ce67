// How many bytes of log does recovery read and prove a second? A log of 48 MiB of objects of one
// size, read whole by scan_log(), every checkpoint handed over. Direct I/O, so the page cache plays
// no part; the device's own cache may.

#include <memory>

#include "keel/cil/recovery.h"
#include "support/micro.h"

namespace keel::bench {
namespace {

constexpr std::size_t kPayloadBytes = std::size_t{48} << 20;

// Makes the log once a size; returns its path.
Result<std::string> make_log(std::size_t object_bytes) {
  static std::size_t made_for = 0;
  const std::string name = "recovery.log";
  const std::string path = micro_dir() + "/" + name;
  if (made_for == object_bytes) {
    return path;
  }
  auto rig = JournalRig::create(
      micro_dir(), name, {.objects = kPayloadBytes / object_bytes, .object_bytes = object_bytes});
  if (!rig) {
    return rig.error();
  }
  (*rig)->keep_log();
  if (auto sequence = (*rig)->commit_each(0, (*rig)->object_count()); !sequence) {
    return sequence.error();
  }
  if (auto status = (*rig)->journal().close(); !status) {
    return status.error();
  }
  made_for = object_bytes;
  return path;
}

void scan(benchmark::State& state) {
  const auto object_bytes = static_cast<std::size_t>(state.range(0));
  const auto path = make_log(object_bytes);
  if (stop_on(state, path)) {
    return;
  }
  std::uint64_t read_bytes = 0;
  for (auto _ : state) {
    std::uint64_t items = 0;
    const auto report = scan_log(*path, [&items](const RecoveredCheckpoint& checkpoint) {
      items += checkpoint.items.size();
      return Status{};
    });
    if (stop_on(state, report)) {
      return;
    }
    if (items != kPayloadBytes / object_bytes) {
      state.SkipWithError("recovery did not find every object");
      return;
    }
    read_bytes += report->bytes.value();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(read_bytes));
}

BENCHMARK(scan)->ArgName("bytes")->Arg(4096)->Arg(65536)->UseRealTime()->Unit(
    benchmark::kMillisecond);

}  // namespace
}  // namespace keel::bench

int main(int argc, char** argv) { return keel::bench::micro_main(argc, argv); }

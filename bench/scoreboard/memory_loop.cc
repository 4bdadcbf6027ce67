// memory.loop.*: what does one thread pay that allocates a size, touches it and frees it, again and
// again?
//
// ns for malloc, a store to the first byte of each page, and free; no clock inside
// (memory/loop.cc).
// Target: at every size no slower than the best peer at that size.

#include "scoreboard/memory_peers.h"

namespace keel::bench {
namespace {

RowDefinition row(const char* name, const char* figure, const char* question) {
  return figure_row(name, figure, "ns", Goal::kRatioAtMost, 1.0, question);
}

const FamilyRegistration kLoop{
    {{row("memory.loop.4k", "4k", "allocate, touch and free 4 KiB, one thread"),
      row("memory.loop.16k", "16k", "the same, 16 KiB"),
      row("memory.loop.64k", "64k", "the same, 64 KiB"),
      row("memory.loop.256k", "256k", "the same, 256 KiB"),
      row("memory.loop.1m", "1m", "the same, 1 MiB"),
      row("memory.loop.4m", "4m", "the same, 4 MiB")},
     [](const Setting& setting) -> Result<Study> {
       return driver_study(setting, {"loop"}, PeerSet::kUsual, true);
     }}};

}  // namespace
}  // namespace keel::bench

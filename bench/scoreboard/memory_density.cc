// memory.density: how many single pages can be mapped in a window of 120 MiB?
//
// Pages that are no neighbours in the store are mapped one by one until one is refused. The window
// has 30,720 pages; a guard page behind each would leave half of them.

#include <memory>

#include "keel/base/check.h"
#include "scoreboard/row.h"
#include "support/store_rig.h"

namespace keel::bench {
namespace {

constexpr std::size_t kWindowBytes = std::size_t{120} << 20;
constexpr std::size_t kPages = kWindowBytes / kPageBytes;
constexpr std::uint64_t kMappings = 62'000;  // below vm.max_map_count as it comes (65,530)

Result<double> mapped_pages() {
  const StoreRig rig =
      make_store_rig(std::size_t{4} << 20, {.bytes = kWindowBytes, .max_mappings = kMappings});
  const std::vector<Pfn> frames = scattered_frames(2, 1);
  double count = 0;
  while (rig.window->map(std::span(&frames[static_cast<std::size_t>(count) % 2], 1)).ok()) {
    ++count;
  }
  return count;
}

const RowRegistration kDensity{
    {"memory.density", "pages", "single pages mapped in a window of 120 MiB, of those it has",
     Goal::kRatioAtLeast, 1.0, [](const Setting&) -> Result<Comparison> {
       return Comparison{
           mapped_pages,
           {{"pages of the window", []() -> Result<double> { return double{kPages}; }}}};
     }}};

}  // namespace
}  // namespace keel::bench

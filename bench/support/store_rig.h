// A frame store with all its frames populated and a window over it, for rows about mappings.
#pragma once

#include <memory>
#include <vector>

#include "keel/vmap/frame_store.h"
#include "keel/vmap/window.h"

namespace keel::bench {

struct StoreRig {
  std::unique_ptr<FrameStore> store;
  std::unique_ptr<Window> window;
};

// Aborts if it cannot be made.
[[nodiscard]] StoreRig make_store_rig(std::size_t store_bytes, const WindowConfig& config);

// `count` frames from frame 0 on, in runs of `run_pages` with a frame left out between two runs.
[[nodiscard]] std::vector<Pfn> scattered_frames(std::size_t count, std::size_t run_pages);

}  // namespace keel::bench

#include "support/store_rig.h"

#include "keel/base/check.h"

namespace keel::bench {

StoreRig make_store_rig(std::size_t store_bytes, const WindowConfig& config) {
  auto store = FrameStore::create({.capacity_bytes = store_bytes, .chunk_bytes = store_bytes});
  KEEL_CHECK(store.ok() && (*store)->grow().ok(), "make a frame store");
  auto window = Window::create(**store, config);
  KEEL_CHECK(window.ok(), "make a window");
  return {std::move(*store), std::move(*window)};
}

std::vector<Pfn> scattered_frames(std::size_t count, std::size_t run_pages) {
  std::vector<Pfn> frames;
  for (std::size_t i = 0; i < count; ++i) {
    frames.emplace_back(i + i / run_pages);
  }
  return frames;
}

}  // namespace keel::bench

// ExtentSource: where kmalloc's slabs come from; a page allocator, or a test's own memory.
#pragma once

#include "keel/base/units.h"

namespace keel {

class ExtentSource {
 public:
  ExtentSource() = default;
  ExtentSource(const ExtentSource&) = delete;
  ExtentSource& operator=(const ExtentSource&) = delete;

  // A contiguous, page-aligned run of exactly `pages`, below 64, from the range that kmalloc was
  // made over. Fails fast: no growing, no reclaim, no waiting for either, no call into kmalloc.
  // Threads: any, with locks of jemalloc's held. Errors: nullptr.
  [[nodiscard]] virtual void* allocate(Pages pages) = 0;

  // Takes back a whole run that allocate() gave. Threads: as allocate().
  virtual void free(void* run, Pages pages) = 0;

 protected:
  ~ExtentSource() = default;
};

}  // namespace keel

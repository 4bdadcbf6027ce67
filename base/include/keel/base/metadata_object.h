// Base class of keel's own long-lived objects, so that their memory comes through os() too.
//
// Make them with `new (std::nothrow) T(...)`, which gives nullptr when there is no memory; the
// ordinary new does not compile. unique_ptr's default deleter gives the memory back the right way.
#pragma once

#include <cstddef>
#include <new>

#include "keel/base/os.h"

namespace keel {

class MetadataObject {
 public:
  static void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
    return os().metadata_allocate(bytes);
  }
  static void operator delete(void* object) noexcept { os().metadata_free(object); }
  static void operator delete(void* object, const std::nothrow_t& /*tag*/) noexcept {
    os().metadata_free(object);
  }

 protected:
  MetadataObject() = default;
  ~MetadataObject() = default;
};

}  // namespace keel

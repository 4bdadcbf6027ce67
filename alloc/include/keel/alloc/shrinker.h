// Shrinker: how an owner of memory that can be had back tells a pool so.
#pragma once

#include "keel/base/units.h"

namespace keel {

// Registered with Pool::add_shrinker(). Called when memory is short, by the pool's thread or by an
// allocation that found none (never by one with kNoFs or in a NoReclaimScope), one call at a time,
// without keel's locks held. It may free and may wait for I/O; it must not allocate from the pool
// but with kNoWait.
// Source: struct shrinker (Linux mm/shrinker.c).
class Shrinker {
 public:
  virtual ~Shrinker() = default;
  // For reports; static storage.
  [[nodiscard]] virtual const char* name() const = 0;
  // What scan() could give back, roughly; 0 and it is not called. Threads: any.
  [[nodiscard]] virtual Bytes count() const = 0;
  // Gives back about `wanted`; returns what it did.
  virtual Bytes scan(Bytes wanted) = 0;

 protected:
  Shrinker() = default;
  Shrinker(const Shrinker&) = default;
  Shrinker& operator=(const Shrinker&) = default;
};

}  // namespace keel

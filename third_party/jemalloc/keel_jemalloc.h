// jemalloc 5.3 under the prefix keel_je_: the calls that keel uses. See jemalloc(3), where they
// stand without it. The program's own malloc, a jemalloc or not, is not touched.
#pragma once

#include <cstddef>

extern "C" {

void* keel_je_malloc(std::size_t size) noexcept;
void keel_je_free(void* address) noexcept;
void* keel_je_calloc(std::size_t count, std::size_t size) noexcept;
void* keel_je_realloc(void* address, std::size_t size) noexcept;
int keel_je_posix_memalign(void** out, std::size_t alignment, std::size_t size) noexcept;
void* keel_je_aligned_alloc(std::size_t alignment, std::size_t size) noexcept;
std::size_t keel_je_malloc_usable_size(void* address) noexcept;

void* keel_je_mallocx(std::size_t size, int flags) noexcept;
void keel_je_dallocx(void* address, int flags) noexcept;
void keel_je_sdallocx(void* address, std::size_t size, int flags) noexcept;
std::size_t keel_je_nallocx(std::size_t size, int flags) noexcept;

int keel_je_mallctl(const char* name, void* old_value, std::size_t* old_bytes, void* new_value,
                    std::size_t new_bytes) noexcept;
int keel_je_mallctlnametomib(const char* name, std::size_t* mib, std::size_t* mib_length) noexcept;
int keel_je_mallctlbymib(const std::size_t* mib, std::size_t mib_length, void* old_value,
                         std::size_t* old_bytes, void* new_value, std::size_t new_bytes) noexcept;
void keel_je_malloc_stats_print(void (*write)(void*, const char*), void* opaque,
                                const char* options) noexcept;

// Options in the form of MALLOC_CONF. `malloc_conf` gives way to /etc/malloc.conf and MALLOC_CONF
// in the environment, `malloc_conf_2_conf_harder` does not. Weak: a definition elsewhere is taken.
extern const char* keel_je_malloc_conf;
extern const char* keel_je_malloc_conf_2_conf_harder;

// Options that keep what keel promises of objects; alloc/slab_arenas.cc says why each, but for two:
// no huge page allocator beside keel's own, and no abort over options of the environment.
#define KEEL_JE_CONTRACT_OPTIONS                                                    \
  "prof:false,junk:false,zero:false,hpa:false,san_guard_small:0,san_guard_large:0," \
  "slab_sizes:default,abort:false"
// All that overrule the environment's. Weak in slab_arenas.cc.
extern const char keel_je_overruling[];

// How an arena gets memory: jemalloc(3), arena.<i>.extent_hooks. A null pointer: cannot be done.
struct keel_je_extent_hooks {
  void* (*alloc)(keel_je_extent_hooks* hooks, void* new_address, std::size_t size,
                 std::size_t alignment, bool* zero, bool* commit, unsigned arena);
  bool (*dalloc)(keel_je_extent_hooks* hooks, void* address, std::size_t size, bool committed,
                 unsigned arena);
  void (*destroy)(keel_je_extent_hooks* hooks, void* address, std::size_t size, bool committed,
                  unsigned arena);
  bool (*commit)(keel_je_extent_hooks* hooks, void* address, std::size_t size, std::size_t offset,
                 std::size_t length, unsigned arena);
  bool (*decommit)(keel_je_extent_hooks* hooks, void* address, std::size_t size, std::size_t offset,
                   std::size_t length, unsigned arena);
  bool (*purge_lazy)(keel_je_extent_hooks* hooks, void* address, std::size_t size,
                     std::size_t offset, std::size_t length, unsigned arena);
  bool (*purge_forced)(keel_je_extent_hooks* hooks, void* address, std::size_t size,
                       std::size_t offset, std::size_t length, unsigned arena);
  bool (*split)(keel_je_extent_hooks* hooks, void* address, std::size_t size, std::size_t size_a,
                std::size_t size_b, bool committed, unsigned arena);
  bool (*merge)(keel_je_extent_hooks* hooks, void* address_a, std::size_t size_a, void* address_b,
                std::size_t size_b, bool committed, unsigned arena);
};

// New value of experimental.arenas_create_ext. Without metadata_use_hooks the arena's own metadata
// does not come through its hooks.
struct keel_je_arena_config {
  keel_je_extent_hooks* extent_hooks;
  bool metadata_use_hooks;
};

}  // extern "C"

namespace keel::je {

// Bits of `flags`, which add up.
constexpr int in_arena(unsigned arena) { return static_cast<int>((arena + 1) << 20); }
constexpr int with_tcache(unsigned tcache) { return static_cast<int>((tcache + 2) << 8); }
inline constexpr int kNoTcache = 1 << 8;

}  // namespace keel::je

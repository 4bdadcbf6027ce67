/* keel.h: the process's pool from C. C11 and up, and C++.
 *
 * Every call is one of keel::Pool's on keel::default_pool(), which is made at the first call; see
 * keel/alloc/pool.h for what each promises. While it cannot be made there is no memory. All may be
 * called from any thread, and none throws. */
#ifndef KEEL_KEEL_H
#define KEEL_KEEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How an allocation may behave when memory is short; combine with |. */
enum {
  KEEL_KERNEL = 0,             /* may grow the pool, reclaim and wait a little */
  KEEL_NOFS = 1 << 0,          /* may not reclaim in ways that wait for the caller's own locks */
  KEEL_NOWAIT = 1 << 1,        /* free memory now or NULL; no system call */
  KEEL_NOFAIL = 1 << 2,        /* never NULL for a size within the limit */
  KEEL_ZERO = 1 << 3,          /* the memory is zeroed */
  KEEL_RETRY_MAYFAIL = 1 << 4, /* prefers contiguous memory and pays for it */
  KEEL_NOWARN = 1 << 5         /* no message when it fails */
};

/* At least `size_bytes`; from a page up page-aligned. `owner` is a tag in static storage that
 * reports show; NULL for none. NULL when there is no memory, for size 0, and above the limit. */
void* keel_kvmalloc(size_t size_bytes, uint32_t flags, const char* owner);
/* The same, zeroed. */
void* keel_kvzalloc(size_t size_bytes, uint32_t flags, const char* owner);

/* Gives back what the calls above gave; NULL is allowed. A wrong address is a reported bug. */
void keel_kvfree(void* address);
/* The same, and a reported bug if `size_bytes` is not what was asked for. */
void keel_kvfree_sized(void* address, size_t size_bytes);

/* Bytes that may be used at `address`; 0 for NULL. */
size_t keel_kvsize(const void* address);

/* Changes a buffer's size, and its address if need be. NULL: there is no memory, and the buffer is
 * as it was; or `size_bytes` is 0, and it is freed. NULL as `address`: as keel_kvmalloc().
 * KEEL_ZERO holds for what it grows by if all calls for the buffer had it, from the first on. */
void* keel_kvrealloc(void* address, size_t size_bytes, uint32_t flags, const char* owner);

/* Populates the pool until this much is free. 0; ENOMEM: it can never be had, or cannot now, or
 * this is a forked child. */
int keel_reserve(size_t size_bytes);

/* Gives memory that is not used back to the system; returns how many bytes. */
size_t keel_trim(void);

/* Ends all lazy aliases now. */
void keel_purge(void);

/* Writes the pool's statistics, one JSON object, into `text`: at most `room` bytes with the
 * final 0. Returns the length of the whole, without the 0, as snprintf does; call it with 0 to
 * learn it. 0 if there was no memory to write it in. */
size_t keel_stats_json(char* text, size_t room);

#ifdef __cplusplus
}
#endif

#endif /* KEEL_KEEL_H */

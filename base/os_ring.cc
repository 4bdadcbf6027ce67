// The ring calls of Os, by liburing.
//
// I1 Between submit and completion the library allocates nothing; what the kernel allocates for a
//    write it takes from its own caches.
// I2 A write that the kernel did not take is taken back from the ring: it must not start with the
//    next one, when its memory may be somebody else's.
#include <liburing.h>

#include <cerrno>
#include <new>

#include "keel/base/os.h"

namespace keel {
namespace {

struct Uring : OsRing {
  struct io_uring ring {};
  bool has_buffers = false;
};

Uring& of(OsRing* ring) { return *static_cast<Uring*>(ring); }

void leave(Uring& uring) {
  // By name, and not with the ring: that goes only when its last copy in a forked child does, and
  // even then later, by a thread of the kernel. Until then the file would stay claimed.
  if (uring.has_buffers) {
    (void)::io_uring_unregister_buffers(&uring.ring);
  }
  (void)::io_uring_unregister_files(&uring.ring);
  ::io_uring_queue_exit(&uring.ring);
}

// Without SQPOLL the kernel reads the tail only inside a submit, so it may move back between two.
bool take_back(struct io_uring& ring) {
  const unsigned head = io_uring_smp_load_acquire(ring.sq.khead);
  if (head == ring.sq.sqe_tail) {
    return false;  // taken after all
  }
  ring.sq.sqe_head = head;
  ring.sq.sqe_tail = head;
  io_uring_smp_store_release(ring.sq.ktail, head);
  return true;
}

}  // namespace

int Os::ring_create(int fd, const struct iovec* buffers, int buffer_count, unsigned entries,
                    OsRing** out) {
  void* memory = metadata_allocate(sizeof(Uring));
  if (memory == nullptr) {
    return -ENOMEM;
  }
  auto* made = new (memory) Uring;
  int error = ::io_uring_queue_init(entries, &made->ring, 0);
  if (error < 0) {
    metadata_free(made);
    return error;
  }
  error = ::io_uring_ring_dontfork(&made->ring);
  if (error >= 0) {
    error = ::io_uring_register_files(&made->ring, &fd, 1);
  }
  if (error < 0) {
    ::io_uring_queue_exit(&made->ring);
    metadata_free(made);
    return error;
  }
  const auto count = static_cast<unsigned>(buffer_count);
  made->has_buffers = count > 0 && ::io_uring_register_buffers(&made->ring, buffers, count) >= 0;
  *out = made;
  return made->has_buffers ? buffer_count : 0;
}

int Os::ring_submit(OsRing* ring, const RingWrite& write) {
  struct io_uring& uring = of(ring).ring;
  struct io_uring_sqe* entry = ::io_uring_get_sqe(&uring);
  if (entry == nullptr) {
    return -EBUSY;
  }
  constexpr int kTheFile = 0;  // index of the registered descriptor
  if (write.buffer >= 0) {
    ::io_uring_prep_write_fixed(entry, kTheFile, write.parts->iov_base,
                                static_cast<unsigned>(write.parts->iov_len), write.offset,
                                write.buffer);
  } else {
    ::io_uring_prep_writev(entry, kTheFile, write.parts, static_cast<unsigned>(write.count),
                           write.offset);
  }
  entry->flags |= IOSQE_FIXED_FILE;
  ::io_uring_sqe_set_data64(entry, write.tag);
  int taken = 0;
  do {
    taken = ::io_uring_submit(&uring);
  } while (taken == -EINTR);
  if (taken == 1 || !take_back(uring)) {
    return 0;
  }
  return taken < 0 ? taken : -EAGAIN;
}

int Os::ring_wait(OsRing* ring, bool block, RingDone* out) {
  struct io_uring& uring = of(ring).ring;
  struct io_uring_cqe* entry = nullptr;
  const int error =
      block ? ::io_uring_wait_cqe(&uring, &entry) : ::io_uring_peek_cqe(&uring, &entry);
  if (error < 0) {
    return error == -EAGAIN && !block ? 0 : error;
  }
  *out = {::io_uring_cqe_get_data64(entry), entry->res};
  ::io_uring_cqe_seen(&uring, entry);
  return 1;
}

void Os::ring_destroy(OsRing* ring, bool inherited) {
  Uring& uring = of(ring);
  if (inherited) {
    // The child has not got the ring's memory, and to unregister would take from the parent.
    (void)close(uring.ring.ring_fd);
  } else {
    leave(uring);
  }
  metadata_free(&uring);
}

}  // namespace keel

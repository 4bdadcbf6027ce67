// The ring of the real system: what is written through it, and what the kernel refuses.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "keel/base/os.h"
#include "support/death.h"
#include "support/refused_calls.h"
#include "support/scratch_directory.h"
#include "support/skip_case.h"

using keel::Os;
using keel::os;
using keel::OsRing;
using keel::RingDone;
using keel::RingWrite;
using keel_test::run_in_child;

namespace {

constexpr unsigned kEntries = 2;
constexpr int kNoFilters = 77;  // exit code of a child that cannot do what it is for

// An unnamed file of the memory, and its ring if there are rings here.
struct File {
  File() : fd(os().memfd_create("keel-ring-test", 0)) {
    REQUIRE(fd >= 0);
    error = os().ring_create(fd, nullptr, 0, kEntries, &ring);
    if (error < 0) {
      keel_test::skip_case(std::string("no io_uring here: ") + std::strerror(-error));
    }
  }
  ~File() {
    if (ring != nullptr) {
      os().ring_destroy(ring, false);
    }
    (void)os().close(fd);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  explicit operator bool() const { return ring != nullptr; }

  [[nodiscard]] int submit(std::uint64_t offset, std::uint64_t tag) const {
    return os().ring_submit(
        ring, {.parts = &part, .count = 1, .buffer = -1, .offset = offset, .tag = tag});
  }
  [[nodiscard]] std::string read(std::uint64_t offset) const {
    std::array<char, 4> got{};
    const struct iovec target { got.data(), got.size() };
    CHECK(os().preadv2(fd, &target, 1, offset, 0) == 4);
    return {got.data(), got.size()};
  }

  int fd;
  int error = 0;
  OsRing* ring = nullptr;
  char text[5] = "keel";
  struct iovec part {
    text, 4
  };
};

void check_done(const File& file, std::uint64_t tag) {
  RingDone done;
  REQUIRE(os().ring_wait(file.ring, true, &done) == 1);
  CHECK(done.tag == tag);
  CHECK(done.result == 4);
}

// For a child: a ring whose calls meet the error from now on. Ends a child that can have none.
OsRing* ring_that_meets(int error, const File& file) {
  OsRing* ring = nullptr;
  if (os().ring_create(file.fd, nullptr, 0, kEntries, &ring) < 0 ||
      !keel_test::refuse_calls({SYS_io_uring_enter, error})) {
    ::_exit(kNoFilters);
  }
  return ring;
}

}  // namespace

TEST_CASE("a write through the ring reaches the file and comes back with its tag") {
  const File file;
  if (!file) return;
  RingDone done;
  CHECK(os().ring_wait(file.ring, false, &done) == 0);
  for (std::uint64_t tag = 1; tag <= 3 * kEntries; ++tag) {
    CHECK(file.submit(tag * 4096, tag) == 0);
    check_done(file, tag);
    CHECK(file.read(tag * 4096) == "keel");
  }
}

TEST_CASE("a ring writes from registered buffers, and has none if they cannot be registered") {
  const File file;
  if (!file) return;
  void* page = nullptr;
  REQUIRE(os().mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                    &page) == 0);
  std::memcpy(page, "ring", 4);
  const struct iovec buffer { page, 4096 };
  OsRing* ring = nullptr;
  const int registered = os().ring_create(file.fd, &buffer, 1, kEntries, &ring);
  if (registered == 1) {
    const struct iovec part { page, 4 };
    CHECK(os().ring_submit(ring, {.parts = &part, .count = 1, .buffer = 0, .offset = 8}) == 0);
    RingDone done;
    CHECK(os().ring_wait(ring, true, &done) == 1);
    CHECK(file.read(8) == "ring");
  } else {
    MESSAGE("no buffer can be registered here");
    CHECK(registered == 0);
  }
  os().ring_destroy(ring, false);
  REQUIRE(os().mprotect(page, 4096, PROT_NONE) == 0);
  CHECK(os().ring_create(file.fd, &buffer, 1, kEntries, &ring) == 0);
  os().ring_destroy(ring, false);
  CHECK(os().munmap(page, 4096) == 0);
}

TEST_CASE("a ring that cannot be made gives the kernel's error") {
  class NoMemoryOs final : public Os {
   public:
    void* metadata_allocate(std::size_t) override { return nullptr; }
  };
  const File file;
  if (!file) return;
  OsRing* ring = nullptr;
  CHECK(os().ring_create(file.fd, nullptr, 0, 0, &ring) == -EINVAL);
  CHECK(os().ring_create(1 << 20, nullptr, 0, kEntries, &ring) == -EBADF);
  NoMemoryOs none;
  CHECK(none.ring_create(file.fd, nullptr, 0, kEntries, &ring) == -ENOMEM);
  const auto ending = run_in_child([&] {
    // Or a child would have it too.
    if (!keel_test::refuse_calls({SYS_madvise, ENOMEM, 2, MADV_DONTFORK})) {
      ::_exit(kNoFilters);
    }
    const int before = ::dup(file.fd);
    (void)::close(before);
    const bool refused = os().ring_create(file.fd, nullptr, 0, kEntries, &ring) == -ENOMEM;
    ::_exit(refused && ::dup(file.fd) == before ? 0 : 1);  // no descriptor of a ring is left
  });
  CHECK((ending.exit_code == 0 || ending.exit_code == kNoFilters));
  CHECK(ring == nullptr);
}

TEST_CASE("writes that the kernel does not take are taken back and leave the ring's room") {
  const File file;
  if (!file) return;
  for (const int error : {EAGAIN, EBUSY, 0}) {
    CAPTURE(error);
    const auto ending = run_in_child([&] {
      OsRing* ring = ring_that_meets(error, file);
      const int expected = error != 0 ? -error : -EAGAIN;  // 0: the kernel took none of one
      for (unsigned i = 0; i < 3 * kEntries; ++i) {
        if (os().ring_submit(ring, {.parts = &file.part, .count = 1}) != expected) {
          ::_exit(1);
        }
      }
      ::_exit(0);
    });
    if (ending.exit_code == kNoFilters) {
      keel_test::skip_case("no ring of its own, or no filter of calls");
      return;
    }
    CHECK(ending.exit_code == 0);
  }
}

TEST_CASE("waiting for a write gives the kernel's error") {
  const File file;
  if (!file) return;
  for (const int error : {EAGAIN, EBADF}) {
    CAPTURE(error);
    const auto ending = run_in_child([&] {
      OsRing* ring = ring_that_meets(error, file);
      RingDone done;
      const bool none = os().ring_wait(ring, false, &done) == 0;
      ::_exit(none && os().ring_wait(ring, true, &done) == -error ? 0 : 1);
    });
    if (ending.exit_code == kNoFilters) {
      keel_test::skip_case("no ring of its own, or no filter of calls");
      return;
    }
    CHECK(ending.exit_code == 0);
  }
}

TEST_CASE("a forked child gives up its copy of a ring, and the parent's goes on") {
  const File file;
  if (!file) return;
  CHECK(file.submit(0, 1) == 0);
  const auto ending = run_in_child([&] {
    os().ring_destroy(file.ring, true);
    ::_exit(0);
  });
  CHECK(ending.exit_code == 0);
  check_done(file, 1);
  CHECK(file.submit(4096, 2) == 0);
  check_done(file, 2);
  CHECK(file.read(4096) == "keel");
}

TEST_CASE("a file is let go of with its ring, though a forked child has that still") {
  const keel_test::ScratchDirectory directory;
  const std::string path = directory / "file";
  // A lease to write is given on a file that nobody else has open.
  const auto leased = [&path] {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    const bool given = ::fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
    (void)::close(fd);
    return given;
  };
  if (!leased()) {
    keel_test::skip_case("no leases on this file system");
    return;
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  OsRing* ring = nullptr;
  if (const int error = os().ring_create(fd, nullptr, 0, kEntries, &ring); error < 0) {
    (void)::close(fd);
    keel_test::skip_case(std::string("no io_uring here: ") + std::strerror(-error));
    return;
  }
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    (void)::close(fd);
    (void)::close(ends[1]);
    char byte = 0;
    (void)!::read(ends[0], &byte, 1);  // until the parent has looked
    ::_exit(0);
  }
  (void)::close(ends[0]);
  CHECK_FALSE(leased());
  os().ring_destroy(ring, false);
  (void)::close(fd);
  // The kernel lets go of what is unregistered a little later.
  bool free = leased();
  for (int looks = 0; looks < 4'000 && !free; ++looks) {
    os().sleep_ns(10'000'000);
    free = leased();
  }
  CHECK(free);
  (void)::close(ends[1]);
  CHECK(::waitpid(child, nullptr, 0) == child);
}

#include "keel/base/os.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "support/death.h"

using keel::Os;
using keel::os;
using keel::ScopedOs;

namespace {

// Answers the clock itself and counts what goes on to the real one.
class FixedClock final : public Os {
 public:
  explicit FixedClock(std::uint64_t now_ns) : now_ns_(now_ns) {}
  std::uint64_t monotonic_ns() override { return now_ns_; }
  std::uint64_t random64() override {
    ++random_calls;
    return Os::random64();
  }
  int random_calls = 0;

 private:
  std::uint64_t now_ns_;
};

// An unnamed file in the temporary directory, closed with its scope.
class TemporaryFile {
 public:
  TemporaryFile() {
    const char* directory = std::getenv("TMPDIR");
    path_ = std::string(directory != nullptr ? directory : "/tmp") + "/keel-os-test-XXXXXX";
    fd_ = ::mkstemp(path_.data());
  }
  ~TemporaryFile() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] const char* path() const { return path_.c_str(); }

 private:
  std::string path_;
  int fd_ = -1;
};

// Calls the seam in its destructor. Made before all other static objects, so destroyed after them.
struct LateCaller {
  bool armed = false;
  ~LateCaller() {
    if (armed) {
      ::_exit(os().monotonic_ns() != 0 ? 7 : 1);
    }
  }
};
[[gnu::init_priority(101)]] LateCaller g_late_caller;

}  // namespace

TEST_CASE("a scoped Os answers while it lives, scopes nest, and the one before comes back") {
  Os& real = os();
  {
    FixedClock outer(1);
    const ScopedOs a(outer);
    CHECK(os().monotonic_ns() == 1);
    {
      FixedClock inner(2);
      const ScopedOs b(inner);
      CHECK(os().monotonic_ns() == 2);
      (void)os().random64();
      CHECK(inner.random_calls == 1);
    }
    CHECK(os().monotonic_ns() == 1);
    CHECK(outer.random_calls == 0);
  }
  CHECK(&os() == &real);
  CHECK(os().monotonic_ns() > 2);
}

TEST_CASE("errors come back as negative errno") {
  struct stat unused {};
  CHECK(os().open("/nonexistent/keel", O_RDONLY, 0) == -ENOENT);
  CHECK(os().close(-1) == -EBADF);
  CHECK(os().fstat(-1, &unused) == -EBADF);
  CHECK(os().fdatasync(-1) == -EBADF);
  CHECK(os().unlink("/nonexistent/keel") == -ENOENT);
  CHECK(os().preadv2(-1, nullptr, 0, 0, 0) == -EBADF);
  void* out = nullptr;
  CHECK(os().mmap(nullptr, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &out) == -EINVAL);
  CHECK(os().mremap(nullptr, 0, 4096, MREMAP_MAYMOVE, nullptr, &out) < 0);
  CHECK(out == nullptr);
  CHECK(os().is_copy_on_write(-1) == -EBADF);
  CHECK(os().set_no_copy_on_write(-1) == -EBADF);
  CHECK(os().lseek(-1, 0, SEEK_SET) == -EBADF);
  CHECK(os().physical_sector_bytes(-1) == -EBADF);
}

TEST_CASE("a file of no block device has no size of one") {
  const TemporaryFile file;
  REQUIRE(file.fd() >= 0);
  std::uint64_t bytes = 77;
  CHECK(os().block_device_bytes(file.fd(), &bytes) == -ENOTTY);
  CHECK(bytes == 77);
}

TEST_CASE("what a file of the memory cannot have is refused, and it is written in place") {
  const int fd = os().memfd_create("keel-os-test", 0);
  REQUIRE(fd >= 0);
  CHECK(os().is_copy_on_write(fd) == 0);
  CHECK(os().set_no_copy_on_write(fd) < 0);
  CHECK(os().physical_sector_bytes(fd) == -ENOENT);
  CHECK(os().close(fd) == 0);
}

TEST_CASE("a file's own way of writing is asked of its file system") {
  const TemporaryFile file;
  REQUIRE(file.fd() >= 0);
  const int before = os().is_copy_on_write(file.fd());
  CHECK(before >= 0);
  // Whether or not the file system can be told: what is written in place stays so.
  const int told = os().set_no_copy_on_write(file.fd());
  const int after = os().is_copy_on_write(file.fd());
  CHECK(after <= before);
  if (told < 0) {
    CHECK(after == before);
  }
}

TEST_CASE("what is written to a file is read back at its offset") {
  const TemporaryFile file;
  REQUIRE(file.fd() >= 0);
  char text[] = "keel";
  const struct iovec source { text, 4 };
  CHECK(os().pwritev2(file.fd(), &source, 1, 4096, 0) == 4);
  std::array<char, 8> got{};
  const struct iovec target { got.data(), got.size() };
  CHECK(os().preadv2(file.fd(), &target, 1, 4096, 0) == 4);
  CHECK(std::memcmp(got.data(), "keel", 4) == 0);
  struct stat status {};
  CHECK(os().fstat(file.fd(), &status) == 0);
  CHECK(status.st_size == 4100);
  CHECK(os().lseek(file.fd(), 0, SEEK_END) == 4100);
  CHECK(os().ftruncate(file.fd(), 100) == 0);
  CHECK(os().fstat(file.fd(), &status) == 0);
  CHECK(status.st_size == 100);
}

TEST_CASE("a file is locked by one open file description at a time") {
  const TemporaryFile file;
  REQUIRE(file.fd() >= 0);
  const int second = os().open(file.path(), O_RDWR, 0);
  REQUIRE(second >= 0);
  CHECK(os().lock_exclusive(file.fd()) == 0);
  CHECK(os().lock_exclusive(file.fd()) == 0);
  CHECK(os().lock_exclusive(second) == -EAGAIN);
  CHECK(os().close(second) == 0);
}

TEST_CASE("memory is mapped, protected and unmapped") {
  void* address = nullptr;
  REQUIRE(os().mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                    &address) == 0);
  static_cast<char*>(address)[4095] = 'x';
  CHECK(os().mprotect(address, 4096, PROT_NONE) == 0);
  CHECK(os().munmap(address, 4096) == 0);
}

TEST_CASE("the clock runs forward and sleep lets the time pass") {
  const std::uint64_t start = os().monotonic_ns();
  os().sleep_ns(2'000'000);
  CHECK(os().monotonic_ns() - start >= 2'000'000);
  CHECK(os().realtime_ns() > 1'600'000'000U * std::uint64_t{1'000'000'000});
  CHECK(os().random64() != os().random64());
}

TEST_CASE("a sleep is as long as it was asked for, however often signals interrupt it") {
  struct sigaction handler {};
  handler.sa_handler = [](int) {};
  struct sigaction before {};
  REQUIRE(::sigaction(SIGUSR1, &handler, &before) == 0);
  std::atomic<bool> done{false};
  std::uint64_t slept_ns = 0;
  std::thread sleeper([&] {
    const std::uint64_t start = os().monotonic_ns();
    os().sleep_ns(20'000'000);
    slept_ns = os().monotonic_ns() - start;
    done = true;
  });
  while (!done) {
    (void)::pthread_kill(sleeper.native_handle(), SIGUSR1);
    std::this_thread::yield();
  }
  sleeper.join();
  CHECK(slept_ns >= 20'000'000);
  CHECK(::sigaction(SIGUSR1, &before, nullptr) == 0);
}

TEST_CASE("the real Os still answers while static objects are destroyed") {
  const auto ending = keel_test::run_in_child([] {
    g_late_caller.armed = true;
    std::exit(0);  // NOLINT(concurrency-mt-unsafe)
  });
  CHECK(ending.exit_code == 7);
}

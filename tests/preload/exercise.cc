// Every call of malloc's from several threads, on both sides of 32 KiB and across it; forks. Prints
// "ok" and exits with 0, whatever the malloc; says what was wrong if it was.
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kBorder = 32U << 10;

std::atomic<int> wrong{0};

void expect(bool holds, const char* what) {
  if (!holds && wrong.fetch_add(1) < 20) {
    std::fprintf(stderr, "wrong: %s\n", what);
  }
}

bool aligned(const void* address, std::size_t to) {
  return reinterpret_cast<std::uintptr_t>(address) % to == 0;
}

bool all_are(const unsigned char* bytes, std::size_t count, unsigned char value) {
  for (std::size_t i = 0; i < count; i += 61) {
    if (bytes[i] != value) return false;
  }
  return count == 0 || bytes[count - 1] == value;
}

std::size_t random_size(std::mt19937_64& random) {
  switch (random() % 4) {
    case 0: return random() % 100;
    case 1: return random() % 5'000;
    case 2: return kBorder - 50 + random() % 100;
    default: return random() % 400'000;
  }
}

struct Buffer {
  unsigned char* at = nullptr;
  std::size_t size = 0;
  unsigned char mark = 0;
};

Buffer make(std::mt19937_64& random) {
  Buffer buffer{nullptr, random_size(random), static_cast<unsigned char>(random())};
  void* made = nullptr;
  switch (random() % 6) {
    case 0:
      made = std::calloc(1 + random() % 3, buffer.size);
      expect(all_are(static_cast<unsigned char*>(made), buffer.size, 0), "calloc clears");
      break;
    case 1: {
      const std::size_t to = std::size_t{16} << random() % 10;
      expect(posix_memalign(&made, to, buffer.size) == 0 && aligned(made, to), "posix_memalign");
      break;
    }
    case 2:
      made = memalign(256, buffer.size);
      expect(aligned(made, 256), "memalign");
      break;
    case 3: made = ::operator new(buffer.size); break;
    default: made = std::malloc(buffer.size);
  }
  // Some allocators align what is below 16 bytes to 8.
  expect(made != nullptr && aligned(made, buffer.size < 16 ? 8 : 16), "a buffer");
  expect(malloc_usable_size(made) >= buffer.size, "malloc_usable_size");
  buffer.at = static_cast<unsigned char*>(made);
  std::memset(buffer.at, buffer.mark, buffer.size);
  return buffer;
}

void resize(Buffer& buffer, std::mt19937_64& random) {
  const std::size_t size = 1 + random_size(random);
  auto* moved = static_cast<unsigned char*>(std::realloc(buffer.at, size));
  expect(moved != nullptr, "realloc");
  expect(all_are(moved, std::min(size, buffer.size), buffer.mark), "realloc keeps what there was");
  std::memset(moved, buffer.mark, size);
  buffer.at = moved;
  buffer.size = size;
}

void drop(const Buffer& buffer) {
  expect(all_are(buffer.at, buffer.size, buffer.mark), "a buffer keeps what was written");
  std::free(buffer.at);
}

// What one thread leaves another one frees.
std::array<std::atomic<Buffer*>, 64> exchange{};

void work(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Buffer> buffers;
  for (int i = 0; i < 4'000; ++i) {
    buffers.push_back(make(random));
    std::swap(buffers[random() % buffers.size()], buffers.back());
    if (random() % 3 == 0) resize(buffers.back(), random);
    if (buffers.size() > 40) {
      auto* given = new Buffer(buffers.back());
      buffers.pop_back();
      std::unique_ptr<Buffer> taken(exchange[random() % exchange.size()].exchange(given));
      if (taken != nullptr) drop(*taken);
    }
  }
  for (const Buffer& buffer : buffers) drop(buffer);
}

void odd_requests() {
  void* const touched = std::malloc(1);
  std::free(touched);
  volatile std::size_t huge = ~std::size_t{0} / 2;
  expect(std::calloc(huge, 4) == nullptr && errno == ENOMEM, "calloc that overflows");
  expect(reallocarray(nullptr, huge, 4) == nullptr && errno == ENOMEM, "reallocarray overflows");
  expect(std::malloc(huge) == nullptr && errno == ENOMEM, "malloc of half the address space");
  void* none = &none;
  expect(posix_memalign(&none, 3, 10) == EINVAL && none == &none, "posix_memalign to 3");
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kBorder, kBorder * 5 + 1}) {
    void* page = valloc(size);
    expect(aligned(page, 4096), "valloc");
    std::free(page);
    page = pvalloc(size);
    expect(aligned(page, 4096) && malloc_usable_size(page) >= (size + 4095) / 4096 * 4096,
           "pvalloc");
    std::free(page);
    void* wide = aligned_alloc(std::size_t{1} << 16, size);
    expect(aligned(wide, std::size_t{1} << 16), "aligned_alloc beyond a page");
    std::free(wide);
    std::free(std::realloc(nullptr, size));
  }
  expect(malloc_usable_size(nullptr) == 0, "malloc_usable_size of nothing");
  void* kept = std::malloc(100'000);
  expect(std::realloc(kept, huge) == nullptr, "realloc to half the address space");
  std::memset(kept, 1, 100'000);
  errno = 77;
  std::free(kept);
  expect(errno == 77, "free keeps errno");
  std::free(nullptr);
  std::vector<std::string> strings(10'000, std::string(100, 's'));
  expect(strings[9'999].size() == 100, "containers");
}

// Like a program between fork and exec, and a little beyond.
void child_of(const std::vector<Buffer>& parents) {
  std::mt19937_64 random(99);
  std::vector<Buffer> own;
  for (int i = 0; i < 300; ++i) own.push_back(make(random));
  for (const Buffer& buffer : parents) std::free(buffer.at);
  for (int i = 0; i < 300; ++i) own.push_back(make(random));
  for (Buffer& buffer : own) {
    resize(buffer, random);
    drop(buffer);
  }
}

void forks() {
  std::mt19937_64 random(5);
  std::vector<Buffer> buffers;
  for (int i = 0; i < 200; ++i) buffers.push_back(make(random));
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      child_of(buffers);
      _exit(wrong != 0 ? 1 : 0);
    }
    int status = -1;
    expect(waitpid(child, &status, 0) == child && status == 0, "a forked child");
  }
  const pid_t child = vfork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", "exit 3", static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = -1;
  expect(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3, "vfork and exec");
  expect(std::system("exit 0") == 0, "system()");
  for (const Buffer& buffer : buffers) drop(buffer);
}

}  // namespace

int main() {
  odd_requests();
  for (std::uint64_t round = 0; round < 3; ++round) {
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 4; ++i) threads.emplace_back(work, round * 10 + i);
    for (std::thread& thread : threads) thread.join();
    forks();
  }
  for (auto& slot : exchange) {
    std::unique_ptr<Buffer> taken(slot.exchange(nullptr));
    if (taken != nullptr) drop(*taken);
  }
  if (wrong == 0) std::puts("ok");
  return wrong == 0 ? 0 : 1;
}

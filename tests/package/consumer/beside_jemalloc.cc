// A program whose malloc is a jemalloc of its own, beside the one inside keel: neither sees what
// the other does.
#include <jemalloc/jemalloc.h>
#include <keel/alloc/pool.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

extern "C" void* keel_je_malloc(std::size_t size);  // inside libkeel_alloc
extern "C" void keel_je_free(void* address);

namespace {

// Bytes that this thread has had from the program's jemalloc.
std::uint64_t allocated() {
  std::uint64_t bytes = 0;
  std::size_t size = sizeof bytes;
  return mallctl("thread.allocated", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
}

}  // namespace

int main() {
  void* warm = std::malloc(1000);
  const std::uint64_t before = allocated();
  void* ours = keel_je_malloc(1000);
  if (ours == nullptr || allocated() != before)
    return std::puts("keel's calls are the program's"), 1;
  void* theirs = std::malloc(1000);
  if (theirs == nullptr || allocated() <= before) return std::puts("malloc is not its jemalloc"), 2;
  void* buffer = keel::kvmalloc(100'000);
  void* small = keel::kvmalloc(100);
  if (buffer == nullptr || small == nullptr) return 3;
  keel::kvfree(buffer);
  keel::kvfree(small);
  keel_je_free(ours);
  std::free(theirs);
  std::free(warm);
  return 0;
}

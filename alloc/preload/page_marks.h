// PageMarks: one bit for each page of the address space, to tell at a glance whose an address is.
//
// The pool's buffers begin at pages, so that most addresses are told apart by their low bits alone,
// and any other by one load. A page of bits covers 128 MiB and is populated by use.
// Threads: any. Relaxed: who frees a buffer was given it by whoever allocated it.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "keel/base/os.h"
#include "keel/base/units.h"

namespace keel::preload {

class PageMarks {
 public:
  // False if there is no address space for it (4 GiB, never populated as a whole).
  [[nodiscard]] bool open() {
    void* table = nullptr;
    if (os().mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &table) < 0) {
      return false;
    }
    (void)os().madvise(table, kBytes, MADV_DONTDUMP);  // only for smaller dumps
    // Release pairs with the loads: the table is whole for who sees it.
    words_.store(static_cast<Word*>(table), std::memory_order_release);
    return true;
  }

  [[nodiscard]] bool test(const void* address) const {
    const auto number = reinterpret_cast<std::uintptr_t>(address);
    if (number % kPageBytes != 0 || number >> kAddressBits != 0) [[likely]] {
      return false;
    }
    const Word* words = words_.load(std::memory_order_acquire);
    return words != nullptr &&
           (words[word_of(number)].load(std::memory_order_relaxed) & bit_of(number)) != 0;
  }
  // Of page-aligned addresses, once open.
  void set(const void* address) {
    const auto number = reinterpret_cast<std::uintptr_t>(address);
    words_.load(std::memory_order_acquire)[word_of(number)].fetch_or(bit_of(number),
                                                                     std::memory_order_relaxed);
  }
  void clear(const void* address) {
    const auto number = reinterpret_cast<std::uintptr_t>(address);
    words_.load(std::memory_order_acquire)[word_of(number)].fetch_and(~bit_of(number),
                                                                      std::memory_order_relaxed);
  }

 private:
  using Word = std::atomic<std::uint64_t>;
  static constexpr unsigned kAddressBits = 47;
  static constexpr std::size_t kBytes = std::size_t{1} << (kAddressBits - kPageShift - 3);

  static constexpr std::size_t word_of(std::uintptr_t number) { return number >> (kPageShift + 6); }
  static constexpr std::uint64_t bit_of(std::uintptr_t number) {
    return std::uint64_t{1} << (number >> kPageShift & 63);
  }

  std::atomic<Word*> words_{nullptr};
};

}  // namespace keel::preload

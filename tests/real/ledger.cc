#include "ledger.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "faultfs/store.h"
#include "keel/base/check.h"

namespace keel_test {

LedgerFile::LedgerFile(const std::string& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  KEEL_CHECK(fd >= 0, "open the ledger");
  struct stat st {};
  KEEL_CHECK(::fstat(fd, &st) == 0, "size of the ledger");
  const bool whole = st.st_size >= static_cast<off_t>(kLedgerBytes);
  KEEL_CHECK(whole || ::ftruncate(fd, kLedgerBytes) == 0, "size of the ledger");
  // Taken at once: what is written to memory cannot be refused.
  KEEL_CHECK(whole || ::fallocate(fd, 0, 0, kLedgerBytes) == 0 || errno == EOPNOTSUPP,
             "room for the ledger");
  void* place = ::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  KEEL_CHECK(place != MAP_FAILED, "map the ledger");
  (void)::close(fd);
  ledger_ = static_cast<Ledger*>(place);  // all zero: as constructed
}

LedgerFile::~LedgerFile() { (void)::munmap(ledger_, sizeof(Ledger)); }

void LedgerFile::begin_life(std::uint64_t base_sequence,
                            const std::array<Version, kLedgerObjects>& base,
                            const std::array<Version, kLedgerObjects>& home) {
  Ledger& ledger = *ledger_;
  for (LedgerThread& thread : ledger.threads) {
    thread.begun = 0;
  }
  for (Word* word : {&ledger.opened, &ledger.closing, &ledger.failed_with, &ledger.after_failure,
                     &ledger.attempts_after, &ledger.stalls, &ledger.done, &ledger.go,
                     &ledger.memory_locked, &ledger.refused}) {
    *word = 0;
  }
  ledger.promises.forced = 0;
  for (std::size_t i = 0; i < kLedgerObjects; ++i) {
    ledger.promises.home[i] = home[i];
  }
  ledger.base_sequence = base_sequence;
  ledger.base = base;
}

PromisesCopy LedgerFile::promises() const {
  PromisesCopy copy;
  copy.forced = ledger_->promises.forced;
  for (std::size_t i = 0; i < kLedgerObjects; ++i) {
    copy.home[i] = ledger_->promises.home[i];
  }
  return copy;
}

std::uint64_t begun_of(const Ledger& ledger) {
  std::uint64_t sum = 0;
  for (const LedgerThread& thread : ledger.threads) {
    sum += thread.begun;
  }
  return sum;
}

std::uint64_t newest_of(const Ledger& ledger) {
  std::uint64_t newest = 0;
  for (const LedgerThread& thread : ledger.threads) {
    for (std::uint64_t n = 0; n < thread.begun; ++n) {
      newest = std::max<std::uint64_t>(newest, thread.transactions[n].sequence);
    }
  }
  return newest;
}

bool is_erasure(Version version) { return version % 13 == 0; }

std::size_t size_of(Version version) {
  if (is_erasure(version)) {
    return 0;
  }
  std::uint64_t state = version * 77;
  const std::uint64_t draw = faultfs::random_step(state);
  if ((version & kLargeVersion) != 0 && draw % 8 < 6) {
    return 8 + draw / 8 % (400U << 10U);
  }
  switch (draw % 8) {
    case 0: return 4096;
    case 1: return 4096 + draw / 8 % 20000;
    case 2: return 8192 - 8;
    case 3: return 4095;
    default: return 8 + draw / 8 % 4000;
  }
}

// The version first, then words of their own for each version and place.
void fill_content(Version version, char* bytes, std::size_t size) {
  std::uint64_t state = version;
  const std::uint64_t factor = faultfs::random_step(state) | 1U;
  for (std::size_t at = 0; at < size; at += 8) {
    const std::uint64_t mixed = (version + at) * factor;
    const std::uint64_t word = at == 0 ? version : mixed ^ (mixed >> 29U);
    std::memcpy(bytes + at, &word, at + 8 <= size ? 8 : size - at);
  }
}

}  // namespace keel_test

#include "keel/vmap/frame_store.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/death.h"
#include "support/fault_os.h"
#include "support/memory_lock.h"
#include "support/skip_case.h"
#include "support/test_seed.h"

using namespace keel;
using keel_test::FaultOs;
using keel_test::OsCall;

namespace {

constexpr std::size_t kChunkBytes = 64U << 10;
constexpr FrameStoreConfig kConfig{.capacity_bytes = 8 * kChunkBytes, .chunk_bytes = kChunkBytes};

std::unique_ptr<FrameStore> make(const FrameStoreConfig& config = kConfig) {
  auto store = FrameStore::create(config);
  REQUIRE(store.ok());
  return std::move(*store);
}

// The kernel's flags of the mapping that holds `address`.
std::string mapping_flags(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  while (std::getline(smaps, line)) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
      inside = from <= at && at < to;
    } else if (inside && line.rfind("VmFlags:", 0) == 0) {
      return line + " ";
    }
  }
  return {};
}

bool is_zero(const FrameStore& store, FrameRun run) {
  const std::byte* from = store.address_of(run.first);
  return std::all_of(from, from + bytes_of(run.count),
                     [](std::byte b) { return b == std::byte{}; });
}

}  // namespace

TEST_CASE("a store grows chunk by chunk to its capacity and says so there") {
  const auto store = make();
  CHECK(store->populated() == Pages(0));
  for (std::uint64_t i = 0; i < 8; ++i) {
    const auto next = store->next_chunk();
    REQUIRE(next.ok());
    const auto chunk = store->grow();
    REQUIRE(chunk.ok());
    CHECK(*chunk == *next);
    CHECK(*chunk == FrameRun{Pfn(i * 16), Pages(16)});
    CHECK(is_zero(*store, *chunk));
  }
  CHECK(store->populated() == store->capacity());
  CHECK(store->grow().error().code == Errc::kNoMemory);
  CHECK(store->next_chunk().error().code == Errc::kNoMemory);
  store->audit();
}

// The sanitizers' shadow memory has faults of its own, and they turn mlock off.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("nobody takes a page fault on a populated chunk") {
  const auto store = make({.capacity_bytes = 4U << 20, .chunk_bytes = 4U << 20});
  const auto chunk = store->grow();
  REQUIRE(chunk.ok());
  const auto minor_faults = [] {
    struct rusage usage {};
    REQUIRE(::getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
  };
  const long before = minor_faults();
  for (std::uint64_t i = 0; i < chunk->count.value(); ++i) {
    *static_cast<volatile std::byte*>(store->address_of(Pfn(i))) = std::byte{1};
  }
  CHECK(minor_faults() - before < 16);  // of 1024, the test's own
}

TEST_CASE("memory is locked if asked for") {
  if (keel_test::cannot_lock(4 * kChunkBytes)) {
    return;
  }
  FrameStoreConfig config = kConfig;
  config.lock_memory = true;
  const auto store = make(config);
  const auto chunk = store->grow();
  REQUIRE(chunk.ok());
  CHECK(mapping_flags(store->address_of(chunk->first)).find(" lo ") != std::string::npos);
  CHECK(store->trim(*chunk).ok());
  CHECK(store->grow().ok());
}

#endif

TEST_CASE("a trimmed chunk is gone, the lowest hole grows first, and comes back zeroed") {
  const auto store = make();
  const auto first = store->grow();
  const auto second = store->grow();
  REQUIRE(second.ok());
  *store->address_of(first->first) = std::byte{7};
  CHECK(store->trim(*first).ok());
  CHECK(store->populated() == Pages(16));
  CHECK(store->trim(*first).error().code == Errc::kInvalidArgument);
  CHECK(store->trim({second->first, Pages(8)}).error().code == Errc::kInvalidArgument);
  CHECK(store->trim({Pfn(1U << 20), Pages(16)}).error().code == Errc::kInvalidArgument);
  const auto again = store->grow();
  REQUIRE(again.ok());
  CHECK(*again == *first);
  CHECK(is_zero(*store, *again));
  store->audit();
}

TEST_CASE("growth does not look at chunks below the lowest hole, and a trim makes a lower one") {
  constexpr std::size_t kChunks = 2 * kPageBytes;
  // The chunk map, of a byte for each, stands in pages of its own.
  class PagedOs final : public Os {
   public:
    void* metadata_allocate(std::size_t bytes) override {
      void* memory = std::aligned_alloc(kPageBytes, round_up(bytes, kPageBytes));
      map = bytes == kChunks ? memory : map;
      return memory;
    }
    void metadata_free(void* memory) override { std::free(memory); }
    void* map = nullptr;
  };
  PagedOs paged;
  const ScopedOs scope(paged);
  const auto created = FrameStore::create(
      {.capacity_bytes = kChunks * kPageBytes, .chunk_bytes = kPageBytes, .huge_pages = false});
  REQUIRE(created.ok());
  FrameStore& store = **created;
  REQUIRE(paged.map != nullptr);
  for (std::size_t i = 0; i < kPageBytes + 8; ++i) {
    REQUIRE(store.grow().ok());
  }
  store.audit();
  const auto ending = keel_test::run_in_child([&] {
    (void)::mprotect(paged.map, kPageBytes, PROT_NONE);
    const auto next = store.next_chunk();
    ::_exit(next.ok() && next->first == Pfn(kPageBytes + 8) ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  REQUIRE(store.trim({Pfn(5), Pages(1)}).ok());
  CHECK(store.next_chunk()->first == Pfn(5));
  CHECK(store.grow()->first == Pfn(5));
  CHECK(store.next_chunk()->first == Pfn(kPageBytes + 8));
  store.audit();
}

TEST_CASE("the direct map is not forked, and dumped only if asked for") {
  const auto quiet = make();
  CHECK(mapping_flags(quiet->address_of(Pfn(0))).find(" dc ") != std::string::npos);
  CHECK(mapping_flags(quiet->address_of(Pfn(0))).find(" dd ") != std::string::npos);
  FrameStoreConfig config = kConfig;
  config.dump_memory = true;
  const auto dumped = make(config);
  CHECK(mapping_flags(dumped->address_of(Pfn(0))).find(" dc ") != std::string::npos);
  CHECK(mapping_flags(dumped->address_of(Pfn(0))).find(" dd ") == std::string::npos);
}

TEST_CASE("a config that makes no sense is refused") {
  for (const FrameStoreConfig& config :
       {FrameStoreConfig{}, FrameStoreConfig{.capacity_bytes = 100},
        FrameStoreConfig{.capacity_bytes = 3 * kChunkBytes / 2, .chunk_bytes = kChunkBytes},
        FrameStoreConfig{.capacity_bytes = 3 * kPageBytes, .chunk_bytes = 3 * kPageBytes},
        FrameStoreConfig{.capacity_bytes = 1024, .chunk_bytes = 512},
        FrameStoreConfig{.capacity_bytes = std::size_t{8} << 40}}) {
    CHECK(FrameStore::create(config).error().code == Errc::kInvalidArgument);
  }
}

TEST_CASE("refused huge-page advice is no error, and what was got is reported") {
  FaultOs faults;
  keel_test::OsCallMask advice = keel_test::mask_of(OsCall::kMadvise);
  ScopedOs scope(faults);
  faults.fail_nth(4, advice, EINVAL);  // after the fork guard's, DONTFORK and DONTDUMP
  const auto store = make();
  CHECK(faults.fired());
  CHECK(!store->huge_advice_taken());
  const auto huge = store->huge_bytes();
  REQUIRE(huge.ok());
  CHECK(*huge == Bytes(0));
}

TEST_CASE("creating a store survives every failing call and leaks nothing") {
  FaultOs faults;
  ScopedOs scope(faults);
  for (std::uint64_t n = 1;; ++n) {
    faults.fail_nth(n);
    const bool made = FrameStore::create(kConfig).ok();
    if (!faults.fired()) {
      break;
    }
    // Only the huge-page advice, the last call, may be refused.
    CHECK((!made || faults.calls(OsCall::kMadvise) != 0));
    CHECK(faults.holds_nothing());
  }
  CHECK(faults.holds_nothing());
}

TEST_CASE("where a file may not be as large as a store, that is an error and no signal") {
  const auto ending = keel_test::run_in_child([] {
    struct rlimit before {};
    (void)::getrlimit(RLIMIT_FSIZE, &before);
    const struct rlimit limit { kChunkBytes, before.rlim_max };
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) {
      _exit(2);
    }
    const auto refused = FrameStore::create(kConfig);
    (void)::setrlimit(RLIMIT_FSIZE, &before);  // A child may write its coverage.
    if (refused.ok() || refused.error().sys_errno != EFBIG) {
      _exit(3);
    }
    // Nothing of it is left, and who writes too far himself is told by the signal as ever.
    sigset_t pending;
    sigset_t blocked;
    (void)::sigpending(&pending);
    (void)::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
    const bool clean = sigismember(&pending, SIGXFSZ) == 0 && sigismember(&blocked, SIGXFSZ) == 0;
    _exit(clean ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
}

TEST_CASE("a signal for a file too large that waited before is left to its program") {
  const auto ending = keel_test::run_in_child([] {
    const struct rlimit limit { kChunkBytes, kChunkBytes };
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGXFSZ);
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0 ||
        ::pthread_sigmask(SIG_BLOCK, &one, nullptr) != 0 || ::raise(SIGXFSZ) != 0 ||
        FrameStore::create(kConfig).ok()) {
      _exit(2);
    }
    sigset_t pending;
    (void)::sigpending(&pending);
    _exit(sigismember(&pending, SIGXFSZ) == 1 ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
}

TEST_CASE("a growth that fails changes nothing") {
  if (keel_test::cannot_lock(4 * kChunkBytes)) {
    return;
  }
  FaultOs faults;
  ScopedOs scope(faults);
  FrameStoreConfig config = kConfig;
  config.lock_memory = true;
  const auto store = make(config);
  REQUIRE(store->grow().ok());
  for (std::uint64_t n = 1;; ++n) {
    faults.fail_from(n);  // the undo fails too
    const auto grown = store->grow();
    if (!faults.fired()) {
      break;
    }
    CHECK(grown.error().code == Errc::kNoMemory);
    CHECK(store->populated() == Pages(16));
    store->audit();
  }
  CHECK(store->populated() == Pages(32));
  faults.fail_nth(1, keel_test::mask_of(OsCall::kFallocate), EIO);
  CHECK(!store->trim({Pfn(0), Pages(16)}).ok());
  CHECK(store->populated() == Pages(32));
  store->audit();
}

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr FrameStoreConfig kHugeConfig{.capacity_bytes = 9 * kMiB, .chunk_bytes = kMiB};

// Counts huge pages asked for, and answers by itself, that they were given or an error: what the
// kernel has to give is another matter.
class HugeOs : public Os {
 public:
  int madvise(void* address, std::size_t bytes, int advice) override {
    constexpr int kCollapse = 25;  // MADV_COLLAPSE, which older headers lack
    if (advice != kCollapse) {
      return Os::madvise(address, bytes, advice);
    }
    asked.push_back(address);
    return -error;
  }
  std::vector<void*> asked;
  int error = 0;
};

std::uint64_t bytes_there(const FrameStore& store) {
  struct stat status {};
  REQUIRE(fstat(store.fd(), &status) == 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

}  // namespace

TEST_CASE("a growth that cannot lock its chunk gives the memory back") {
  FaultOs faults;
  ScopedOs scope(faults);
  FrameStoreConfig config = kConfig;
  config.lock_memory = true;
  const auto store = make(config);
  faults.fail_nth(1, keel_test::mask_of(OsCall::kMlock));
  CHECK(!store->grow().ok());
  CHECK(faults.fired());
  CHECK(bytes_there(*store) == 0);
}

TEST_CASE("a forked child can neither grow nor trim its parent's store") {
  const auto store = make();
  const auto chunk = store->grow();
  REQUIRE(chunk.ok());
  *store->address_of(chunk->first) = std::byte{7};
  const auto ending = keel_test::run_in_child([&] {
    const bool refused = store->grow().error().code == Errc::kForked &&
                         store->trim(*chunk).error().code == Errc::kForked;
    ::_exit(refused ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
  CHECK(*store->address_of(chunk->first) == std::byte{7});
  CHECK(bytes_there(*store) >= kChunkBytes);
}

TEST_CASE("growth asks for a huge page where a whole one is a hole, and only there") {
  HugeOs os;
  ScopedOs scope(os);
  const auto store = make(kHugeConfig);
  if (!store->huge_advice_taken()) {
    keel_test::skip_case("this kernel takes no advice of huge pages for shared memory");
    return;
  }
  CHECK(reinterpret_cast<std::uintptr_t>(store->address_of(Pfn(0))) % (2 * kMiB) == 0);
  while (store->grow().ok()) {
  }
  std::vector<void*> expected;
  for (std::uint64_t first = 0; first < 8 * 256; first += 512) {  // the ninth MiB is no whole one
    expected.push_back(store->address_of(Pfn(first)));
  }
  CHECK(os.asked == expected);
  // A half alone is a hole: its neighbour is in use.
  *store->address_of(Pfn(256)) = std::byte{7};
  REQUIRE(store->trim({Pfn(0), Pages(256)}).ok());
  REQUIRE(store->grow().ok());
  CHECK(os.asked == expected);
  CHECK(*store->address_of(Pfn(256)) == std::byte{7});
  CHECK(is_zero(*store, {Pfn(0), Pages(256)}));
  REQUIRE(store->trim({Pfn(0), Pages(256)}).ok());
  REQUIRE(store->trim({Pfn(256), Pages(256)}).ok());
  REQUIRE(store->grow().ok());
  CHECK(os.asked.size() == expected.size() + 1);
  store->audit();
}

TEST_CASE("without huge pages, for now or ever, growth goes on in small ones") {
  for (const int error : {EINVAL, EAGAIN, ENOMEM}) {
    CAPTURE(error);
    HugeOs os;
    ScopedOs scope(os);
    os.error = error;
    const auto store = make(kHugeConfig);
    for (int i = 0; i < 100; ++i) {
      const auto grown = store->grow();
      REQUIRE(grown.ok());
      CHECK(is_zero(*store, *grown));
      REQUIRE(store->trim(*grown).ok());
    }
    CHECK(os.asked.size() <= (error == EINVAL ? 1 : 2));  // once, or again after a pause
    store->audit();
  }
  HugeOs os;
  ScopedOs scope(os);
  FrameStoreConfig config = kHugeConfig;
  config.huge_pages = false;
  CHECK(make(config)->grow().ok());
  CHECK(os.asked.empty());
}

namespace {

// Pages of the run that the direct map's page table has: touching them is no fault.
std::uint64_t pages_mapped(const FrameStore& store, FrameRun run) {
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  std::vector<std::uint64_t> entries(run.count.value());
  const auto first = reinterpret_cast<std::uintptr_t>(store.address_of(run.first)) / kPageBytes;
  const std::size_t bytes = entries.size() * sizeof entries[0];
  REQUIRE(pread(fd, entries.data(), bytes, static_cast<off_t>(first * sizeof entries[0])) ==
          static_cast<ssize_t>(bytes));
  close(fd);
  std::uint64_t mapped = 0;
  for (const std::uint64_t entry : entries) {
    mapped += entry >> 63;
  }
  return mapped;
}

}  // namespace

TEST_CASE("a populated chunk is in the page table, with huge pages and without") {
  for (const bool huge : {false, true}) {
    FrameStoreConfig config = kHugeConfig;
    config.huge_pages = huge;
    const auto store = make(config);
    const auto chunk = store->grow();
    REQUIRE(chunk.ok());
    CHECK(pages_mapped(*store, *chunk) == 256);
  }
}

TEST_CASE("trimming half of a huge page leaves the other half where nobody takes a fault") {
  const auto store = make(kHugeConfig);
  const auto first = store->grow();
  const auto second = store->grow();
  REQUIRE(second.ok());
  REQUIRE(pages_mapped(*store, *second) == 256);
  REQUIRE(store->trim(*first).ok());
  CHECK(pages_mapped(*store, *second) == 256);
}

TEST_CASE("a trim that cannot give back what lies beside the chunk has given the chunk back") {
  // Says that it gives huge pages.
  class Os final : public FaultOs {
   public:
    int madvise(void* address, std::size_t bytes, int advice) override {
      constexpr int kCollapse = 25;  // MADV_COLLAPSE
      return advice == kCollapse ? 0 : FaultOs::madvise(address, bytes, advice);
    }
  };
  Os os;
  const ScopedOs scope(os);
  FrameStoreConfig config = kHugeConfig;
  config.chunk_bytes = kMiB / 2;
  const auto store = make(config);
  if (!store->huge_advice_taken()) {
    keel_test::skip_case("this kernel takes no advice of huge pages for shared memory");
    return;
  }
  std::vector<FrameRun> chunks;
  for (int i = 0; i < 4; ++i) {
    const auto grown = store->grow();
    REQUIRE(grown.ok());
    chunks.push_back(*grown);
  }
  REQUIRE(store->trim(chunks[1]).ok());
  os.fail_nth(2, mask_of(OsCall::kFallocate));  // that of the hole beside it
  CHECK(store->trim(chunks[0]).ok());
  CHECK(os.fired());
  CHECK(store->populated() == Pages(2 * 128));
  // Behind two holes; this time it is the chunk that the system does not take.
  os.fail_nth(3, mask_of(OsCall::kFallocate));
  CHECK(!store->trim(chunks[2]).ok());
  CHECK(os.fired());
  CHECK(store->populated() == Pages(2 * 128));
  store->audit();
}

TEST_CASE("what a huge page brought beside a chunk is never more than that, and goes with it") {
  std::mt19937_64 random(keel_test::test_seed("huge", 3));
  for (const std::size_t chunk_bytes : {kMiB, kMiB / 4}) {
    FrameStoreConfig config = kHugeConfig;
    config.chunk_bytes = chunk_bytes;
    const auto store = make(config);
    std::vector<FrameRun> chunks;
    for (int i = 0; i < 2'000; ++i) {
      if (random() % 2 == 0) {
        if (const auto grown = store->grow(); grown.ok()) {
          chunks.push_back(*grown);
          REQUIRE(is_zero(*store, *grown));
          std::memset(store->address_of(grown->first), 1, bytes_of(grown->count));
        }
      } else if (!chunks.empty()) {
        std::swap(chunks[random() % chunks.size()], chunks.back());
        REQUIRE(store->trim(chunks.back()).ok());
        chunks.pop_back();
      }
      const std::uint64_t counted = bytes_of(store->populated());
      REQUIRE(bytes_there(*store) >= counted);
      REQUIRE(bytes_there(*store) <= counted + 2 * kMiB - chunk_bytes);
    }
  }
}

#include "keel/alloc/page_allocator.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "support/death.h"
#include "support/fault_os.h"

using namespace keel;
using keel_test::FaultOs;

namespace {

std::unique_ptr<PageAllocator> make(std::uint64_t frames, std::uint64_t present) {
  auto made = PageAllocator::create(Pages(frames));
  REQUIRE(made.ok());
  if (present != 0) {
    REQUIRE((*made)->prepare({Pfn(0), Pages(present)}).ok());
    (*made)->add({Pfn(0), Pages(present)});
  }
  return std::move(*made);
}

std::vector<FrameRun> runs_of(const PageAllocator& allocator, Pfn chain) {
  ChainSource source(allocator, chain);
  std::vector<FrameRun> runs;
  FrameRun run;
  while (source.next(run)) {
    runs.push_back(run);
  }
  return runs;
}

}  // namespace

TEST_CASE("frames that are added become the largest blocks they can be") {
  const auto pages = make(2048, 1024 + 512 + 3);
  const auto blocks = pages->buddyinfo();
  CHECK(blocks[10] == 1);
  CHECK(blocks[9] == 1);
  CHECK(blocks[1] == 1);
  CHECK(blocks[0] == 1);
  CHECK(pages->counts().free == Pages(1539));
  CHECK(pages->counts().present == Pages(1539));
  pages->audit();
}

TEST_CASE("a frame that nobody ever had has an owner without a name") {
  CHECK(FrameRecord{}.owner_name() == doctest::String(""));  // As where no frame is present.
  const auto pages = make(16, 16);
  CHECK(pages->record(Pfn(3)).owner_name() == doctest::String(""));
  CHECK(pages->find(Pfn(3)).owner == doctest::String(""));
  REQUIRE(pages->allocate(Pages(16), "all"));
  CHECK(pages->record(Pfn(0)).owner_name() == doctest::String("all"));
}

TEST_CASE("a request holds exactly its pages, the rest of the block is free at once") {
  const auto pages = make(1024, 1024);
  const auto run = pages->allocate(Pages(5), "five");
  REQUIRE(run);
  CHECK(pages->counts().free == Pages(1019));
  const FrameInfo info = pages->find(*run);
  CHECK(info.use == FrameUse::kBuffer);
  CHECK(info.run == FrameRun{*run, Pages(5)});
  CHECK(info.owner == doctest::String("five"));
  CHECK(pages->find(*run + Pages(4)).use == FrameUse::kBody);
  CHECK(pages->find(*run + Pages(5)).use == FrameUse::kFree);
  pages->audit();
  CHECK(pages->free(*run).use == FrameUse::kBuffer);
  CHECK(pages->buddyinfo()[10] == 1);  // all joined again
  pages->audit();
}

TEST_CASE("small requests use up broken blocks before whole ones are broken") {
  const auto pages = make(4096, 4096);
  std::vector<Pfn> single;
  for (int i = 0; i < 1024; ++i) {
    single.push_back(*pages->allocate(Pages(1), ""));
  }
  CHECK(pages->buddyinfo()[10] == 3);  // 1,024 single frames broke one block of four
  for (std::size_t i = 0; i < single.size(); i += 2) {
    pages->free(single[i]);
  }
  const Pfn two = *pages->allocate(Pages(2), "");  // none of the holes fits: a second block breaks
  CHECK(pages->buddyinfo()[10] == 2);
  for (int i = 0; i < 512; ++i) {
    REQUIRE(pages->allocate(Pages(1), ""));
  }
  CHECK(pages->buddyinfo()[10] == 2);
  pages->free(two);
  pages->audit();
}

TEST_CASE("a request that no block holds fails at once and changes nothing") {
  const auto pages = make(1024, 1024);
  std::vector<Pfn> frames;
  while (const auto frame = pages->allocate(Pages(1), "")) {
    frames.push_back(*frame);
  }
  CHECK(frames.size() == 1024);
  for (std::uint64_t i = 0; i < 1024; i += 2) {
    pages->free(Pfn(i));
  }
  CHECK(pages->counts().free == Pages(512));
  CHECK(!pages->allocate(Pages(2), ""));
  CHECK(!pages->allocate(Pages(0), ""));
  CHECK(!pages->allocate(Pages(1025), ""));
  CHECK(!pages->gather(Pages(513), ""));
  CHECK(!pages->gather(Pages(0), ""));
  CHECK(pages->counts().free == Pages(512));
  pages->audit();
}

TEST_CASE("gather takes the largest runs first, and only what it needs") {
  const auto pages = make(3 * 1024, 3 * 1024);
  // Free runs of 1,000, 100 and 600 frames.
  const Pfn first = *pages->allocate(Pages(1000), "");
  const Pfn wall = *pages->allocate(Pages(1), "");
  const Pfn second = *pages->allocate(Pages(100), "");
  const Pfn other_wall = *pages->allocate(Pages(1), "");
  const Pfn third = *pages->allocate(Pages(600), "");
  while (pages->allocate(Pages(10), "")) {
  }
  for (const Pfn run : {first, second, third}) {
    pages->free(run);
  }
  const auto chain = pages->gather(Pages(1650), "chain");
  REQUIRE(chain);
  const auto runs = runs_of(*pages, *chain);
  REQUIRE(runs.size() == 3);
  CHECK(runs[0] == FrameRun{first, Pages(1000)});
  CHECK(runs[1] == FrameRun{third, Pages(600)});
  CHECK(runs[2].count == Pages(50));
  CHECK(pages->find(runs[1].first).use == FrameUse::kScattered);
  CHECK(pages->find(runs[1].first + Pages(1)).of == FrameUse::kScattered);
  const auto rest = pages->gather(Pages(50), "fits one run");
  REQUIRE(rest);
  CHECK(runs_of(*pages, *rest).size() == 1);
  pages->audit();
  pages->free_chain(*rest);
  pages->free_chain(*chain);
  CHECK(pages->find(wall).use == FrameUse::kBuffer);
  CHECK(pages->find(other_wall).use == FrameUse::kBuffer);
  pages->audit();
}

TEST_CASE("gather reaches the last free frame, however scattered") {
  const auto pages = make(1024, 1024);
  while (pages->allocate(Pages(1), "")) {
  }
  for (std::uint64_t i = 1; i < 1024; i += 2) {
    pages->free(Pfn(i));
  }
  const auto chain = pages->gather(Pages(512), "");
  REQUIRE(chain);
  CHECK(runs_of(*pages, *chain).size() == 512);
  CHECK(pages->counts().free == Pages(0));
  pages->audit();
  pages->free_chain(*chain);
  CHECK(pages->counts().free == Pages(512));
  pages->audit();
}

TEST_CASE("a wrong free changes nothing and says what was found") {
  const auto pages = make(2048, 1024);
  const Pfn run = *pages->allocate(Pages(5), "five");
  const Pfn chain = *pages->gather(Pages(3), "chain");
  CHECK(pages->free(run + Pages(2)).use == FrameUse::kBody);
  CHECK(pages->free(run + Pages(2)).run == FrameRun{run, Pages(5)});
  CHECK(pages->free(chain).use == FrameUse::kChain);
  CHECK(pages->free(Pfn(1500)).use == FrameUse::kAbsent);
  const FrameInfo never = pages->free(Pfn(1000));
  CHECK(never.use == FrameUse::kFree);
  CHECK(never.run.count == Pages(0));
  CHECK(pages->counts().free == Pages(1016));
  pages->audit();
  pages->free(run);
  const FrameInfo again = pages->free(run);
  CHECK(again.use == FrameUse::kFree);
  CHECK(again.run == FrameRun{run, Pages(5)});
  CHECK(again.owner == doctest::String("five"));
  pages->audit();
}

TEST_CASE("a chunk is removed only when all of it is free, and can come back") {
  for (const std::uint64_t chunk : {std::uint64_t{16}, std::uint64_t{1024}, std::uint64_t{2048}}) {
    const auto pages = make(4096, 4096);
    const FrameRun last{Pfn(4096 - chunk), Pages(chunk)};
    REQUIRE(pages->remove(last));
    CHECK(pages->counts().present == Pages(4096 - chunk));
    CHECK(pages->counts().free == Pages(4096 - chunk));
    CHECK(!pages->remove(last));
    pages->audit();
    const auto all = pages->gather(Pages(4096 - chunk), "");
    REQUIRE(all);
    CHECK(!pages->remove({Pfn(0), Pages(chunk)}));
    pages->free_chain(*all);
    pages->add(last);
    CHECK(pages->buddyinfo()[10] == 4);
    pages->audit();
  }
}

TEST_CASE(
    "a chunk smaller than what frames are counted by is removed only when it is free itself") {
  const auto pages = make(256, 256);
  const Pfn first = *pages->allocate(Pages(8), "");
  const Pfn second = *pages->allocate(Pages(8), "");
  REQUIRE(first == Pfn(0));
  REQUIRE(second == Pfn(8));
  const FrameRun chunk{Pfn(0), Pages(16)};
  CHECK(!pages->remove(chunk));
  pages->free(first);
  CHECK(!pages->remove(chunk));
  pages->audit();
  pages->free(second);
  CHECK(pages->remove(chunk));
  CHECK(pages->counts().present == Pages(240));
  pages->audit();
  // The free run ends where the chunk does, and begins in it.
  for (const std::uint64_t at : {16U, 24U, 32U}) {
    REQUIRE(*pages->allocate(Pages(8), "") == Pfn(at));
  }
  pages->free(Pfn(24));
  CHECK(!pages->remove({Pfn(16), Pages(16)}));
  pages->audit();
}

TEST_CASE("the last chunk of a free run is removed without a look at what lies before it") {
  constexpr std::uint64_t kChunk = 256;
  constexpr std::uint64_t kChunks = 64;
  const auto pages = make(kChunks * kChunk, kChunks * kChunk);
  // Between the run's first frame and the last chunks there is no record to be looked at.
  auto* first = reinterpret_cast<std::byte*>(&pages->record(Pfn(kChunk)));
  first += -reinterpret_cast<std::uintptr_t>(first) % kPageBytes;
  const std::size_t bytes = (kChunks / 2) * kChunk * sizeof(FrameRecord);
  const auto ending = keel_test::run_in_child([&] {
    if (::mprotect(first, bytes, PROT_NONE) != 0) {
      ::_exit(2);
    }
    for (std::uint64_t chunk = kChunks; chunk-- > kChunks - 8;) {
      if (!pages->remove({Pfn(chunk * kChunk), Pages(kChunk)})) {
        ::_exit(3);
      }
    }
    ::_exit(0);
  });
  CHECK(ending.exit_code == 0);
}

TEST_CASE("the highest free chunk is found below any other, and none in a chunk that is in use") {
  constexpr std::uint64_t kChunk = 256;
  constexpr std::uint64_t kChunks = 200;  // More than are looked at in one hold.
  const auto pages = make(kChunks * kChunk, 3 * kChunk);
  const Pfn end(kChunks * kChunk);
  CHECK(pages->find_free_chunk(end, Pages(kChunk)) == FrameRun{Pfn(2 * kChunk), Pages(kChunk)});
  CHECK(pages->find_free_chunk(Pfn(2 * kChunk), Pages(kChunk)) ==
        FrameRun{Pfn(kChunk), Pages(kChunk)});
  const auto used = pages->allocate(Pages(1), "user");  // the first frame of all
  REQUIRE(used == Pfn(0));
  CHECK_FALSE(pages->find_free_chunk(Pfn(kChunk), Pages(kChunk)));
  CHECK_FALSE(pages->find_free_chunk(Pfn(0), Pages(kChunk)));
}

TEST_CASE("what is free is told by order without a look at any record") {
  constexpr std::uint64_t kFrames = 4096;
  const auto pages = make(kFrames, kFrames);
  for (std::uint64_t i = 0; i < 3; ++i) {
    REQUIRE(pages->allocate(Pages(100), "user"));
  }
  auto* first = reinterpret_cast<std::byte*>(&pages->record(Pfn(0)));
  REQUIRE(reinterpret_cast<std::uintptr_t>(first) % kPageBytes == 0);
  const auto ending = keel_test::run_in_child([&] {
    (void)::mprotect(first, kFrames * sizeof(FrameRecord), PROT_NONE);
    std::uint64_t sum = 0;
    const auto blocks = pages->buddyinfo();
    for (unsigned order = 0; order <= kMaxOrder; ++order) {
      sum += blocks[order] << order;
    }
    ::_exit(sum == kFrames - 300 ? 0 : 1);
  });
  CHECK(ending.exit_code == 0);
}

TEST_CASE("who sums up what others hold lets them have the lock now and then") {
  class SleepOs final : public Os {
   public:
    void sleep_ns(std::uint64_t) override {
      ++sleeps;
      (void)pages->counts();  // Which takes the lock.
    }
    PageAllocator* pages = nullptr;
    unsigned sleeps = 0;
  };
  SleepOs slept;
  const ScopedOs scope(slept);
  const auto pages = make(std::uint64_t{1024} << kMaxOrder, 1024);
  slept.pages = pages.get();
  std::array<Holder, 1> largest;
  CHECK(pages->holders(largest) == 0);
  CHECK(slept.sleeps == 3);  // Every GiB.
}

TEST_CASE("who holds memory is summed by owner, largest first") {
  const auto pages = make(4096, 4096);
  static const char kLarge[] = "large";
  static const char kSmall[] = "small";
  (void)pages->allocate(Pages(10), kSmall);
  (void)pages->allocate(Pages(600), kLarge);
  (void)pages->allocate(Pages(5), kSmall);
  (void)pages->gather(Pages(1100), kLarge);
  std::array<Holder, 4> holders;
  REQUIRE(pages->holders(holders) == 2);
  CHECK(holders[0].owner == kLarge);
  CHECK(holders[0].pages == Pages(1700));
  CHECK(holders[1].pages == Pages(15));
  // More owners than the table holds are summed as others. (One place is kept for slabs.)
  std::array<std::string, 100> tags;
  for (std::size_t i = 0; i < tags.size(); ++i) {
    tags[i] = std::to_string(i);
    (void)pages->allocate(Pages(1), tags[i].c_str());
  }
  REQUIRE(pages->holders(holders) == 4);
  CHECK(holders[1].owner == doctest::String("(others)"));
  CHECK(holders[1].pages == Pages(39));
}

TEST_CASE("creating it and preparing records survive every failing call") {
  FaultOs os;
  ScopedOs scope(os);
  for (std::uint64_t n = 1;; ++n) {
    os.fail_nth(n);
    auto made = PageAllocator::create(Pages(1024));
    const bool prepared = made.ok() && (*made)->prepare({Pfn(0), Pages(1024)}).ok();
    if (made.ok()) {
      (*made)->audit();
    }
    made = Error{};
    CHECK(os.holds_nothing());
    if (!os.fired()) {
      CHECK(prepared);
      break;
    }
  }
  // None, and more than fit one free run.
  for (const Pages capacity : {Pages(0), Pages(std::uint64_t{1} << 31)}) {
    const auto made = PageAllocator::create(capacity);
    REQUIRE(!made.ok());
    CHECK(made.error().code == Errc::kInvalidArgument);
  }
}

// Whichever allocation fails, of the C++ library, of metadata or of address space, in whichever
// call of a journal's life: the call says so, may be repeated, and nothing is lost or leaks. On a
// real file, as the simulated disk allocates itself.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "intent_world.h"
#include "item_home.h"
#include "keel/alloc/pool.h"
#include "keel/base/os.h"
#include "keel/cil/intent_item.h"
#include "keel/cil/object_item.h"
#include "new_refusal.h"
#include "support/gate.h"
#include "support/scratch_directory.h"

using namespace keel;
using namespace keel_test;

namespace {

// The kernel, without memory when the refusal says so, and in no hurry to make anything stable.
class ScarceOs : public Os {
 public:
  std::atomic<std::int64_t> held{0};

  void* metadata_allocate(std::size_t bytes) override {
    void* memory = NewRefusal::refuses() ? nullptr : Os::metadata_allocate(bytes);
    held += memory != nullptr ? 1 : 0;
    return memory;
  }
  void metadata_free(void* memory) override {
    held -= memory != nullptr ? 1 : 0;
    Os::metadata_free(memory);
  }
  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override {
    return NewRefusal::refuses() ? -ENOMEM
                                 : Os::mmap(address, bytes, protection, flags, fd, offset, out);
  }
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int /*flags*/) override {
    return Os::pwritev2(fd, parts, count, offset, 0);
  }
  int fdatasync(int /*fd*/) override { return 0; }
  int fsync(int /*fd*/) override { return 0; }
};

// Calls, and once more if there was no memory.
template <class Call>
auto patiently(Call call) -> decltype(call()) {
  auto result = call();
  if (result.ok()) {
    return result;
  }
  const Errc code = result.error().code;
  CHECK(code == Errc::kNoMemory);
  return call();
}

constexpr std::size_t kObjects = 3;

// What a log holds: of each object the round that wrote it, and which intents are open.
struct Content {
  std::array<std::uint64_t, kObjects> rounds{};
  std::uint64_t open_intent = 0;
  bool operator==(const Content&) const = default;

  void apply(const RecoveredCheckpoint& checkpoint) {
    for (const RecoveredItem& item : checkpoint.items) {
      if (const auto object = RecoveredObject::from(item)) {
        object->bytes.copy_to(&rounds[object->id], sizeof rounds[0]);
      } else if (const auto intent = RecoveredIntent::from(item)) {
        open_intent = intent->id;
      } else if (const auto done = RecoveredDone::from(item)) {
        open_intent = done->id == open_intent ? 0 : open_intent;
      }
    }
  }
};

class Lives {
 public:
  Lives() {
    REQUIRE(create_log(path, {.size = kMinLogBytes, .buffered = true}).ok());
    auto made = Pool::create({.capacity_bytes = 64U << 20});
    REQUIRE(made.ok());
    pool = std::move(*made);
  }

  // True if something was refused.
  bool run(std::int64_t nth, bool for_good) {
    ++round_;
    const std::int64_t held = scarce.held;
    std::uint64_t refused = 0;
    {
      // Before anything is refused, as these are the test's own.
      for (std::size_t i = 0; i < kObjects; ++i) {
        bytes_[i].assign(i == 2 ? 9'000 : 100, 'x');
        std::memcpy(bytes_[i].data(), &round_, sizeof round_);
        items_[i].emplace(i);
        items_[i]->set(bytes_[i].data(), bytes_[i].size());
      }
      intent_.emplace(round_, "");
      const NewRefusal refusal(nth, for_good);
      live(for_good);
      refused = NewRefusal::refused();
    }
    CHECK(scarce.held == held);
    Content found;
    const auto report = scan_log(path,
                                 [&](const RecoveredCheckpoint& checkpoint) {
                                   found.apply(checkpoint);
                                   return Status{};
                                 },
                                 {.buffered = true});
    REQUIRE(report.ok());
    CHECK(report->end == LogEnd::kClean);
    CHECK(found == content_);
    return refused != 0;
  }

  ScarceOs scarce;
  const ScopedOs scope{scarce};
  ScratchDirectory directory;
  const std::string path = directory / "log";
  std::unique_ptr<Pool> pool;

 private:
  void live(bool for_good) {
    Content found;
    const JournalConfig config{.pool = pool.get(), .buffered = true};
    const RecoveryHandler handler = [&found](const RecoveredCheckpoint& checkpoint) {
      found.apply(checkpoint);
      return Status{};
    };
    auto opened = patiently([&] {
      found = {};
      return Journal::open(path, config, handler);
    });
    REQUIRE((opened.ok() || for_good));
    if (!opened.ok()) {
      return;
    }
    Journal& journal = **opened;
    CHECK(found == content_);
    write_objects(journal, for_good);
    follow(journal, for_good);
    finish_recovered(journal);
    begin_something(journal, for_good);
    call_back(journal, for_good);
    journal.audit();
    CHECK(journal.stats().log_reserved == Bytes(0));
    CHECK(journal.close().ok());
  }

  // A transaction of many items needs memory for them, one of a few does not.
  void write_objects(Journal& journal, bool for_good) {
    bool many = true;
    auto transaction = patiently([&] {
      auto begun = journal.begin(20'000, many ? 100 : kObjects);
      many = many && (begun.ok() || !for_good);
      return begun;
    });
    REQUIRE(transaction.ok());
    for (auto& item : items_) {
      REQUIRE(transaction->log(*item).ok());
    }
    const auto sequence = transaction->commit();  // its memory is the pool's
    REQUIRE(sequence.ok());
    REQUIRE(journal.force(*sequence).ok());
    content_.rounds.fill(round_);
    journal.release_recovered();
  }

  void follow(Journal& journal, bool for_good) {
    // From the newest that is stable: it reads what stands before that.
    const Sequence from = journal.stats().stable;
    const auto follower = patiently([&] { return journal.follow({.from = from}); });
    REQUIRE((follower.ok() || for_good));
    for (bool more = follower.ok(); more;) {
      auto checkpoint = (*follower)->next(0);
      if (!checkpoint.ok() && checkpoint.error().code == Errc::kNoMemory) {
        checkpoint = (*follower)->next(0);
      }
      more = checkpoint.ok();
      const Errc code = more ? Errc::kTimeout : checkpoint.error().code;
      CHECK((code == Errc::kTimeout || (for_good && code == Errc::kNoMemory)));
    }
    // All that is stable was handed over.
    if (follower.ok() && !for_good) {
      CHECK((*follower)->position() == next(journal.stats().stable));
    }
  }

  void finish_recovered(Journal& journal) {
    for (IntentItem* intent : journal.recovered_intents()) {
      DoneItem done(*intent);
      auto transaction = journal.begin_done(*intent);
      REQUIRE(transaction.ok());
      REQUIRE(transaction->log(done).ok());
      const auto sequence = transaction->commit();
      REQUIRE(sequence.ok());
      REQUIRE(journal.force(*sequence).ok());
      content_.open_intent = 0;
    }
  }

  // What the next life will find.
  void begin_something(Journal& journal, bool for_good) {
    auto transaction = patiently([&] { return journal.begin(IntentItem::log_bytes(0), 1, 1); });
    REQUIRE((transaction.ok() || for_good));
    if (transaction.ok()) {
      REQUIRE(transaction->log(*intent_).ok());
      REQUIRE(transaction->commit().ok());
      content_.open_intent = round_;
    }
  }

  void call_back(Journal& journal, bool for_good) {
    std::atomic<int> called{0};
    const auto status = patiently([&] {
      return journal.on_stable(journal.stats().current, [&called](const Status&) { ++called; });
    });
    REQUIRE((status.ok() || for_good));
    REQUIRE(journal.force_all().ok());
    yield_until([&] { return called != 0 || !status.ok(); });
  }

  std::uint64_t round_ = 0;
  Content content_;
  std::array<std::string, kObjects> bytes_;
  std::array<std::optional<ObjectItem>, kObjects> items_;
  std::optional<Intent> intent_;
};

}  // namespace

TEST_CASE("whichever allocation fails in a journal's life, the call says so and can be repeated") {
  Lives lives;
  std::int64_t nth = 0;
  for (bool refused = true; refused; ++nth) {
    CAPTURE(nth);
    refused = lives.run(nth, false);
    REQUIRE(nth < 1000);
  }
  MESSAGE("allocations refused: " << nth - 1);
}

TEST_CASE(
    "from whichever allocation on there is no memory, what is committed is forced and closed") {
  Lives lives;
  std::int64_t nth = 0;
  for (bool refused = true; refused; ++nth) {
    CAPTURE(nth);
    refused = lives.run(nth, true);
    // Without memory items may count for an older checkpoint than theirs; now the tail moves on.
    (void)lives.run(INT64_MAX, false);
    REQUIRE(nth < 1000);
  }
  MESSAGE("allocations refused: " << nth - 1);
}

TEST_CASE("whichever allocation fails while a log is made or looked at, nothing is half made") {
  ScarceOs scarce;
  const ScopedOs scope(scarce);
  const ScratchDirectory directory;
  const std::string path = directory / "log";
  const LogConfig config{.size = kMinLogBytes, .buffered = true};
  REQUIRE(create_log(path, config).ok());  // the pool has what it wants for itself
  REQUIRE(::unlink(path.c_str()) == 0);
  for (const bool for_good : {false, true}) {
    std::int64_t nth = 0;
    for (bool refused = true; refused; ++nth) {
      CAPTURE(nth);
      REQUIRE(nth < 1000);
      const std::int64_t held = scarce.held;
      // Each is told what fails alone.
      const auto attempt = [&](auto call) {
        const NewRefusal refusal(nth, for_good);
        const auto result = call();
        const bool some = NewRefusal::refused() != 0;
        CHECK((result.ok() || result.error().code == Errc::kNoMemory));
        CHECK((result.ok() || some));
        refused = refused || some;
        return result.ok();
      };
      refused = false;
      const bool made = attempt([&] { return create_log(path, config); });
      CHECK((::access(path.c_str(), F_OK) == 0) == made);
      if (!made) {
        REQUIRE(create_log(path, config).ok());
      }
      attempt([&] { return read_log_info(path, true); });
      attempt([&] { return scan_log(path, kIgnore, {.buffered = true}); });
      CHECK(scarce.held == held);
      REQUIRE(::unlink(path.c_str()) == 0);
    }
    MESSAGE("allocations refused: " << nth - 1);
  }
}

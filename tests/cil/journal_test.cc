#include "keel/cil/journal.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "keel/base/os.h"
#include "keel/cil/object_item.h"
#include "support/scratch_directory.h"
#include "support/sim_disk.h"

using namespace keel;

namespace {

using Objects = std::map<std::uint64_t, std::string>;

RecoveryHandler collect(Objects& objects) {
  return [&objects](const RecoveredCheckpoint& checkpoint) -> Status {
    for (const RecoveredItem& item : checkpoint.items) {
      const auto object = RecoveredObject::from(item);
      if (!object) {
        continue;
      }
      if (object->erased) {
        objects.erase(object->id);
      } else {
        std::string bytes(object->bytes.size_bytes(), '\0');
        object->bytes.copy_to(bytes.data(), bytes.size());
        objects[object->id] = bytes;
      }
    }
    return {};
  };
}

const RecoveryHandler kIgnore = [](const RecoveredCheckpoint&) { return Status{}; };

constexpr const char* kPath = "/sim/log";

struct World {
  SimDisk disk;
  ScopedOs scope{disk};
  World() { REQUIRE(create_log(kPath, {.size = Bytes(4U << 20)}).ok()); }
  std::unique_ptr<Journal> open(Objects& objects) {
    auto journal = Journal::open(kPath, {}, collect(objects));
    if (!journal) {
      FAIL(journal.error().message());
    }
    return std::move(*journal);
  }
};

Sequence commit_one(Journal& journal, ObjectItem& item, const std::string& bytes) {
  auto transaction = journal.begin(ObjectItem::log_bytes(bytes.size()), 1);
  REQUIRE(transaction.ok());
  item.set(bytes.data(), bytes.size());
  REQUIRE(transaction->log(item).ok());
  auto sequence = transaction->commit();
  REQUIRE(sequence.ok());
  return *sequence;
}

}  // namespace

TEST_CASE("what was forced is there after a reopen, byte for byte") {
  World world;
  Objects found;
  const std::string small = "small", large(20000, 'x'), block(4096, 'b');
  {
    ObjectItem a(1), b(2), c(3);
    auto journal = world.open(found);
    CHECK(journal->recovery().end == LogEnd::kClean);
    commit_one(*journal, a, small);
    commit_one(*journal, b, large);
    const Sequence sequence = commit_one(*journal, c, block);
    CHECK(journal->force(sequence).ok());
    CHECK(journal->stable_sequence() == sequence);
    CHECK(journal->close().ok());
  }
  CHECK(found.empty());
  auto journal = world.open(found);
  CHECK(found == Objects{{1, small}, {2, large}, {3, block}});
  CHECK(journal->recovery().end == LogEnd::kClean);
}

TEST_CASE("opening a journal asks for nothing that takes as long as the process is large") {
  class Watch : public Os {
   public:
    int open(const char* path, int flags, mode_t mode) override {
      asked_for_maps = asked_for_maps || std::strstr(path, "maps") != nullptr;
      return Os::open(path, flags, mode);
    }
    bool asked_for_maps = false;
  };
  const keel_test::ScratchDirectory scratch;
  const std::string log = scratch / "log";
  REQUIRE(create_log(log, {.buffered = true}).ok());
  Watch watch;
  const ScopedOs scope(watch);
  auto journal = Journal::open(log, {.buffered = true}, {});
  REQUIRE(journal.ok());
  CHECK_FALSE(watch.asked_for_maps);
}

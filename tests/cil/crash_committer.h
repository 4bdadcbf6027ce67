// Committer: one thread of a life in the crash lab. It commits random transactions over objects of
// its own, forces now and then, writes objects home and releases them, and says all of it to the
// life's record.
//
// I1 Committers share the journal, not the objects; these outlive the journal.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "crash_record.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"

namespace keel_test::crash_lab {

class Committer {
 public:
  // The `number`-th of plan.threads.
  Committer(const CrashPlan& plan, LifeRecord& record, std::uint32_t number);

  void commit_many(keel::Journal& journal, std::uint32_t transactions);

 private:
  struct Object {
    explicit Object(std::uint64_t id) : item(id) {}
    void set(Version version_now);

    keel::ObjectItem item;
    std::string bytes;
    Version version = 0;
    bool released = false;  // since it was last committed
  };
  // Of a transaction; nullptr: it has fewer.
  using Chosen = std::array<Object*, 4>;

  // Gives the sequence; 0: it could not be committed.
  std::uint64_t commit_one(keel::Journal& journal);
  // Returns the bytes that they take in the log.
  std::size_t choose(Chosen& chosen);
  // What was to be committed and was not.
  void take_back(const Chosen& chosen);
  // Makes room itself when the log is full.
  std::optional<keel::Transaction> begin(keel::Journal& journal, std::size_t bytes);
  void wait_otherwise(keel::Journal& journal, std::uint64_t sequence);
  void force(keel::Journal& journal, std::uint64_t sequence);
  bool force_all(keel::Journal& journal);
  // An object goes home only when its newest version is stable, and is home before the log lets go.
  void go_home(keel::Journal& journal, Object& object, Version version);
  void release_some(keel::Journal& journal, int count);
  void release_recovered(keel::Journal& journal);

  const CrashPlan& plan_;
  LifeRecord& record_;
  std::uint64_t random_;
  std::uint64_t newest_ = 0;  // sequence that it has committed
  std::vector<std::unique_ptr<Object>> mine_;
};

}  // namespace keel_test::crash_lab

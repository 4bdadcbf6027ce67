// One thread of the ingesting process: ingests files, edits what is ingested, forces now and then.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "demo/ingest_state.h"
#include "demo/random.h"

namespace keel::tools {

class Worker {
 public:
  Worker(IngestState& state, std::uint32_t number);

  // Works until the life's share of the log is used up, or a worker failed.
  void run();

 private:
  // A transaction being put together.
  struct Draft {
    bool ingest = false;                             // else edits
    std::vector<std::uint32_t> objects;              // ascending
    std::vector<std::vector<std::byte>> file_parts;  // to ingest
    std::size_t most_bytes = 0;
  };

  void step();
  [[nodiscard]] bool full() const;
  [[nodiscard]] Draft draft_ingest();
  [[nodiscard]] Draft draft_edits();
  [[nodiscard]] bool add(Draft& draft, std::uint32_t object) const;
  void commit(Draft& draft);
  void ingest(LiveObject& object, std::vector<std::byte> file_part) const;
  void edit(LiveObject& object, std::uint32_t number) const;
  void note(Sequence sequence);

  IngestState& state_;
  const std::uint32_t number_;
  WorkerNotes& notes_;
  Random random_;
  std::uint64_t until_force_ = 0;
  // Transaction records: they stay, since their items do until the end of the process.
  struct Record {
    explicit Record(const TransactionRecord& record)
        : item(record_id(record.name)), bytes(encode(record)) {
      item.set(bytes);
    }
    ObjectItem item;
    std::vector<std::byte> bytes;
  };
  std::deque<Record> records_;
};

}  // namespace keel::tools

// What the workers of the ingesting process share.
//
// Locks: an object's mutex, taken after Journal::begin(); a worker that takes several takes them in
// the order of their numbers. Above all of keel's own locks, so it has no rank.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "demo/ingest.h"
#include "demo/message.h"
#include "demo/notebook.h"
#include "demo/plan.h"
#include "demo/recovered.h"
#include "keel/cil/journal.h"
#include "keel/cil/object_item.h"
#include "output.h"

namespace keel::tools {

struct LiveObject {
  explicit LiveObject(std::uint32_t object) : item(object_id(object)) {}

  std::mutex mutex;
  // Guarded by the mutex.
  ObjectItem item;
  std::vector<std::byte> bytes;  // as logged: content, trailer
  std::uint32_t version = 0;     // 0: not yet ingested
};

class IngestState {
 public:
  // Opens the log, takes over what is in it, tells the parent. Throws Failure.
  explicit IngestState(const IngestOptions& options);

  const IngestOptions options;
  const Plan plan;
  const Notebook notebook;
  std::unique_ptr<Journal> journal;
  std::vector<std::unique_ptr<LiveObject>> objects;
  std::atomic<bool> stopping{false};

  [[nodiscard]] Notes& notes() const { return notebook.notes(); }

  // Gives the caller objects to ingest, ascending, while `fits` agrees to each; none: all are
  // taken.
  void claim(const std::function<bool(std::uint32_t)>& fits);

  void send(Message message) const;
  // Tells the parent, once, and stops the workers.
  void fail(const Failure& failure);
  // Waits for all that is committed now, by any worker, and acknowledges it.
  [[nodiscard]] Status force_and_acknowledge();

 private:
  void open();
  void take_over(Recovered& recovered);

  std::mutex claim_mutex_;
  std::deque<std::uint32_t> to_ingest_;  // guarded by it
  std::atomic<bool> failed_{false};
};

// Ends the process if the parent is gone.
void send_message(int fd, const Message& message);
[[nodiscard]] Message failure_message(const Failure& failure);

}  // namespace keel::tools

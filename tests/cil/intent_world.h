// What tests of intents share: an intent that counts its releases, and transactions of one item.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "item_home.h"
#include "keel/cil/intent_item.h"
#include "keel/cil/journal.h"

namespace keel_test {

inline const std::string kPayload = "do it";

// What an intent only points to.
struct Payload {
  const std::string payload_text;
};

class Intent : private Payload, public keel::IntentItem {
 public:
  explicit Intent(std::uint64_t id, const std::string& payload = kPayload)
      : Payload{payload}, keel::IntentItem(id, bytes_of(payload_text)) {}
  int released = 0;
  keel::DoneItem done{*this};

 protected:
  void release(bool aborted) override { released += aborted ? 100 : 1; }
};

inline keel::Sequence commit_intent(keel::Journal& journal, keel::LogItem& intent) {
  auto transaction = journal.begin(keel::IntentItem::log_bytes(100), 1, 1);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(intent).ok());
  const auto sequence = transaction->commit();
  REQUIRE(sequence.ok());
  journal.audit();
  return *sequence;
}

inline keel::Sequence commit_done(keel::Journal& journal, keel::IntentItem& intent,
                                  keel::DoneItem& done) {
  auto transaction = journal.begin_done(intent);
  REQUIRE(transaction.ok());
  REQUIRE(transaction->log(done).ok());
  const auto sequence = transaction->commit();
  REQUIRE(sequence.ok());
  journal.audit();
  return *sequence;
}

// In order.
[[nodiscard]] inline std::vector<std::uint64_t> open_intents(const keel::Journal& journal) {
  std::vector<std::uint64_t> ids;
  for (const keel::IntentItem* intent : journal.recovered_intents()) {
    ids.push_back(intent->id());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace keel_test

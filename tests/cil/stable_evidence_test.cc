// What the records of a log prove of what was stable, and how much of it is kept.
#include "log/stable_evidence.h"

#include <doctest/doctest.h>

using namespace keel;

namespace {

constexpr std::uint64_t kBlock = 4096;

// The checkpoint of that sequence in a log of checkpoints of one block.
format::CheckpointId id_of(std::uint64_t sequence) {
  return {1, sequence, (sequence - 1) * kBlock, kBlock};
}

}  // namespace

TEST_CASE(
    "what is told of beyond what is stable is in flight, once each, until it is vouched for") {
  StableEvidence evidence({});
  for (int i = 0; i < 2; ++i) {
    evidence.note(id_of(1));
    evidence.note(id_of(2));
    CHECK(evidence.in_flight() == 2);
  }
  evidence.vouch(Lsn(kBlock));
  CHECK(evidence.in_flight() == 1);
  CHECK(evidence.stable_sequence() == Sequence(1));
  CHECK(evidence.newest() == Sequence(2));
  evidence.note(id_of(1));
  CHECK(evidence.in_flight() == 1);
  evidence.vouch(Lsn(2 * kBlock));
  CHECK(evidence.in_flight() == 0);
  CHECK(evidence.stable_sequence() == Sequence(2));
}

TEST_CASE("however many a hostile log tells of, so many are counted and the rest is left") {
  StableEvidence evidence({});
  for (std::uint64_t sequence = 1; sequence <= 1000; ++sequence) {
    evidence.note(id_of(sequence));
  }
  CHECK(evidence.in_flight() == 64);
  CHECK(evidence.newest() == Sequence(1000));
  CHECK(evidence.stable() == Lsn(0));
  evidence.vouch(Lsn(64 * kBlock));
  CHECK(evidence.in_flight() == 0);
  CHECK(evidence.stable_sequence() == Sequence(64));
}

TEST_CASE("an id that no log could have is not listened to") {
  StableEvidence evidence({});
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;
  evidence.note(format::CheckpointId{1, 0, 0, kBlock});
  evidence.note(format::CheckpointId{1, kHuge, 0, kBlock});
  evidence.note(format::CheckpointId{1, 1, kHuge, kBlock});
  evidence.note(format::CheckpointId{1, 1, 0, kHuge});
  CHECK(evidence.in_flight() == 0);
  CHECK(evidence.newest() == Sequence(0));
}

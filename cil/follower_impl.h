// Follower::Impl: a place in the list of followers, and a reader that stands there.
#pragma once

#include <memory>
#include <utility>

#include "followers.h"
#include "journal_impl.h"
#include "keel/cil/follower.h"
#include "log/chain_reader.h"

namespace keel {

struct Follower::Impl : MetadataObject {
  Impl(Journal::Impl& of, ChainReader reader) : journal(of), chain(std::move(reader)) {}

  [[nodiscard]] static Result<std::unique_ptr<Impl>> make(Journal::Impl& journal,
                                                          const FollowConfig& config);

  // Until the checkpoint at the chain's position is stable.
  [[nodiscard]] Status wait_for_next(std::uint64_t timeout_ns, std::uint64_t deadline_ns);
  // Reads it and moves on; what it says of an error is what next() says.
  [[nodiscard]] Status read_next();
  [[nodiscard]] Status renew();
  // Passes by what is stable and before `from`.
  [[nodiscard]] Status skip_to_start();

  Journal::Impl& journal;
  ChainReader chain;
  Sequence from{};
  bool failed = false;  // the last read
  Followers::Place place;
};

}  // namespace keel

// When a writer that is under way is stopped: soon after it has opened its log, when it has begun
// so many transactions, or while it closes. Some writers are given few transactions, so that they
// come to their end; a few are let come to it, since who has closed has promised all.
#pragma once

#include <cstdint>

#include "environment.h"
#include "ledger.h"
#include "writer_plan.h"

namespace keel_test {

class Interruption {
 public:
  // Of four seeds in a row two are opened, one begun, and one closing, or ended, one in 16. Gives
  // the plan fewer transactions but where it is opened.
  [[nodiscard]] static Interruption draw(std::uint64_t seed, std::uint64_t& random,
                                         WriterPlan& plan);

  // Returns when it is to be stopped, or has ended by itself.
  void wait(const Ledger& ledger, Child& writer) const;

 private:
  enum class When : std::uint8_t { kOpened, kBegun, kClosing, kEnded };

  When when_ = When::kOpened;
  std::uint64_t begun_ = 0;
  std::uint64_t later_usec_ = 0;
};

// Whether its close() had been called and had not returned.
[[nodiscard]] bool was_closing(const Ledger& ledger);

}  // namespace keel_test

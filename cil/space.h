// How large the resources of a journal are, and what a transaction takes of them at most.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cil.h"
#include "keel/cil/journal.h"
#include "log/format.h"
#include "log_space.h"

namespace keel {

// The most that a transaction of this payload can take, whatever its regions' sizes.
[[nodiscard]] Reservation worst_case(std::size_t max_bytes, std::uint32_t max_items,
                                     std::uint32_t block_bytes);

// The bound of memory for snapshots.
[[nodiscard]] std::uint64_t choose_memory(const JournalConfig& config,
                                          const format::Superblock& superblock, const Pool& pool);
// The least that is set aside for logging again.
[[nodiscard]] std::uint64_t choose_set_aside(const format::Superblock& superblock);
// Items that are logged again at a time, while no commit can go on.
constexpr std::size_t kMostAgainItems = 4096;
// What it takes to log the items without a home of a bucket of the AIL again: in parts, each a
// checkpoint with a unit of its own, of at most so many items and max_checkpoint bytes.
[[nodiscard]] std::uint64_t need_again(const Homeless& homeless, std::uint32_t block_bytes,
                                       std::uint64_t max_checkpoint_bytes);
// The least of that, if no part ends for want of room in a checkpoint. While parts are logged out
// of what was needed at first, no less is left than this for the rest; the need itself of the rest
// might be more than is left, for it counts on the worst division.
[[nodiscard]] std::uint64_t least_again(const Homeless& homeless, std::uint32_t block_bytes);
// What is needed beyond the sum of both for a checkpoint that shares the bucket of another.
[[nodiscard]] std::uint64_t need_to_join(std::uint32_t block_bytes);
// What one part of the CIL keeps at most, twice.
[[nodiscard]] Reservation choose_credit(const format::Superblock& superblock,
                                        std::uint64_t memory_bytes);

}  // namespace keel

// Log images for the fuzzers: real logs, changed by a program that the input is, with the hashes
// repaired where the program says so: else no change would get past the first hash.
//
// I1 The same input makes the same image, whatever ran before it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fuzz_input.h"
#include "keel/cil/recovery.h"
#include "log/format.h"
#include "support/sim_disk.h"

namespace keel_fuzz {

inline constexpr const char* kImagePath = "/sim/log";
inline constexpr std::uint32_t kBlock = 4096;

// The one disk, in force from its first use to the end of the process: threads of pools and
// journals look at the Os whenever they like.
keel::SimDisk& fuzz_disk();

// Logs as a close, a kill, a wrap and a torn write leave them, with records of all sorts.
const std::vector<keel::SimContent>& seed_images();

// Runs the program. The image may be of any length, 0 included; it is good until the next call.
const keel::SimContent& build_image(FuzzInput& input);

// Puts an image on the disk; forgets the I/O so far and all faults.
void install(const keel::SimContent& image);
// No write, resize or change of a name since install().
bool was_only_read();

// Changes one field of 8 bytes, or one of 4, of the struct of `bytes` at `place`, to a value that
// is odd, or near what is there.
void change_field(FuzzInput& input, std::byte* place, std::size_t bytes);

// What every checkpoint that is handed over must be; reads all of it. Gives the sum of its bytes.
std::uint64_t check_checkpoint(const keel::RecoveredCheckpoint& checkpoint);

// Right hash for a record at `record` (all of it there), for a chain of records.
void repair_record(std::byte* record, std::size_t room);
// Every record whose header stands in the image and fits; checkpoint hashes too.
void repair_records(keel::SimContent& image);
void repair_states(keel::SimContent& image);
void repair_superblocks(keel::SimContent& image);

}  // namespace keel_fuzz

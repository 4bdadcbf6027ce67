// The helper as the first process of a virtual machine (guest_machine.h): mounts the disk, writes.
#pragma once

#include <string>
#include <vector>

namespace keel_test {

// What the guest says when the disk is mounted; all that it says goes to its console.
inline constexpr const char* kGuestMounted = "guest: mounted";

// True in that process.
[[nodiscard]] bool is_guest();
// `words`: the disk's file system, and the writer's. Never ends: the machine is killed.
[[noreturn]] void run_guest(const std::vector<std::string>& words);

}  // namespace keel_test

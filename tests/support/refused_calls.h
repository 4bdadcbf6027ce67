// Makes the kernel refuse a system call from now on, in this process: for children of a test.
//
// For calls that libraries make past Os. It cannot be taken back, and needs no privileges.
#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace keel_test {

// Which calls: those whose argument has all the bits. The call then gives -error, or 0 if that is 0
// (and does nothing).
struct RefusedCall {
  long number;
  int error;
  unsigned argument = 0;
  std::uint32_t bits = 0;
};

// False if this kernel has no such filters.
[[nodiscard]] inline bool refuse_calls(const RefusedCall& call) {
  const auto word = [](unsigned code, std::size_t value) {
    return sock_filter{static_cast<std::uint16_t>(code), 0, 0, static_cast<std::uint32_t>(value)};
  };
  const auto unless_equal_skip = [&](std::uint32_t value, std::uint8_t skipped) {
    sock_filter jump = word(BPF_JMP | BPF_JEQ | BPF_K, value);
    jump.jf = skipped;
    return jump;
  };
  // The lower half of an argument stands first on the little-endian machines that keel is for.
  std::array<sock_filter, 7> filter{
      word(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      unless_equal_skip(static_cast<std::uint32_t>(call.number), 4),
      word(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args) + 8 * call.argument),
      word(BPF_ALU | BPF_AND | BPF_K, call.bits),
      unless_equal_skip(call.bits, 1),
      word(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(call.error)),
      word(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const struct sock_fprog program { filter.size(), filter.data() };
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace keel_test

// The two restartable sequences of CpuStacks, for x86-64 under glibc.
//
// Each loads the CPU's number, checks that its stacks are not stopped, and ends with one store of
// the count. If the thread is preempted, moved or signalled in between, the kernel makes it go on
// at the abort handler, which begins anew: so between that load and that store no other thread ran
// on the CPU, and nobody whom membarrier() was to hold off is still inside.
#pragma once

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KEEL_UNDER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define KEEL_UNDER_TSAN 1
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(KEEL_UNDER_TSAN) && \
    __has_include(<sys/rseq.h>)
#define KEEL_CPU_STACKS_RSEQ 1
#else
#define KEEL_CPU_STACKS_RSEQ 0
#endif

#if KEEL_CPU_STACKS_RSEQ
#include <sys/rseq.h>

#include <cstddef>
#include <cstdint>

namespace keel::rseq_stack {

// Where things stand in a CPU's slab; CpuStacks asserts them.
inline constexpr std::size_t kSlabShift = 14;
inline constexpr std::size_t kStopped = 0;
inline constexpr std::size_t kHeads = 8;  // count and limit, 16 bits each
inline constexpr std::size_t kItems = 384;
inline constexpr std::size_t kStride = 128;  // of a class's items
inline constexpr std::size_t kPops = 8704;   // 64 bits a stack
inline constexpr std::size_t kPushes = 9224;

inline char* area() { return static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset; }

// clang-format off
#define KEEL_RSEQ_BEGIN                                      \
  ".pushsection __rseq_cs, \"aw?\"\n\t"                       \
  ".balign 32\n\t"                                           \
  "3: .long 0, 0\n\t"                                        \
  ".quad 1f, 2f - 1f, 4f\n\t"                                \
  ".popsection\n\t"                                          \
  "5: leaq 3b(%%rip), %%rax\n\t"                             \
  "movq %%rax, 8(%[area])\n\t"         /* rseq_cs */         \
  "1: movl 4(%[area]), %%eax\n\t"      /* cpu_id */          \
  "cmpl %[cpus], %%eax\n\t"                                  \
  "jae 7f\n\t"                                               \
  "shlq $14, %%rax\n\t"                                      \
  "addq %[base], %%rax\n\t"                                  \
  "cmpl $0, (%%rax)\n\t"               /* stopped */         \
  "jne 7f\n\t"

// The signature before the abort handler is the one that glibc registered.
#define KEEL_RSEQ_END                                        \
  ".pushsection __rseq_failure, \"ax?\"\n\t"                  \
  ".byte 0x0f, 0xb9, 0x3d\n\t"                               \
  ".long 0x53053053\n\t"                                     \
  "4: jmp 5b\n\t"                                            \
  ".popsection\n\t"

inline std::uint32_t pop(std::byte* base, std::uint32_t cpus, std::uint64_t size_class) {
  std::uint32_t item;
  asm volatile(
      KEEL_RSEQ_BEGIN
      "movzwl 8(%%rax,%[cls],4), %%ecx\n\t"        // count
      "subl $1, %%ecx\n\t"
      "jc 7f\n\t"
      "leaq (%%rax,%[items]), %%rdx\n\t"
      "movl (%%rdx,%%rcx,4), %[item]\n\t"
      "addq $1, 8704(%%rax,%[cls],8)\n\t"          // a restart counts twice: statistics only
      "movw %%cx, 8(%%rax,%[cls],4)\n\t"           // the commit
      "2: jmp 8f\n\t"
      "7: movl $-1, %[item]\n\t"
      "8:\n\t"
      KEEL_RSEQ_END
      : [item] "=&r"(item)
      : [area] "r"(area()), [base] "r"(base), [cpus] "r"(cpus), [cls] "r"(size_class),
        [items] "r"(kItems + size_class * kStride)
      : "rax", "rcx", "rdx", "memory", "cc");
  return item;
}

inline bool push(std::byte* base, std::uint32_t cpus, std::uint64_t size_class,
                 std::uint32_t item) {
  std::uint32_t done;
  asm volatile(
      KEEL_RSEQ_BEGIN
      "movzwl 8(%%rax,%[cls],4), %%ecx\n\t"        // count
      "cmpw 10(%%rax,%[cls],4), %%cx\n\t"          // limit
      "jae 7f\n\t"
      "leaq (%%rax,%[items]), %%rdx\n\t"
      "movl %[item], (%%rdx,%%rcx,4)\n\t"
      "addq $1, 9224(%%rax,%[cls],8)\n\t"
      "addl $1, %%ecx\n\t"
      "movw %%cx, 8(%%rax,%[cls],4)\n\t"           // the commit
      "2: movl $1, %[done]\n\t"
      "jmp 8f\n\t"
      "7: xorl %[done], %[done]\n\t"
      "8:\n\t"
      KEEL_RSEQ_END
      : [done] "=&r"(done)
      : [area] "r"(area()), [base] "r"(base), [cpus] "r"(cpus), [cls] "r"(size_class),
        [items] "r"(kItems + size_class * kStride), [item] "r"(item)
      : "rax", "rcx", "rdx", "memory", "cc");
  return done != 0;
}
// clang-format on

#undef KEEL_RSEQ_BEGIN
#undef KEEL_RSEQ_END

}  // namespace keel::rseq_stack
#endif

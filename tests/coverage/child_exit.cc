// In a build that counts coverage: a process that ends by _exit() or abort() keeps its counts too,
// as forked children and what is reported as a bug do. Stands in the place of the C library's.
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

extern "C" int __llvm_profile_write_file();

extern "C" void _exit(int status) {
  (void)__llvm_profile_write_file();
  for (;;) {
    (void)::syscall(SYS_exit_group, status);
  }
}

extern "C" void abort() noexcept {
  (void)__llvm_profile_write_file();
  (void)::raise(SIGABRT);
  (void)std::signal(SIGABRT, SIG_DFL);
  (void)::raise(SIGABRT);
  for (;;) {
    (void)::syscall(SYS_exit_group, 127);
  }
}

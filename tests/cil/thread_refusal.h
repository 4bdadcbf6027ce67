// ThreadRefusal: while it lives, threads cannot be started after the first few, as when a process
// has reached its limit.
#pragma once

namespace keel_test {

class ThreadRefusal {
 public:
  // So many threads still start.
  explicit ThreadRefusal(int allowed);
  ~ThreadRefusal();
  ThreadRefusal(const ThreadRefusal&) = delete;
  ThreadRefusal& operator=(const ThreadRefusal&) = delete;

  [[nodiscard]] int refused() const;
  // False where the sanitizer's own pthread_create cannot be stood in for.
  [[nodiscard]] static bool works();
};

}  // namespace keel_test

// A directory for a benchmark's files, on a real file system, removed when the benchmark ends.
//
// I1 The directory goes with the object, at a normal exit and at SIGINT, SIGTERM or SIGHUP; at a
//    signal with the child that writes into it.
// I2 Without a wish for a place, none that lives in memory is taken: a log there would measure
//    memory.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "keel/base/result.h"

namespace keel::bench {

class TempDir {
 public:
  // Makes a directory in `base`; if that is empty, in the first of $TMPDIR, /var/tmp, the current
  // directory and /tmp that can be written, is no memory file system and has direct I/O.
  // Threads: call it before the process starts threads (it blocks signals in the caller and so in
  // all threads after it); once a process. Errors: kNotFound if there is no such place.
  [[nodiscard]] static Result<std::unique_ptr<TempDir>> create(const std::string& base);
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

  // As fork(), for a child that makes files there: at a signal it is killed before the directory is
  // removed. child_ended() before its status is taken (waitid() with WNOWAIT tells when).
  [[nodiscard]] static pid_t fork_child();
  static void child_ended();

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}

  const std::string path_;
};

}  // namespace keel::bench

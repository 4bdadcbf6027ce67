// The program that the install test builds outside keel's tree: links the library and runs it.
#include <cstdio>
#include <cstring>

#include "keel/base/mutex.h"
#include "keel/base/os.h"
#include "keel/base/result.h"
#include "keel/base/version.h"

namespace {

keel::Result<int> open_missing() {
  const int fd = keel::os().open("/nonexistent/keel", 0, 0);
  if (fd < 0) {
    return keel::system_error(-fd, "open");
  }
  return fd;
}

}  // namespace

int main() {
  keel::Mutex mutex(keel::LockRank::kLeaf);
  keel::MutexLock lock(mutex);
  const auto opened = open_missing();
  if (opened.ok() || opened.error().code != keel::Errc::kNotFound) {
    return 1;
  }
  std::printf("keel %s: %s\n", keel::kVersion, opened.error().message().c_str());
  return std::strlen(keel::kVersion) >= 5 ? 0 : 1;
}

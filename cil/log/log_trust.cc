#include "log/log_trust.h"

#include "keel/base/os.h"

namespace keel {

Status check_trust(const struct stat& found) {
  if (found.st_uid != 0 && found.st_uid != os().geteuid()) {
    return Error{Errc::kUntrusted, 0, "the log belongs to another user", found.st_uid};
  }
  if ((found.st_mode & S_IWOTH) != 0) {
    return Error{Errc::kUntrusted, 0, "anybody may write to the log (chmod o-w ends that)", 0};
  }
  if ((found.st_mode & S_IWGRP) != 0 && !S_ISBLK(found.st_mode)) {
    return Error{Errc::kUntrusted, 0, "the log's group may write to it (chmod g-w ends that)", 0};
  }
  return {};
}

}  // namespace keel

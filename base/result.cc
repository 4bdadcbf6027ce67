#include "keel/base/result.h"

#include <cerrno>
#include <system_error>

namespace keel {

const char* to_string(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument: return "invalid argument";
    case Errc::kNoMemory: return "out of memory";
    case Errc::kNoAddressSpace: return "no address space";
    case Errc::kNoMappings: return "mapping budget used up";
    case Errc::kIo: return "I/O error";
    case Errc::kNoSpace: return "no space";
    case Errc::kUnsupported: return "not supported";
    case Errc::kNotALog: return "not a keel log";
    case Errc::kBadVersion: return "unknown format version";
    case Errc::kDamaged: return "damaged";
    case Errc::kLogFull: return "log full";
    case Errc::kTooLarge: return "too large";
    case Errc::kReservationExceeded: return "reservation exceeded";
    case Errc::kShutdown: return "journal is shut down";
    case Errc::kBusy: return "in use";
    case Errc::kTimeout: return "timed out";
    case Errc::kFutureSequence: return "sequence lies in the future";
    case Errc::kForked: return "opened by a parent process";
    case Errc::kExists: return "exists already";
    case Errc::kNotFound: return "not found";
    case Errc::kLagged: return "no longer in the log";
    case Errc::kPermission: return "no permission";
    case Errc::kUntrusted: return "not trusted";
    case Errc::kSystem: return "system call failed";
  }
  return "unknown error";
}

std::string Error::message() const {
  std::string text = to_string(code);
  if (what[0] != '\0') {
    text += ": ";
    text += what;
  }
  if (value != 0) {
    text += " (" + std::to_string(value) + ")";
  }
  if (sys_errno != 0) {
    text += ": " + std::generic_category().message(sys_errno);
  }
  return text;
}

namespace {
Errc code_of(int sys_errno) {
  switch (sys_errno) {
    case ENOENT:
    case ENOTDIR: return Errc::kNotFound;
    case EEXIST: return Errc::kExists;
    case EACCES:
    case EPERM:
    case EROFS: return Errc::kPermission;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return Errc::kNoSpace;
    case ENOMEM: return Errc::kNoMemory;
    case EIO:
    // What a disk or its transport says by way of direct I/O; the page cache makes EIO of it.
    case ENODATA:    // a medium error: a sector that cannot be read
    case EILSEQ:     // the sector's integrity data does not fit
    case EREMOTEIO:  // the disk failed the command
    case ENOLINK:    // the way to the disk is lost
    case ETIMEDOUT:
    case EBADE:    // reserved for another machine
    case EBADMSG:  // a file system's own checksums
    case EUCLEAN: return Errc::kIo;
    case EAGAIN:
    case EBUSY: return Errc::kBusy;
    case EOPNOTSUPP: return Errc::kUnsupported;
    default: return Errc::kSystem;
  }
}
}  // namespace

Error system_error(int sys_errno, const char* what, std::uint64_t value) {
  return {code_of(sys_errno), sys_errno, what, value};
}

}  // namespace keel

// Whose file a journal writes to, and who else may.
//
// A log belongs to the user that the journal runs as, or to root, who could change it anyway;
// nobody else may write to it. So root does not open a service's log for writing: what it would
// replay is the service's to choose. Whoever may only read a log is told, and may go on: a reader
// changes nothing, and believes nothing that does not prove itself.
//
// I1 Decided by what fstat() says of an open descriptor, never by a path.
// I2 The group of a block device may write to it: it is the system's own (`disk`, mode 0660), and
//    who is in it is root in all but name.
// I3 No mode or owner of a file that was there is ever changed.
#pragma once

#include <sys/stat.h>

#include "keel/base/result.h"

namespace keel {

// Errors: kUntrusted.
[[nodiscard]] Status check_trust(const struct stat& found);

}  // namespace keel

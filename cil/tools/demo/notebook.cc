#include "demo/notebook.h"

#include <sys/mman.h>

#include <utility>

#include "keel/base/os.h"
#include "output.h"

namespace keel::tools {

Notebook Notebook::create() {
  const int fd = os().memfd_create("keel-demo-notes", 0);
  if (fd < 0) {
    throw Failure("", system_error(-fd, "make the notebook"));
  }
  if (const int error = os().ftruncate(fd, sizeof(Notes)); error < 0) {
    (void)os().close(fd);
    throw Failure("", system_error(-error, "make the notebook"));
  }
  return Notebook(fd);
}

Notebook Notebook::attach(int fd) { return Notebook(fd); }

Notebook::Notebook(int fd) : fd_(fd) {
  void* place = nullptr;
  const int error =
      os().mmap(nullptr, sizeof(Notes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0, &place);
  if (error < 0) {
    (void)os().close(fd);
    throw Failure("", system_error(-error, "map the notebook"));
  }
  notes_ = static_cast<Notes*>(place);
}

Notebook::Notebook(Notebook&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), notes_(std::exchange(other.notes_, nullptr)) {}

Notebook::~Notebook() {
  if (notes_ != nullptr) {
    (void)os().munmap(notes_, sizeof(Notes));
    (void)os().close(fd_);
  }
}

}  // namespace keel::tools

#include "faultfs/daemon.h"

#include <poll.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "faultfs/control.h"
#include "faultfs/directory.h"
#include "faultfs/fault_io.h"
#include "faultfs/fuse.h"
#include "faultfs/moments.h"
#include "faultfs/operations.h"

namespace faultfs {
namespace {

// nullptr, with the error in errno: it could not be mounted.
fuse_session* mount(const char* directory, FileSystem& file_system) {
  const fuse_lowlevel_ops ops = operations();
  char name[] = "faultfs";
  char option[] = "-o";
  char value[] = "fsname=faultfs,default_permissions";
  char* words[] = {name, option, value};
  fuse_args arguments = FUSE_ARGS_INIT(3, words);
  fuse_session* session = fuse_session_new(&arguments, &ops, sizeof ops, &file_system);
  return session != nullptr && fuse_session_mount(session, directory) == 0 ? session : nullptr;
}

// One thread does all: what is told and what the kernel asks never meet.
void serve(fuse_session* session, int socket, Control& control) {
  fuse_buf buffer{};
  bool running = true;
  while (running && fuse_session_exited(session) == 0) {
    pollfd both[2] = {{fuse_session_fd(session), POLLIN, 0}, {socket, POLLIN, 0}};
    if (::poll(both, 2, -1) < 0 && errno != EINTR) {
      break;
    }
    if ((both[1].revents & (POLLIN | POLLHUP)) != 0) {
      running = control.serve();
    }
    if (running && (both[0].revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
      const int got = fuse_session_receive_buf(session, &buffer);
      if (got > 0) {
        fuse_session_process_buf(session, &buffer);
      } else if (got != -EINTR && got != -EAGAIN) {
        running = false;
      }
    }
  }
}

}  // namespace

int run_daemon(const char* directory, int control, const char* log, Client client) {
  Directory files;
  Moments moments;
  FaultIo io(files, moments, log);
  Control commands(control, files, moments, io);
  FileSystem file_system{files, io, client == Client::kProcess};
  fuse_session* session = mount(directory, file_system);
  if (session == nullptr) {
    commands.answer(std::string("error mount: ") + std::strerror(errno));
    return 1;
  }
  commands.answer("ok");
  serve(session, control, commands);
  io.power_off();
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return 0;
}

}  // namespace faultfs

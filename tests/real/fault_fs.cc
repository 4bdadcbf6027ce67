#include "fault_fs.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <sstream>

#include "keel/base/check.h"

namespace keel_test {
namespace {

static_assert(SIGSTOP == 19 && SIGCONT == 18);

std::string receive(int control) {
  std::string text(1U << 16U, '\0');
  ssize_t got = 0;
  do {
    got = ::recv(control, text.data(), text.size(), 0);
  } while (got < 0 && errno == EINTR);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

std::string number(std::uint64_t value) { return " " + std::to_string(value); }

}  // namespace

std::unique_ptr<FaultFs> FaultFs::start(const Scratch& scratch, std::string& why, Client client) {
  const int device = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) {
    why = std::string("no /dev/fuse: ") + std::strerror(errno);
    return nullptr;
  }
  (void)::close(device);
  int ends[2];
  KEEL_CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "a socket pair");
  std::unique_ptr<FaultFs> made(new FaultFs);
  made->directory_ = scratch / "faultfs";
  (void)::mkdir(made->directory_.c_str(), 0700);
  made->control_ = ends[0];
  // It ends when our end of the socket closes, and unmounts then: so it need not die with us.
  made->daemon_ = std::make_unique<Helper>(
      std::vector<std::string>{"faultfs", made->directory_, scratch / "faultfs.log",
                               client == Client::kLoopDevice ? "loop" : "process"},
      ends[1], false);
  (void)::close(ends[1]);
  if (const std::string first = receive(ends[0]); first != "ok") {
    why = "faultfs: " + (first.empty() ? "built without libfuse" : first);
    (void)made->daemon_->wait();
    return nullptr;
  }
  return made;
}

FaultFs::~FaultFs() {
  resume();
  (void)::send(control_, "quit", 4, MSG_NOSIGNAL);
  (void)daemon_->wait();
  (void)::close(control_);
  if (::rmdir(directory_.c_str()) != 0 && errno == EBUSY) {
    (void)::umount2(directory_.c_str(), MNT_DETACH);
    (void)::rmdir(directory_.c_str());
  }
}

std::string FaultFs::tell(const std::string& command) {
  (void)::send(control_, command.data(), command.size(), MSG_NOSIGNAL);
  const std::string answer = receive(control_);
  KEEL_CHECK(answer.rfind("ok", 0) == 0, command.c_str());
  return answer.substr(std::min<std::size_t>(3, answer.size()));
}

void FaultFs::cut(faultfs::Cut cut, std::uint64_t seed) {
  power_off();
  (void)tell(std::string("cut ") + name_of(cut) + number(seed));
  clear();
}

void FaultFs::take_snapshots(const LedgerFile& ledger, std::uint64_t most, std::uint64_t seed) {
  (void)tell("ledger " + ledger.path() + number(sizeof(Promises)));
  (void)tell("snapshots" + number(most) + number(seed));
}

std::uint64_t FaultFs::snapshots() { return std::stoull(tell("moments")); }

PromisesCopy FaultFs::promises(std::uint64_t index) {
  const std::string command = "promises" + number(index);
  (void)::send(control_, command.data(), command.size(), MSG_NOSIGNAL);
  const std::string raw = receive(control_);
  PromisesCopy copy;
  KEEL_CHECK(raw.size() == sizeof copy, "the promises of a snapshot", raw.size());
  std::memcpy(&copy, raw.data(), sizeof copy);
  return copy;
}

void FaultFs::make_image(const std::string& name, std::uint64_t index, faultfs::Cut cut,
                         std::uint64_t seed) {
  (void)tell("image " + name + number(index) + " " + name_of(cut) + number(seed));
}

faultfs::FileMoment FaultFs::moment(std::uint64_t index, const std::string& path) {
  (void)tell("save" + number(index) + " " + path);
  faultfs::FileMoment moment;
  KEEL_CHECK(load(moment, path.c_str()), "load a snapshot");
  return moment;
}

FaultFs::Counts FaultFs::counts() {
  std::istringstream in(tell("stats"));
  Counts counts;
  in >> counts.writes >> counts.reads >> counts.fsyncs >> counts.faults;
  return counts;
}

}  // namespace keel_test

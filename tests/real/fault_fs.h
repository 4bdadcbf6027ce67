// FaultFs: a mounted faultfs (faultfs/daemon.h), for tests; unmounted with it, whatever happens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "environment.h"
#include "faultfs/store.h"
#include "ledger.h"

namespace keel_test {

class FaultFs {
 public:
  // Who is to do I/O on its files: a loop device must not be shown short writes (daemon.h).
  enum class Client : std::uint8_t { kProcess, kLoopDevice };
  // nullptr, and `why`, where it cannot be mounted.
  [[nodiscard]] static std::unique_ptr<FaultFs> start(const Scratch& scratch, std::string& why,
                                                      Client client = Client::kProcess);
  ~FaultFs();
  FaultFs(const FaultFs&) = delete;
  FaultFs& operator=(const FaultFs&) = delete;

  [[nodiscard]] std::string operator/(const std::string& name) const {
    return directory_ + "/" + name;
  }
  // One command, its answer without "ok"; aborts on an "error".
  std::string tell(const std::string& command);

  // "write 3 3 eio 0"
  void rule(const std::string& text) { (void)tell("rule " + text); }
  void clear() { (void)tell("clear"); }
  void power_off() { (void)tell("power off"); }
  // The power goes and comes back; nothing may have the file open that should not see it.
  void cut(faultfs::Cut cut, std::uint64_t seed);
  // Snapshots of the file under test, with what the ledger promised, from here on.
  void take_snapshots(const LedgerFile& ledger, std::uint64_t most, std::uint64_t seed);
  // How many there are; no more are taken.
  [[nodiscard]] std::uint64_t snapshots();
  [[nodiscard]] PromisesCopy promises(std::uint64_t index);
  void make_image(const std::string& name, std::uint64_t index, faultfs::Cut cut,
                  std::uint64_t seed);
  // The snapshot itself, to make images of without faultfs; `path`: of a file to take it through.
  [[nodiscard]] faultfs::FileMoment moment(std::uint64_t index, const std::string& path);
  // Blocks until an operation hangs.
  void wait_until_hung() { (void)tell("hung"); }
  void release() { (void)tell("release"); }
  struct Counts {
    std::uint64_t writes = 0, reads = 0, fsyncs = 0, faults = 0;
  };
  [[nodiscard]] Counts counts();
  // SIGSTOP and SIGCONT of the daemon: nothing may be told it in between.
  void stop() { daemon_->signal(19); }
  void resume() { daemon_->signal(18); }

 private:
  FaultFs() = default;
  std::string directory_;
  int control_ = -1;
  std::unique_ptr<Helper> daemon_;
};

}  // namespace keel_test

// GuestMachine: a virtual machine (QEMU, emulated: no KVM is asked for) with a Debian kernel, a
// disk that is a file of ours and one process, a writer (guest.h). It dies as machines do: without
// a word.
//
// The ledger is the memory of a device of the machine, and is shared with us: what the writer notes
// there outlives the machine, as what it has written to its disk does. So what holds for a writer
// that is a process of ours holds for it too (ledger.h, I1).
#pragma once

#include <memory>
#include <string>

#include "environment.h"
#include "ledger.h"
#include "writer_plan.h"

namespace keel_test {

// What all machines of a run boot. The kernel is fetched once for a build tree.
class GuestImage {
 public:
  // nullptr, and `why`, where there can be none.
  [[nodiscard]] static std::unique_ptr<GuestImage> make(std::string& why);
  [[nodiscard]] std::string kernel() const;
  [[nodiscard]] std::string initramfs() const { return scratch_ / "initramfs"; }
  // Of what the machine that runs says.
  [[nodiscard]] std::string console() const { return scratch_ / "console"; }

 private:
  GuestImage() = default;
  Scratch scratch_;
};

class GuestMachine {
 public:
  // `plan`: its log is /disk/log, the disk a file system of the type in the file at `disk`.
  GuestMachine(const GuestImage& image, const std::string& disk, const std::string& type,
               const LedgerFile& ledger, WriterPlan plan);

  [[nodiscard]] bool runs() { return qemu_.poll() < 0; }
  // SIGKILL; returns when no write of it is under way.
  void kill();
  [[nodiscard]] std::string said() const;

 private:
  std::string console_;
  Child qemu_;
};

}  // namespace keel_test

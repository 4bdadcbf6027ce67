#include "guest_machine.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>

namespace keel_test {
namespace {

constexpr const char* kQemu = "qemu-system-x86_64";
// Where the ledger's device is to be.
constexpr const char* kSlot = "8";
constexpr const char* kLedgerInGuest = "/sys/bus/pci/devices/0000:00:08.0/resource2";

std::string content_of(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Of what the machine before said nothing must be taken for ours.
std::string emptied(const std::string& path) {
  std::ofstream(path, std::ios::trunc).flush();
  return path;
}

// What is written is to reach the file by itself, not through a cache, where the file system of
// the file has such writes. Our kernel would keep what is in its cache, too.
bool has_direct(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  (void)::close(fd);
  return fd >= 0;
}

std::vector<std::string> command_of(const GuestImage& image, const std::string& disk,
                                    const std::string& type, const LedgerFile& ledger,
                                    WriterPlan plan) {
  plan.log = "/disk/log";
  plan.ledger = kLedgerInGuest;
  // no_timer_check: where others want the CPUs, an emulated timer is late, and the kernel would not
  // have it.
  std::string line = "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/init -- " + type;
  for (const std::string& word : plan.words()) {
    line += " " + word;
  }
  const std::string direct = has_direct(disk) ? "on" : "off";
  return {kQemu, "-accel", "tcg", "-smp", "2", "-m", "512", "-cpu", "max", "-nodefaults",
          "-no-user-config", "-display", "none", "-serial", "stdio",
          // A kernel that panics ends the machine.
          "-no-reboot", "-kernel", image.kernel(), "-initrd", image.initramfs(), "-append", line,
          "-drive", "if=none,id=disk,format=raw,cache.direct=" + direct + ",file=" + disk,
          "-device", "virtio-blk-pci,drive=disk", "-object",
          "memory-backend-file,id=ledger,share=on,size=" + std::to_string(kLedgerBytes) +
              ",mem-path=" + ledger.path(),
          "-device", std::string("ivshmem-plain,memdev=ledger,addr=") + kSlot};
}

}  // namespace

std::unique_ptr<GuestImage> GuestImage::make(std::string& why) {
  for (const char* program : {kQemu, "python3"}) {
    if (!have_program(program)) {
      why = std::string("no ") + program;
      return nullptr;
    }
  }
  std::unique_ptr<GuestImage> image(new GuestImage);
  const std::string said = image->scratch_ / "said";
  if (run_command("python3 " KEEL_REAL_SOURCES "/guest_image.py " KEEL_GUEST_KERNELS " " +
                  image->initramfs() + " " + helper_path() + " >" + said) != 0) {
    why = content_of(said);
    while (!why.empty() && why.back() == '\n') {
      why.pop_back();
    }
    return nullptr;
  }
  return image;
}

std::string GuestImage::kernel() const { return KEEL_GUEST_KERNELS "/vmlinuz"; }

GuestMachine::GuestMachine(const GuestImage& image, const std::string& disk,
                           const std::string& type, const LedgerFile& ledger, WriterPlan plan)
    : console_(emptied(image.console())),
      qemu_(command_of(image, disk, type, ledger, std::move(plan)), -1, true, console_) {}

void GuestMachine::kill() {
  qemu_.signal(SIGKILL);
  (void)qemu_.wait();
}

std::string GuestMachine::said() const { return content_of(console_); }

}  // namespace keel_test

// A simulated disk: an Os under which every path in /sim is a file in memory that can crash.
//
// What no flush has covered may be lost, torn or garbage after a crash; a name that no fsync of the
// directory /sim has covered may be lost. Reads see writes at once. Other paths and descriptors go
// to the kernel. A crash test is a loop over seeds, or over the moments at which to crash:
//
//   SimDisk disk;
//   ScopedOs scope(disk);
//   std::vector<SimSnapshot> moments;
//   disk.on_io([&](const SimIo&) { moments.push_back(disk.snapshot()); });
//   write_things();                                    // the code under test, opening "/sim/log"
//   for (const SimSnapshot& moment : moments) {
//     SimDisk after;
//     after.boot(moment, /*seed=*/1);                  // power cut at that moment, then on again
//     ScopedOs rebooted(after);
//     recover_and_check();
//   }
//
// The same in place: disk.crash(seed), open again. All subsets of few pending sectors, instead of
// seeds:
//
//   for (std::uint64_t kept = 0; kept < 1u << moment.sectors(); ++kept) {
//     after.boot_with(moment, [&](const SimSector& sector) {
//       return (kept >> sector.index & 1) != 0 ? SimFate::kKeep : SimFate::kDrop;
//     });
//   }
//
// A failure at each I/O in turn:
//
//   disk.inject({.op = SimOp::kWrite, .nth = k, .error = EIO, .for_good = true});
//
// I1 A flush covers what was written to the same file before it, and nothing else.
// I2 Virtual descriptors start at kFirstDescriptor, so they never meet a real one; no number is
//    used twice in kDescriptors opens. Those open at a crash are dead: -EIO, but close() of them is
//    fine.
// I3 Random numbers count up from the seed and go on through snapshots and crashes, so that a
//    rebooted disk does not repeat what an earlier life drew.
// I4 A ring's write lands when it is submitted or when it is taken, as the seed draws it; they are
//    taken in an order of the seed's, and its bytes are read when it lands. Its faults are a
//    write's.
// I5 A descriptor of another disk ends the program: a thread that goes on calls whichever disk is
//    in force, and would write to what has that number there. Each of kDisks disks made in a row
//    has numbers of its own.
// Locks: one leaf mutex. The hooks run outside it and may use the disk's own calls (snapshot,
// crash), not its I/O. If the hook blocks, its I/O does not return: that is a stuck disk.
#pragma once

#include <fcntl.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keel/base/mutex.h"
#include "keel/base/os.h"
#include "support/sim_image.h"

namespace keel {

struct SimDiskOptions {
  std::uint64_t seed = 1;            // of random64()
  std::uint32_t direct_align = 512;  // what O_DIRECT asks of offset, length and address
  bool statx_says_align = true;  // false: STATX_DIOALIGN is not in the mask (btrfs, tmpfs, FUSE)
  bool direct_io = true;         // false: O_DIRECT opens get -EINVAL
  bool copy_on_write = false;    // what is_copy_on_write() says until a file is set otherwise
  std::uint32_t physical_sector = 0;  // what physical_sector_bytes() says; 0: nothing
  bool registers_buffers = true;      // ring_create() takes the buffers it is given
  bool virtual_clock = false;         // time moves only by sleep_ns(), advance_clock() and slow I/O
};

// kFlush is fdatasync and fsync, also of the directory; kResize is ftruncate; kStat is fstat, statx
// and the copy-on-write calls.
enum class SimOp : std::uint8_t {
  kAny,  // in a fault: every operation counts
  kOpen,
  kRead,
  kWrite,
  kFlush,
  kAllocate,
  kResize,
  kLock,
  kLink,
  kUnlink,
  kStat,
  kRingCreate,
  kRingSubmit,  // a write put under way; the write itself is a kWrite, then or when it is taken
  kRingWait,    // only waits that block count, and only failed ones are in the log
};

// One operation as it was asked for and answered.
struct SimIo {
  std::uint64_t sequence = 0;  // from 1, over all operations of the disk
  SimOp op = SimOp::kAny;
  std::string path = {};  // "" for a file without a name
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::int64_t result = 0;  // as returned
  bool faulty = false;      // a fault was applied
};

struct SimFault {
  enum class Effect : std::uint8_t {
    kFail,         // any operation: -error; the first `bytes` of a write land all the same
    kShort,        // a read or write moves only `bytes`, rounded down to 512, and says so
    kLie,          // a write or flush says it was done and does nothing
    kFailAndDrop,  // a flush: -error, and what was pending never becomes stable (fsyncgate); reads
                   // see it until drop_clean_pages() or a crash
    kMisdirect,    // a read or write goes to `offset` instead
    kFlipBit,      // bit number `bit` of the data moved is wrong
    kSlow,         // nothing but delay_ns
  };
  SimOp op = SimOp::kAny;
  std::string path = {};  // only operations on it; "" is any
  std::uint64_t nth = 1;  // the n-th from now, from 1
  Effect effect = Effect::kFail;
  int error = EIO;
  bool for_good = false;  // that one and all later ones
  std::uint64_t bytes = 0;
  std::uint64_t offset = 0;
  std::uint64_t bit = 0;
  std::uint64_t delay_ns = 0;  // moves the virtual clock, with any effect
};

// A write that is durable by itself (O_DSYNC, RWF_DSYNC), while it is under way.
struct SimDurableWrite {
  int fd = -1;
  std::uint64_t offset = 0;
  std::shared_ptr<const SimContent> data;
};

// Names in /sim, without the "/sim/", and the files that they stand for.
using SimNames = std::map<std::string, std::uint64_t, std::less<>>;

// Everything a crash needs to know of a disk. Cheap to copy, and independent of the disk.
struct SimSnapshot {
  struct File {
    SimImage image;
    mode_t mode = 0600;
    uid_t uid = 0;
    bool in_place = false;  // set_no_copy_on_write()
    bool block_device = false;
  };
  struct NameChange {
    std::string name;
    std::uint64_t file;  // 0: the name was removed
  };
  std::map<std::uint64_t, File> files;
  SimNames names;
  SimNames stable_names;
  std::vector<NameChange> pending_names;
  std::uint64_t random_draws = 0;

  // The file that has the name now; the name must exist.
  [[nodiscard]] const SimImage& file(std::string_view path) const;
  // How many questions a crash asks (SimSector::index stays below), and about how many operations.
  [[nodiscard]] std::size_t sectors(std::size_t sector_bytes = 512) const;
  [[nodiscard]] std::size_t writes() const;
};

// Threads: any, all calls.
class SimDisk : public Os {
 public:
  static constexpr int kFirstDescriptor = 1 << 20;
  static constexpr int kDescriptors = 1 << 16;  // of one disk, which begin at a multiple of it
  static constexpr int kDisks = 32'000;         // until numbers are used again
  static_assert(kFirstDescriptor + std::int64_t{kDisks} * kDescriptors <
                std::numeric_limits<int>::max());
  static constexpr std::uint64_t kMaxFileBytes = std::numeric_limits<std::int64_t>::max();

  explicit SimDisk(const SimDiskOptions& options = {});
  ~SimDisk() override;

  // Power cut and reboot: as `odds` and the seed draw it, or as the mask says. Faults stay.
  void crash(std::uint64_t seed, const SimCrash& odds = {});
  void crash_with(const SimMask& mask, std::size_t sector_bytes = 512);

  [[nodiscard]] SimSnapshot snapshot() const;
  // Replaces all files by what a crash leaves of the snapshot.
  void boot(const SimSnapshot& before, std::uint64_t seed, const SimCrash& odds = {});
  void boot_with(const SimSnapshot& before, const SimMask& mask, std::size_t sector_bytes = 512);

  // Content as reads see it; the file must exist.
  [[nodiscard]] SimContent image(std::string_view path) const;
  // Makes or replaces a file; content and name are stable.
  void set_image(std::string_view path, const SimContent& content);
  [[nodiscard]] bool exists(std::string_view path) const;
  // Makes a block device of zeros; all its content and its name are stable.
  void add_block_device(std::string_view path, std::uint64_t bytes);
  // As if the kernel itself used it (a mount): nobody can claim it.
  void set_in_use(std::string_view path, bool in_use);
  void set_owner(std::string_view path, mode_t mode, uid_t uid);
  // Bit rot: stable content and what reads see. Data not yet flushed over it is not hit.
  void flip_bit(std::string_view path, std::uint64_t offset, unsigned bit);

  [[nodiscard]] std::vector<SimIo> io_log() const;
  void clear_io_log();
  // Called after each operation, on the thread that did it; from several at once if they do I/O.
  void on_io(std::function<void(const SimIo&)> hook);

  // Called before each write that is durable by itself, on its thread: it has not returned, and any
  // of its sectors may be there. snapshot_during() is the disk at such a moment.
  void on_durable_write(std::function<void(const SimDurableWrite&)> hook);
  [[nodiscard]] SimSnapshot snapshot_during(const SimDurableWrite& write) const;

  // Several may be in force; the first injected that matches is applied, all count.
  void inject(const SimFault& fault);
  void clear_faults();

  void advance_clock(std::uint64_t duration_ns);

  int mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
           std::uint64_t offset, void** out) override;
  int open(const char* path, int flags, mode_t mode) override;
  int close(int fd) override;
  int fstat(int fd, struct stat* out) override;
  int fchmod(int fd, mode_t mode) override;
  int clear_nonblock(int fd) override;
  int statx(int fd, unsigned mask, struct statx* out) override;
  int ftruncate(int fd, std::uint64_t bytes) override;
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t bytes) override;
  std::int64_t lseek(int fd, std::uint64_t offset, int whence) override;
  int lock_exclusive(int fd) override;
  int lock_shared(int fd) override;
  int unlock(int fd) override;
  int block_device_bytes(int fd, std::uint64_t* out) override;
  int physical_sector_bytes(int fd) override;
  int is_copy_on_write(int fd) override;
  int set_no_copy_on_write(int fd) override;
  int link_unnamed(int fd, const char* path) override;
  int unlink(const char* path) override;
  ssize_t pwritev2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                   int flags) override;
  ssize_t preadv2(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                  int flags) override;
  int fdatasync(int fd) override;
  int fsync(int fd) override;
  int drop_clean_pages(int fd) override;
  int ring_create(int fd, const struct iovec* buffers, int buffer_count, unsigned entries,
                  OsRing** out) override;
  int ring_submit(OsRing* ring, const RingWrite& write) override;
  int ring_wait(OsRing* ring, bool block, RingDone* out) override;
  void ring_destroy(OsRing* ring, bool inherited) override;
  std::uint64_t monotonic_ns() override;
  std::uint64_t realtime_ns() override;
  void sleep_ns(std::uint64_t duration_ns) override;
  std::uint64_t random64() override;

 private:
  struct File {
    SimSnapshot::File disk;
    SimBytes cached;  // what reads see
    std::string path;
    std::map<int, bool> locks;  // by descriptor: whether it is exclusive
    bool in_use = false;        // a block device: claimed by the kernel
  };
  struct Descriptor {
    std::uint64_t file = 0;  // 0: the directory
    int flags = 0;

    [[nodiscard]] bool may_read() const { return (flags & O_ACCMODE) != O_WRONLY; }
    [[nodiscard]] bool may_write() const { return (flags & O_ACCMODE) != O_RDONLY; }
  };
  struct ArmedFault {
    SimFault fault;
    std::uint64_t seen = 0;
  };
  struct Ring;
  using Hook = std::function<void(const SimIo&)>;
  using DurableWriteHook = std::function<void(const SimDurableWrite&)>;

  // False for one of the kernel's; ends the program for one of another disk's.
  [[nodiscard]] bool is_virtual(int fd) const;

  // Each does one operation and fills in `io` what the log wants to know. Returns the result.
  int open_file(std::string_view path, int flags, mode_t mode, SimIo& io) KEEL_REQUIRES(mutex_);
  int stat_file(int fd, struct stat* out, SimIo& io) KEEL_REQUIRES(mutex_);
  int resize_file(int fd, std::uint64_t bytes, SimIo& io) KEEL_REQUIRES(mutex_);
  int allocate(int fd, int mode, SimIo& io) KEEL_REQUIRES(mutex_);
  int lock_file(int fd, bool exclusive, SimIo& io) KEEL_REQUIRES(mutex_);
  int set_in_place(int fd, SimIo& io) KEEL_REQUIRES(mutex_);
  int tell_copy_on_write(int fd, SimIo& io) KEEL_REQUIRES(mutex_);
  int link_file(int fd, std::string_view path, SimIo& io) KEEL_REQUIRES(mutex_);
  int unlink_name(std::string_view path, SimIo& io) KEEL_REQUIRES(mutex_);
  ssize_t write_file(int fd, SimContent data, bool aligned, int flags, SimIo& io)
      KEEL_REQUIRES(mutex_);
  ssize_t read_file(int fd, SimContent& data, bool aligned, SimIo& io) KEEL_REQUIRES(mutex_);
  int flush(int fd, SimIo& io) KEEL_REQUIRES(mutex_);
  int create_ring(int fd, SimIo& io) KEEL_REQUIRES(mutex_);

  // What the operations are made of.
  [[nodiscard]] bool is_claimed(const File& file, std::uint64_t id) const KEEL_REQUIRES(mutex_);
  [[nodiscard]] Ring* ring_of(OsRing* ring) KEEL_EXCLUDES(mutex_);
  bool toss(std::uint64_t one_in) KEEL_REQUIRES(mutex_);
  // A whole write, put in the log but not announced.
  SimIo write_call(int fd, const struct iovec* parts, int count, std::uint64_t offset, int flags)
      KEEL_EXCLUDES(mutex_);
  std::optional<SimFault> take_fault(SimIo& io) KEEL_REQUIRES(mutex_);
  int fail_if_asked(SimIo& io) KEEL_REQUIRES(mutex_);
  int find(int fd, SimIo& io, Descriptor& descriptor, File*& file) KEEL_REQUIRES(mutex_);
  int add_descriptor(std::uint64_t file, int flags) KEEL_REQUIRES(mutex_);
  std::uint64_t add_file(mode_t mode) KEEL_REQUIRES(mutex_);
  void change_name(std::string_view name, std::uint64_t file) KEEL_REQUIRES(mutex_);
  void land(File& file, std::uint64_t offset, SimContent data, bool durable) KEEL_REQUIRES(mutex_);
  void land_resize(File& file, std::uint64_t bytes) KEEL_REQUIRES(mutex_);
  void drop_unreachable() KEEL_REQUIRES(mutex_);
  File& named(std::string_view path) KEEL_REQUIRES(mutex_);
  const File& named(std::string_view path) const KEEL_REQUIRES(mutex_);
  SimSnapshot take_snapshot() const KEEL_REQUIRES(mutex_);
  void reboot(const SimSnapshot& before, SimDamage damage) KEEL_REQUIRES(mutex_);
  void record(SimIo& io, std::int64_t result) KEEL_REQUIRES(mutex_);
  std::int64_t announce(const SimIo& io) KEEL_EXCLUDES(mutex_);
  void announce_durable_write(int fd, const struct iovec* parts, int count, std::uint64_t offset,
                              int flags) KEEL_EXCLUDES(mutex_);
  int flush_call(int fd) KEEL_EXCLUDES(mutex_);
  int lock_call(int fd, bool exclusive) KEEL_EXCLUDES(mutex_);

  const SimDiskOptions options_;
  const int first_descriptor_;
  std::atomic<std::uint64_t> random_draws_{0};
  std::atomic<std::uint64_t> clock_ns_{1'000'000'000};

  mutable Mutex mutex_{LockRank::kLeaf};
  std::map<std::uint64_t, File> files_ KEEL_GUARDED_BY(mutex_);
  SimNames names_ KEEL_GUARDED_BY(mutex_);
  SimNames stable_names_ KEEL_GUARDED_BY(mutex_);
  std::vector<SimSnapshot::NameChange> pending_names_ KEEL_GUARDED_BY(mutex_);
  std::map<int, Descriptor> descriptors_ KEEL_GUARDED_BY(mutex_);
  std::uint64_t next_file_ KEEL_GUARDED_BY(mutex_) = 1;
  int next_descriptor_ KEEL_GUARDED_BY(mutex_) = first_descriptor_;
  int first_live_descriptor_ KEEL_GUARDED_BY(mutex_) = first_descriptor_;
  std::map<OsRing*, std::unique_ptr<Ring>> rings_ KEEL_GUARDED_BY(mutex_);
  std::uint64_t ring_dice_ KEEL_GUARDED_BY(mutex_) = 0;
  std::vector<ArmedFault> faults_ KEEL_GUARDED_BY(mutex_);
  std::vector<SimIo> log_ KEEL_GUARDED_BY(mutex_);
  std::uint64_t last_sequence_ KEEL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<const Hook> hook_ KEEL_GUARDED_BY(mutex_);
  std::shared_ptr<const DurableWriteHook> durable_write_hook_ KEEL_GUARDED_BY(mutex_);
};

}  // namespace keel

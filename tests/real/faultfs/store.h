// FaultFile: a file of faultfs as a disk would hold it: what is durable, what was written since,
// and what readers see. It knows nothing of FUSE, so that its rules can be tested alone.
//
// I1 `current` is `durable` with all pending writes applied in order, but for what was dropped.
// I2 A write that was asked to be durable by itself is marked so; it stays in order behind pending
//    ones, and survives every cut.
// I3 What a cut leaves depends on the mode, the seed and the pending writes alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace faultfs {

// Anonymous memory that grows, and costs nothing where nothing was written.
class ByteMap {
 public:
  ByteMap() = default;
  ~ByteMap();
  ByteMap(ByteMap&& other) noexcept;
  ByteMap& operator=(ByteMap&& other) noexcept;
  ByteMap(const ByteMap&) = delete;
  ByteMap& operator=(const ByteMap&) = delete;

  // New bytes are zero; those cut off are zero when they come back.
  void resize(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t size() const { return bytes_; }
  [[nodiscard]] char* data() { return data_; }
  [[nodiscard]] const char* data() const { return data_; }

 private:
  char* data_ = nullptr;
  std::uint64_t bytes_ = 0;
  std::uint64_t mapped_ = 0;
};

// What becomes of pending writes when the power goes.
enum class Cut : std::uint8_t {
  kNone,     // all lost
  kAll,      // all there
  kWrites,   // each write there or not
  kPrefix,   // of each write a part from its beginning, in sectors of 512
  kSuffix,   // of each write a part up to its end
  kTorn512,  // each sector of 512 there or not
  kTorn4096,
  kGarbage,  // each sector of 512 there, not there, or random bytes
};
inline constexpr int kCuts = 8;
[[nodiscard]] const char* name_of(Cut cut);
[[nodiscard]] bool cut_of(std::string_view name, Cut& cut);

struct PendingWrite {
  std::uint64_t offset = 0;
  bool stable = false;
  // Shared with snapshots: never changed.
  std::shared_ptr<const std::vector<char>> bytes;
};
using Pending = std::vector<PendingWrite>;

// The file at one moment.
struct FileMoment {
  std::vector<char> durable;
  Pending pending;
};

// Makes of a durable image what a cut leaves.
void apply_cut(char* image, std::uint64_t bytes, const Pending& pending, Cut cut,
               std::uint64_t seed);

// A moment as a file's bytes, for another process.
[[nodiscard]] bool save(const FileMoment& moment, const char* path);
[[nodiscard]] bool load(FileMoment& moment, const char* path);

class FaultFile {
 public:
  void resize(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t size() const { return current_.size(); }
  void write(std::uint64_t offset, const char* data, std::size_t bytes, bool stable);
  // As readers see it; returns how many bytes there are.
  std::size_t read(std::uint64_t offset, char* out, std::size_t bytes) const;
  void flush();
  // A failed write-back: readers still see the writes, no later flush makes them durable.
  void drop_pending();

  void cut(Cut cut, std::uint64_t seed);
  [[nodiscard]] FileMoment moment() const;
  // Becomes what a cut leaves of another file.
  void become(const FileMoment& moment, Cut cut, std::uint64_t seed);

 private:
  void reread(const Pending& places);

  ByteMap durable_;
  ByteMap current_;
  Pending pending_;
  Pending dropped_;
};

// One step of a sequence of random numbers.
[[nodiscard]] std::uint64_t random_step(std::uint64_t& state);

}  // namespace faultfs

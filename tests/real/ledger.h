// Ledger: what a writer process has begun, promised and written home, in memory that outlives it.
//
// The writer and whoever kills it share it (a mapped file); faultfs copies its promises with every
// snapshot. Judge (judge.h) holds what recovery delivers against it.
//
// I1 What is promised is noted after force() or close() returned; what is home, before release() is
//    called; a transaction, before its commit() is called. So a copy taken while no write can
//    complete never promises more than the disk of that moment has to keep.
// I2 Objects belong to one thread each, and a thread's transactions stand in the order of its
//    commits.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

namespace keel_test {

inline constexpr std::size_t kLedgerThreads = 4;
inline constexpr std::size_t kObjectsOfThread = 12;
inline constexpr std::size_t kLedgerObjects = kLedgerThreads * kObjectsOfThread;
inline constexpr std::size_t kLedgerTransactions = 2000;  // of a thread
inline constexpr std::size_t kObjectsOfTransaction = 4;

// Number of an object's content; 0: the object never was.
using Version = std::uint64_t;

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free);

// The part that a snapshot copies; plain words for it.
struct Promises {
  Word forced{0};  // sequence
  std::array<Word, kLedgerObjects> home{};
};
struct PromisesCopy {
  std::uint64_t forced = 0;
  std::array<Version, kLedgerObjects> home{};
};
static_assert(sizeof(Promises) == sizeof(PromisesCopy));

struct LedgerTransaction {
  Word sequence{0};                                            // 0: not known yet
  std::array<std::uint32_t, kObjectsOfTransaction> objects{};  // of them, those with a version
  std::array<Version, kObjectsOfTransaction> versions{};
};

struct LedgerThread {
  Word begun{0};
  std::array<LedgerTransaction, kLedgerTransactions> transactions{};
};

struct Ledger {
  Promises promises;
  Word last_version{0};
  Word opened{0};          // the journal is open
  Word closing{0};         // close() is called
  Word failed_with{0};     // 1 + Errc of the first error that the writer met
  Word after_failure{0};   // forces that succeeded though they began after it
  Word attempts_after{0};  // calls tried after it
  Word stalls{0};          // reports of the watchdog
  Word done{0};            // ended by itself
  Word go{0};              // told to a writer that waits for it with its log open
  Word memory_locked{0};   // the journal says that it has locked the process's memory
  Word refused{0};         // allocations of a pool that is used alone; threads of a writer
  // As the life found it.
  std::uint64_t base_sequence = 0;
  std::array<Version, kLedgerObjects> base{};
  std::array<LedgerThread, kLedgerThreads> threads{};
};

// Of its file: a power of two, so that it can be a device's memory in a virtual machine.
inline constexpr std::size_t kLedgerBytes = std::bit_ceil(sizeof(Ledger));

// The mapped file. Fails the process if it cannot be had: it is a few MiB.
class LedgerFile {
 public:
  // Makes it, or opens what is there.
  explicit LedgerFile(const std::string& path);
  ~LedgerFile();
  LedgerFile(const LedgerFile&) = delete;
  LedgerFile& operator=(const LedgerFile&) = delete;

  [[nodiscard]] Ledger& operator*() const { return *ledger_; }
  [[nodiscard]] Ledger* operator->() const { return ledger_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  // For a new life, which begins with these objects; home as it was.
  void begin_life(std::uint64_t base_sequence, const std::array<Version, kLedgerObjects>& base,
                  const std::array<Version, kLedgerObjects>& home);
  [[nodiscard]] PromisesCopy promises() const;

 private:
  std::string path_;
  Ledger* ledger_ = nullptr;
};

// How many transactions this life has begun, and the newest sequence of them.
[[nodiscard]] std::uint64_t begun_of(const Ledger& ledger);
[[nodiscard]] std::uint64_t newest_of(const Ledger& ledger);

// The bytes of a version, in both processes.
[[nodiscard]] bool is_erasure(Version version);
[[nodiscard]] std::size_t size_of(Version version);
void fill_content(Version version, char* bytes, std::size_t size);
// Versions are drawn with this bit for objects of up to 400 KiB.
inline constexpr Version kLargeVersion = Version{1} << 60U;

}  // namespace keel_test

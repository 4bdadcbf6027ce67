// RocksDB as a log: a memtable of 16 GiB that is never flushed, so that nothing but the write-ahead
// log goes to the disk; no compression; the log is written through at each commit
// (manual_wal_flush off), and synced if the commit is to be stable.
//
// Recycled files: RocksDB overwrites old log files instead of growing new ones, which this version
// does only in the recovery mode that skips any corruption. It shows its best path to the disk, and
// is no setting that is run in earnest. Whether a recycled file is in use is checked.

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "compare/engines.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kMemtableBytes = std::size_t{16} << 30;
constexpr std::size_t kRecycledFiles = 3;
constexpr std::size_t kRecycledFileBytes = 256 * kMiB;

Status status_of(const rocksdb::Status& status, const char* what) {
  if (status.ok()) {
    return {};
  }
  std::fprintf(stderr, "rocksdb: %s: %s\n", what, status.ToString().c_str());
  return Error{Errc::kSystem, 0, what, 0};
}

rocksdb::Options options_of(RocksdbUse use) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.write_buffer_size = kMemtableBytes;
  options.compression = rocksdb::kNoCompression;
  options.manual_wal_flush = false;
  options.avoid_flush_during_shutdown = true;
  if (use == RocksdbUse::kRecycledLog) {
    options.recycle_log_file_num = kRecycledFiles;
    options.wal_recovery_mode = rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
  }
  return options;
}

class RocksdbEngine : public Engine {
 public:
  RocksdbEngine(const EngineConfig& config, RocksdbUse use)
      : config_(config), use_(use), batches_(config.threads) {
    write_options_.sync = config.use == EngineUse::kDurable;
  }

  Status open() {
    const Stopwatch watch;
    rocksdb::DB* db = nullptr;
    auto status =
        status_of(rocksdb::DB::Open(options_of(use_), config_.dir + "/rocksdb", &db), "open");
    if (!status) {
      return status;
    }
    open_seconds_ = watch.seconds();
    db_.reset(db);
    return use_ == RocksdbUse::kRecycledLog && config_.fresh ? recycle() : Status{};
  }

  Status commit(unsigned thread, std::uint64_t key, const std::byte* bytes) override {
    rocksdb::WriteBatch& batch = batches_[thread];
    const rocksdb::Slice value(reinterpret_cast<const char*>(bytes), config_.object_bytes);
    batch.Clear();
    if (use_ == RocksdbUse::kPut) {
      const rocksdb::Slice name(reinterpret_cast<const char*>(&key), sizeof key);
      (void)batch.Put(name, value);
    } else {
      (void)batch.PutLogData(value);
    }
    return status_of(db_->Write(write_options_, &batch), "write");
  }
  Status force() override { return status_of(db_->SyncWAL(), "sync the log"); }
  Status close() override { return status_of(db_->Close(), "close"); }

 private:
  // Fills log files and lets them go (a flush of the memtable does), until the one in use is an old
  // one.
  Status recycle() {
    const std::string part(4 * kMiB, 'x');
    for (std::size_t round = 0; round < kRecycledFiles; ++round) {
      (void)db_->Put({}, "key", "value");
      for (std::size_t written = 0; written < kRecycledFileBytes; written += part.size()) {
        rocksdb::WriteBatch batch;
        (void)batch.PutLogData(part);
        if (auto status = status_of(db_->Write({}, &batch), "write"); !status) {
          return status;
        }
      }
      if (auto status = status_of(db_->Flush({}), "flush"); !status) {
        return status;
      }
    }
    return uses_recycled_file()
               ? Status{}
               : Error{Errc::kUnsupported, 0, "RocksDB does not recycle its log here", 0};
  }

  [[nodiscard]] bool uses_recycled_file() const {
    std::unique_ptr<rocksdb::LogFile> file;
    std::error_code error;
    return db_->GetCurrentWalFile(&file).ok() &&
           std::filesystem::file_size(config_.dir + "/rocksdb" + file->PathName(), error) >=
               kRecycledFileBytes &&
           !error;
  }

  const EngineConfig config_;
  const RocksdbUse use_;
  rocksdb::WriteOptions write_options_;
  std::vector<rocksdb::WriteBatch> batches_;  // one a thread
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace

EngineResult open_rocksdb(const EngineConfig& config, RocksdbUse use) {
  auto engine = std::make_unique<RocksdbEngine>(config, use);
  auto status = engine->open();
  return status.ok() ? EngineResult(std::move(engine)) : EngineResult(status.error());
}

}  // namespace keel::bench

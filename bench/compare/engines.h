// The engines that journal_driver knows, by name.
#pragma once

#include <string>
#include <vector>

#include "log_bench/engine.h"

namespace keel::bench {

struct EngineSetup {
  const char* name;
  EngineResult (*open)(const EngineConfig& config);  // nullptr: not in this build
  const char* package;                               // that would bring it
};

[[nodiscard]] const std::vector<EngineSetup>& engine_setups();

// RocksDB's write-ahead log: what is logged, and onto what files.
enum class RocksdbUse {
  kLog,          // PutLogData: the log alone, no memtable
  kPut,          // Put: log and memtable
  kRecycledLog,  // as kLog, onto files that were written before
};
[[nodiscard]] EngineResult open_rocksdb(const EngineConfig& config, RocksdbUse use);

// SQLite's WAL mode, one connection behind a mutex, synchronous=FULL or NORMAL.
[[nodiscard]] EngineResult open_sqlite(const EngineConfig& config, bool full);

// LMDB, in its default mode or with MDB_NOSYNC (which may lose the store in a crash).
[[nodiscard]] EngineResult open_lmdb(const EngineConfig& config, bool sync);

// WiredTiger with its log, synced at each commit or by log_flush() alone.
[[nodiscard]] EngineResult open_wiredtiger(const EngineConfig& config, bool sync);

// See ideal.h.
[[nodiscard]] EngineResult open_ideal(const EngineConfig& config);

[[nodiscard]] EngineResult open_keel(const EngineConfig& config);
// In a pool that is nine tenths taken and has no free run above 4 pages.
[[nodiscard]] EngineResult open_keel_fragmented(const EngineConfig& config);
// The same, with JournalConfig::retry_contiguous.
[[nodiscard]] EngineResult open_keel_retrying(const EngineConfig& config);

}  // namespace keel::bench

#include "compare/engines.h"

#include "keel/measure/fragmented_pool.h"
#include "log_bench/keel_engine.h"

// Set by CMake to what was found.
#ifndef KEEL_HAVE_ROCKSDB
#define KEEL_HAVE_ROCKSDB 0
#endif
#ifndef KEEL_HAVE_SQLITE
#define KEEL_HAVE_SQLITE 0
#endif
#ifndef KEEL_HAVE_LMDB
#define KEEL_HAVE_LMDB 0
#endif
#ifndef KEEL_HAVE_WIREDTIGER
#define KEEL_HAVE_WIREDTIGER 0
#endif

namespace keel::bench {
namespace {

using Open = EngineResult (*)(const EngineConfig&);

#if KEEL_HAVE_ROCKSDB
template <RocksdbUse kUse>
constexpr Open kRocksdb = [](const EngineConfig& config) { return open_rocksdb(config, kUse); };
#else
template <RocksdbUse>
constexpr Open kRocksdb = nullptr;
#endif
#if KEEL_HAVE_SQLITE
template <bool kFull>
constexpr Open kSqlite = [](const EngineConfig& config) { return open_sqlite(config, kFull); };
#else
template <bool>
constexpr Open kSqlite = nullptr;
#endif
#if KEEL_HAVE_LMDB
template <bool kSync>
constexpr Open kLmdb = [](const EngineConfig& config) { return open_lmdb(config, kSync); };
#else
template <bool>
constexpr Open kLmdb = nullptr;
#endif
#if KEEL_HAVE_WIREDTIGER
template <bool kSync>
constexpr Open kWiredtiger =
    [](const EngineConfig& config) { return open_wiredtiger(config, kSync); };
#else
template <bool>
constexpr Open kWiredtiger = nullptr;
#endif

EngineResult as_engine(Result<std::unique_ptr<KeelEngine>> opened) {
  return opened ? EngineResult(std::move(*opened)) : EngineResult(opened.error());
}

}  // namespace

EngineResult open_keel(const EngineConfig& config) { return as_engine(KeelEngine::open(config)); }

EngineResult open_keel_fragmented(const EngineConfig& config) {
  constexpr std::size_t kRunPages = 4;
  constexpr std::size_t kPeriodPages = 40;
  return as_engine(KeelEngine::open(config, make_fragmented_pool(kRunPages, kPeriodPages)));
}

EngineResult open_keel_retrying(const EngineConfig& config) {
  EngineConfig retrying = config;
  retrying.retry_contiguous = true;
  return open_keel_fragmented(retrying);
}

const std::vector<EngineSetup>& engine_setups() {
  static const std::vector<EngineSetup> all{
      {"keel", open_keel, ""},
      {"keel-fragmented", open_keel_fragmented, ""},
      {"keel-retrying", open_keel_retrying, ""},
      {"ideal", open_ideal, ""},
      {"rocksdb-log", kRocksdb<RocksdbUse::kLog>, "librocksdb-dev"},
      {"rocksdb-put", kRocksdb<RocksdbUse::kPut>, "librocksdb-dev"},
      {"rocksdb-logrec", kRocksdb<RocksdbUse::kRecycledLog>, "librocksdb-dev"},
      {"sqlite-full", kSqlite<true>, "libsqlite3-dev"},
      {"sqlite-normal", kSqlite<false>, "libsqlite3-dev"},
      {"lmdb-sync", kLmdb<true>, "liblmdb-dev"},
      {"lmdb-nosync", kLmdb<false>, "liblmdb-dev"},
      {"wt-sync", kWiredtiger<true>, "libwiredtiger-dev"},
      {"wt-async", kWiredtiger<false>, "libwiredtiger-dev"},
  };
  return all;
}

}  // namespace keel::bench

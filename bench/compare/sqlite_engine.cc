// SQLite in WAL mode: one connection behind a mutex, a statement and so a transaction a commit,
// checkpoints by itself at 1,000 pages. FULL syncs the WAL at each commit; NORMAL does not, and a
// force is a sync of the WAL file, through SQLite's own handle of it.

#include <sqlite3.h>

#include <cstdio>
#include <mutex>
#include <string>

#include "compare/engines.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

constexpr const char* kInsert = "INSERT OR REPLACE INTO objects VALUES (?, ?)";

class SqliteEngine : public Engine {
 public:
  SqliteEngine(const EngineConfig& config, bool full) : config_(config), full_(full) {}
  ~SqliteEngine() override { (void)close(); }

  Status open() {
    const std::string path = config_.dir + "/sqlite.db";
    const Stopwatch watch;
    if (auto status = check(sqlite3_open(path.c_str(), &db_), "open"); !status) {
      return status;
    }
    for (const char* text :
         {"PRAGMA journal_mode=WAL",
          full_ ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL",
          "CREATE TABLE IF NOT EXISTS objects (key INTEGER PRIMARY KEY, value BLOB)"}) {
      const int code = sqlite3_exec(db_, text, nullptr, nullptr, nullptr);
      if (auto status = check(code, text); !status) {
        return status;
      }
    }
    open_seconds_ = watch.seconds();
    return check(sqlite3_prepare_v2(db_, kInsert, -1, &insert_, nullptr), "prepare");
  }

  Status commit(unsigned, std::uint64_t key, const std::byte* bytes) override {
    const std::lock_guard lock(mutex_);
    sqlite3_bind_int64(insert_, 1, static_cast<sqlite3_int64>(key));
    // The bytes stay as they are until the statement is done.
    sqlite3_bind_blob64(insert_, 2, bytes, config_.object_bytes, nullptr);
    const int code = sqlite3_step(insert_);
    sqlite3_reset(insert_);
    return check(code == SQLITE_DONE ? SQLITE_OK : code, "insert");
  }

  Status force() override {
    const std::lock_guard lock(mutex_);
    sqlite3_file* wal = nullptr;
    const int code = sqlite3_file_control(db_, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (code != SQLITE_OK || wal == nullptr || wal->pMethods == nullptr) {
      return check(code == SQLITE_OK ? SQLITE_ERROR : code, "find the WAL");
    }
    return check(wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL), "sync the WAL");
  }

  Status close() override {
    sqlite3_finalize(insert_);
    const int code = sqlite3_close(db_);
    insert_ = nullptr;
    db_ = nullptr;
    return check(code, "close");
  }

 private:
  Status check(int code, const char* what) {
    if (code == SQLITE_OK) {
      return {};
    }
    std::fprintf(stderr, "sqlite: %s: %s\n", what, sqlite3_errstr(code));
    return Error{Errc::kSystem, 0, "a call of SQLite failed", static_cast<std::uint64_t>(code)};
  }

  const EngineConfig config_;
  const bool full_;
  std::mutex mutex_;
  sqlite3* db_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
};

}  // namespace

EngineResult open_sqlite(const EngineConfig& config, bool full) {
  auto engine = std::make_unique<SqliteEngine>(config, full);
  auto status = engine->open();
  return status.ok() ? EngineResult(std::move(engine)) : EngineResult(status.error());
}

}  // namespace keel::bench

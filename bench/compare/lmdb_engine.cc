// LMDB: a write transaction a commit (LMDB lets one thread write at a time), keys of 8 bytes. With
// MDB_NOSYNC a force is mdb_env_sync(); what a crash leaves then need not be a store at all.

#include <lmdb.h>
#include <sys/stat.h>

#include <cstdio>
#include <string>

#include "compare/engines.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

constexpr std::size_t kMapBytes = std::size_t{64} << 30;  // address space; the file grows

class LmdbEngine : public Engine {
 public:
  LmdbEngine(const EngineConfig& config, bool sync) : config_(config), sync_(sync) {}
  ~LmdbEngine() override { (void)close(); }

  Status open() {
    const std::string path = config_.dir + "/lmdb";
    ::mkdir(path.c_str(), 0700);
    const Stopwatch watch;
    int code = mdb_env_create(&env_);
    if (code == 0) {
      code = mdb_env_set_mapsize(env_, kMapBytes);
    }
    if (code == 0) {
      code = mdb_env_open(env_, path.c_str(), sync_ ? 0U : MDB_NOSYNC, 0600);
    }
    MDB_txn* transaction = nullptr;
    if (code == 0) {
      code = mdb_txn_begin(env_, nullptr, 0, &transaction);
    }
    if (code == 0) {
      code = mdb_dbi_open(transaction, nullptr, MDB_INTEGERKEY, &objects_);
      code = code == 0 ? mdb_txn_commit(transaction) : code;
    }
    open_seconds_ = watch.seconds();
    return check(code, "open");
  }

  Status commit(unsigned, std::uint64_t key, const std::byte* bytes) override {
    MDB_txn* transaction = nullptr;
    if (const int code = mdb_txn_begin(env_, nullptr, 0, &transaction); code != 0) {
      return check(code, "begin");
    }
    MDB_val name{sizeof key, &key};
    MDB_val value{config_.object_bytes, const_cast<std::byte*>(bytes)};
    if (const int code = mdb_put(transaction, objects_, &name, &value, 0); code != 0) {
      mdb_txn_abort(transaction);
      return check(code, "put");
    }
    return check(mdb_txn_commit(transaction), "commit");
  }

  Status force() override { return check(mdb_env_sync(env_, 1), "sync"); }

  Status close() override {
    mdb_env_close(env_);
    env_ = nullptr;
    return {};
  }

 private:
  Status check(int code, const char* what) {
    if (code == 0) {
      return {};
    }
    std::fprintf(stderr, "lmdb: %s: %s\n", what, mdb_strerror(code));
    return Error{Errc::kSystem, 0, "a call of LMDB failed", 0};
  }

  const EngineConfig config_;
  const bool sync_;
  MDB_env* env_ = nullptr;
  MDB_dbi objects_ = 0;
};

}  // namespace

EngineResult open_lmdb(const EngineConfig& config, bool sync) {
  auto engine = std::make_unique<LmdbEngine>(config, sync);
  auto status = engine->open();
  return status.ok() ? EngineResult(std::move(engine)) : EngineResult(status.error());
}

}  // namespace keel::bench

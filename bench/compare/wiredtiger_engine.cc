// WiredTiger with its log: a session and a cursor for each thread, an insert and so a transaction a
// commit. Synced, each commit waits for an fsync of the log (method=fsync); else a force is
// log_flush(sync=on), through a session of its own. The cache holds all, and there are no
// checkpoints: nothing but the log goes to the disk.

#include <sys/stat.h>
#include <wiredtiger.h>

#include <cstdio>
#include <mutex>
#include <string>
#include <vector>

#include "compare/engines.h"
#include "support/clock.h"

namespace keel::bench {
namespace {

constexpr const char* kTable = "table:objects";

class WiredtigerEngine : public Engine {
 public:
  WiredtigerEngine(const EngineConfig& config, bool sync)
      : config_(config), sync_(sync), cursors_(config.threads) {}

  Status open() {
    const std::string path = config_.dir + "/wiredtiger";
    ::mkdir(path.c_str(), 0700);
    std::string settings = "create,cache_size=6G,session_max=300,log=(enabled=true)";
    settings += sync_ ? ",transaction_sync=(enabled=true,method=fsync)" : "";
    const Stopwatch watch;
    int code = wiredtiger_open(path.c_str(), nullptr, settings.c_str(), &connection_);
    open_seconds_ = watch.seconds();
    if (code == 0) {
      code = connection_->open_session(connection_, nullptr, nullptr, &force_session_);
    }
    if (code == 0) {
      code = force_session_->create(force_session_, kTable, "key_format=Q,value_format=u");
    }
    for (std::size_t i = 0; i < cursors_.size() && code == 0; ++i) {
      WT_SESSION* session = nullptr;
      code = connection_->open_session(connection_, nullptr, nullptr, &session);
      if (code == 0) {
        code = session->open_cursor(session, kTable, nullptr, nullptr, &cursors_[i]);
      }
    }
    return check(code, "open");
  }

  Status commit(unsigned thread, std::uint64_t key, const std::byte* bytes) override {
    WT_CURSOR* cursor = cursors_[thread];
    WT_ITEM value{};
    value.data = bytes;
    value.size = config_.object_bytes;
    cursor->set_key(cursor, key);
    cursor->set_value(cursor, &value);
    return check(cursor->insert(cursor), "insert");
  }

  Status force() override {
    const std::lock_guard lock(force_mutex_);
    return check(force_session_->log_flush(force_session_, "sync=on"), "flush the log");
  }

  Status close() override { return check(connection_->close(connection_, nullptr), "close"); }

 private:
  Status check(int code, const char* what) {
    if (code == 0) {
      return {};
    }
    std::fprintf(stderr, "wiredtiger: %s: %s\n", what, wiredtiger_strerror(code));
    return Error{Errc::kSystem, 0, "a call of WiredTiger failed", 0};
  }

  const EngineConfig config_;
  const bool sync_;
  WT_CONNECTION* connection_ = nullptr;
  std::vector<WT_CURSOR*> cursors_;  // one a thread
  std::mutex force_mutex_;           // a session is for one thread at a time
  WT_SESSION* force_session_ = nullptr;
};

}  // namespace

EngineResult open_wiredtiger(const EngineConfig& config, bool sync) {
  auto engine = std::make_unique<WiredtigerEngine>(config, sync);
  auto status = engine->open();
  return status.ok() ? EngineResult(std::move(engine)) : EngineResult(status.error());
}

}  // namespace keel::bench

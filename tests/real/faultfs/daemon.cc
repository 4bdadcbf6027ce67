#define FUSE_USE_VERSION 314
#include "faultfs/daemon.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "faultfs/rules.h"
#include "faultfs/store.h"

namespace faultfs {
namespace {

struct Inode {
  FaultFile file;
  mode_t mode = 0600;
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint64_t lookups = 0;
  bool named = true;
};

struct Moment {
  FileMoment file;
  std::string promises;
};

// One of them in a process; the operations of FUSE are its friends in all but name.
class Daemon {
 public:
  Daemon(int control, const char* log) : control_(control) {
    log_ = log != nullptr ? std::fopen(log, "we") : nullptr;
  }

  int run(const char* directory);

  Inode* inode(fuse_ino_t ino) {
    const auto found = inodes_.find(ino);
    return found == inodes_.end() ? nullptr : found->second.get();
  }
  fuse_ino_t ino_of(const std::string& name) const {
    const auto found = names_.find(name);
    return found == names_.end() ? 0 : found->second;
  }
  fuse_ino_t make(const std::string& name, mode_t mode, uid_t uid, gid_t gid);
  void unlink(const std::string& name);
  void forget(fuse_ino_t ino, std::uint64_t lookups);
  [[nodiscard]] const std::map<std::string, fuse_ino_t>& names() const { return names_; }

  void do_write(fuse_req_t request, fuse_ino_t ino, std::string data, std::uint64_t offset,
                bool durable);
  void do_read(fuse_req_t request, fuse_ino_t ino, std::size_t bytes, std::uint64_t offset);
  void do_fsync(fuse_req_t request, fuse_ino_t ino);
  [[nodiscard]] bool power() const { return power_; }
  [[nodiscard]] bool refuses_space() const { return refuse_space_; }

 private:
  struct Held {
    std::function<void()> go;
    std::function<void()> fail;
  };

  void say(const char* what, const Rule* rule, std::uint64_t offset, std::uint64_t bytes);
  void maybe_snapshot(const Inode& inode, const PendingWrite* in_flight);
  void take_snapshot(std::size_t index, const Inode& inode, const PendingWrite* in_flight);
  void hold(std::function<void()> go, fuse_req_t request);
  void power_off();
  void answer(const std::string& text) {
    (void)::send(control_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  bool serve_control();
  std::string command(const std::string& line);
  std::string image(std::istringstream& in);
  void apply_write(fuse_req_t request, Inode& inode, const std::string& data, std::uint64_t offset,
                   bool durable, const Rule* rule);
  void apply_fsync(fuse_req_t request, Inode& inode, const Rule* rule);

  const int control_;
  std::FILE* log_ = nullptr;
  fuse_session* session_ = nullptr;
  std::map<std::string, fuse_ino_t> names_;
  std::map<fuse_ino_t, std::unique_ptr<Inode>> inodes_;
  fuse_ino_t next_ino_ = FUSE_ROOT_ID + 1;
  std::string target_ = "log";
  Rules rules_;
  bool power_ = true;
  bool refuse_space_ = false;
  std::list<Held> held_;
  bool waits_for_hung_ = false;
  std::string ledger_path_;
  const char* ledger_ = nullptr;
  std::size_t ledger_bytes_ = 0;
  std::size_t most_moments_ = 0;
  std::uint64_t moments_seen_ = 0;
  std::uint64_t moment_seed_ = 0;
  std::vector<Moment> moments_;
  std::uint64_t faults_ = 0;
};

Daemon* daemon_of(fuse_req_t request) { return static_cast<Daemon*>(fuse_req_userdata(request)); }

struct stat stat_of(fuse_ino_t ino, const Inode* inode) {
  struct stat st {};
  st.st_ino = ino;
  st.st_mode = inode == nullptr ? (S_IFDIR | 0700) : (S_IFREG | inode->mode);
  st.st_nlink = inode == nullptr ? 2 : 1;
  st.st_blksize = 4096;
  if (inode == nullptr) {
    st.st_uid = ::getuid();
    st.st_gid = ::getgid();
  } else {
    st.st_size = static_cast<off_t>(inode->file.size());
    st.st_blocks = (st.st_size + 511) / 512;
    st.st_uid = inode->uid;
    st.st_gid = inode->gid;
  }
  return st;
}

fuse_entry_param entry_of(Daemon& daemon, fuse_ino_t ino) {
  fuse_entry_param entry{};
  Inode* inode = daemon.inode(ino);
  ++inode->lookups;
  entry.ino = ino;
  entry.attr = stat_of(ino, inode);
  return entry;  // timeouts 0: what is read is always what is here
}

fuse_ino_t Daemon::make(const std::string& name, mode_t mode, uid_t uid, gid_t gid) {
  const fuse_ino_t ino = next_ino_++;
  auto inode = std::make_unique<Inode>();
  inode->mode = mode & 07777U;
  inode->uid = uid;
  inode->gid = gid;
  inodes_[ino] = std::move(inode);
  names_[name] = ino;
  return ino;
}

void Daemon::unlink(const std::string& name) {
  const fuse_ino_t ino = ino_of(name);
  names_.erase(name);
  inode(ino)->named = false;
  forget(ino, 0);
}

void Daemon::forget(fuse_ino_t ino, std::uint64_t lookups) {
  Inode* found = inode(ino);
  if (found == nullptr) {
    return;
  }
  found->lookups -= std::min(lookups, found->lookups);
  if (found->lookups == 0 && !found->named) {
    inodes_.erase(ino);
  }
}

void Daemon::say(const char* what, const Rule* rule, std::uint64_t offset, std::uint64_t bytes) {
  ++faults_;
  if (log_ != nullptr) {
    (void)std::fprintf(log_, "%s %s %llu at %llu, %llu bytes\n", what,
                       rule != nullptr ? name_of(rule->action) : "power",
                       static_cast<unsigned long long>(rule != nullptr ? rule->argument : 0),
                       static_cast<unsigned long long>(offset),
                       static_cast<unsigned long long>(bytes));
    (void)std::fflush(log_);
  }
}

// A sample of all moments, each as likely as any other, without knowing how many will come.
void Daemon::maybe_snapshot(const Inode& inode, const PendingWrite* in_flight) {
  if (most_moments_ == 0) {
    return;
  }
  ++moments_seen_;
  std::size_t index = moments_.size();
  if (index == most_moments_) {
    index = random_step(moment_seed_) % moments_seen_;
  }
  if (index < most_moments_) {
    take_snapshot(index, inode, in_flight);
  }
}

void Daemon::take_snapshot(std::size_t index, const Inode& inode, const PendingWrite* in_flight) {
  if (index >= moments_.size()) {
    moments_.resize(index + 1);
  }
  Moment& moment = moments_[index];
  moment.file = inode.file.moment();
  if (in_flight != nullptr) {
    moment.file.pending.push_back(*in_flight);
  }
  moment.promises.clear();
  if (ledger_ != nullptr) {
    moment.promises.assign(ledger_, ledger_bytes_);
  }
}

void Daemon::hold(std::function<void()> go, fuse_req_t request) {
  held_.push_back({std::move(go), [request] { (void)fuse_reply_err(request, EIO); }});
  if (waits_for_hung_) {
    waits_for_hung_ = false;
    answer("ok");
  }
}

void Daemon::power_off() {
  power_ = false;
  std::list<Held> held;
  held.swap(held_);
  for (const Held& one : held) {
    one.fail();
  }
}

void Daemon::do_write(fuse_req_t request, fuse_ino_t ino, std::string data, std::uint64_t offset,
                      bool durable) {
  Inode& file = *inode(ino);
  if (ino != ino_of(target_)) {
    file.file.write(offset, data.data(), data.size(), true);
    (void)fuse_reply_write(request, data.size());
    return;
  }
  if (!power_) {
    (void)fuse_reply_err(request, EIO);
    return;
  }
  const Rule* rule = rules_.meet(Op::kWrite);
  PendingWrite in_flight;
  if (most_moments_ != 0 || (rule != nullptr && rule->action == Action::kOff)) {
    in_flight = {offset, false, std::make_shared<std::vector<char>>(data.begin(), data.end())};
    maybe_snapshot(file, &in_flight);
  }
  if (rule != nullptr) {
    say("write", rule, offset, data.size());
    if (rule->action == Action::kOff) {
      take_snapshot(moments_.size(), file, &in_flight);
      power_off();
      (void)fuse_reply_err(request, EIO);
      return;
    }
    if (rule->action == Action::kHang) {
      hold([this, request, ino, data, offset,
            durable] { apply_write(request, *inode(ino), data, offset, durable, nullptr); },
           request);
      return;
    }
  }
  apply_write(request, file, data, offset, durable, rule);
}

void Daemon::apply_write(fuse_req_t request, Inode& inode, const std::string& data,
                         std::uint64_t offset, bool durable, const Rule* rule) {
  std::size_t bytes = data.size();
  std::uint64_t place = offset;
  switch (rule != nullptr ? rule->action : Action::kDelay) {
    case Action::kEio:
    case Action::kEioDrop: (void)fuse_reply_err(request, EIO); return;
    case Action::kEnospc: (void)fuse_reply_err(request, ENOSPC); return;
    case Action::kShort: bytes = std::min<std::size_t>(bytes, rule->argument); break;
    case Action::kLose: (void)fuse_reply_write(request, bytes); return;
    case Action::kMisplace:
      place = std::min<std::uint64_t>(offset + rule->argument, inode.file.size() - bytes);
      break;
    case Action::kLie: durable = false; break;
    case Action::kDelay:
      if (rule != nullptr) {
        (void)::usleep(static_cast<useconds_t>(rule->argument * 1000));
      }
      break;
    default: break;
  }
  inode.file.write(place, data.data(), bytes, durable);
  maybe_snapshot(inode, nullptr);
  (void)fuse_reply_write(request, bytes);
}

void Daemon::do_read(fuse_req_t request, fuse_ino_t ino, std::size_t bytes, std::uint64_t offset) {
  Inode& file = *inode(ino);
  const bool target = ino == ino_of(target_);
  if (target && !power_) {
    (void)fuse_reply_err(request, EIO);
    return;
  }
  const Rule* rule = target ? rules_.meet(Op::kRead) : nullptr;
  static std::vector<char> buffer;  // one thread
  buffer.resize(bytes);
  const std::size_t there = file.file.read(offset, buffer.data(), bytes);
  if (rule != nullptr) {
    say("read", rule, offset, bytes);
    if (rule->action == Action::kEio) {
      (void)fuse_reply_err(request, EIO);
      return;
    }
    if (rule->action == Action::kFlip && there > 0) {
      const std::uint64_t bit = rule->argument % (there * 8);
      buffer[bit / 8] = static_cast<char>(buffer[bit / 8] ^ (1 << (bit % 8)));
    }
    if (rule->action == Action::kShort) {
      (void)fuse_reply_buf(request, buffer.data(), std::min<std::size_t>(there, rule->argument));
      return;
    }
    if (rule->action == Action::kHang) {
      hold([this, request, ino, bytes, offset] { do_read(request, ino, bytes, offset); }, request);
      return;
    }
  }
  (void)fuse_reply_buf(request, buffer.data(), there);
}

void Daemon::do_fsync(fuse_req_t request, fuse_ino_t ino) {
  Inode& file = *inode(ino);
  if (ino != ino_of(target_)) {
    file.file.flush();
    (void)fuse_reply_err(request, 0);
    return;
  }
  if (!power_) {
    (void)fuse_reply_err(request, EIO);
    return;
  }
  maybe_snapshot(file, nullptr);
  const Rule* rule = rules_.meet(Op::kFsync);
  if (rule != nullptr) {
    say("fsync", rule, 0, 0);
    if (rule->action == Action::kOff) {
      take_snapshot(moments_.size(), file, nullptr);
      power_off();
      (void)fuse_reply_err(request, EIO);
      return;
    }
    if (rule->action == Action::kHang) {
      hold([this, request, ino] { apply_fsync(request, *inode(ino), nullptr); }, request);
      return;
    }
  }
  apply_fsync(request, file, rule);
}

void Daemon::apply_fsync(fuse_req_t request, Inode& inode, const Rule* rule) {
  switch (rule != nullptr ? rule->action : Action::kDelay) {
    case Action::kEnospc: (void)fuse_reply_err(request, ENOSPC); return;
    case Action::kEioDrop: inode.file.drop_pending(); [[fallthrough]];
    case Action::kEio: (void)fuse_reply_err(request, EIO); return;
    case Action::kLie: (void)fuse_reply_err(request, 0); return;
    case Action::kDelay:
      if (rule != nullptr) {
        (void)::usleep(static_cast<useconds_t>(rule->argument * 1000));
      }
      break;
    default: break;
  }
  inode.file.flush();
  maybe_snapshot(inode, nullptr);
  (void)fuse_reply_err(request, 0);
}

std::string Daemon::image(std::istringstream& in) {
  std::string name;
  std::string mode;
  std::size_t index = 0;
  std::uint64_t seed = 0;
  Cut cut = Cut::kNone;
  if (!(in >> name >> index >> mode >> seed) || !cut_of(mode, cut) || index >= moments_.size()) {
    return "error image";
  }
  fuse_ino_t ino = ino_of(name);
  if (ino == 0) {
    ino = make(name, 0600, ::getuid(), ::getgid());
  }
  inode(ino)->file.become(moments_[index].file, cut, seed);
  power_ = true;
  return "ok";
}

std::string Daemon::command(const std::string& line) {
  std::istringstream in(line);
  std::string verb;
  in >> verb;
  Inode* file = inode(ino_of(target_));
  if (verb == "ledger") {
    in >> ledger_path_ >> ledger_bytes_;
    const int fd = ::open(ledger_path_.c_str(), O_RDONLY | O_CLOEXEC);
    void* place =
        fd < 0 ? MAP_FAILED : ::mmap(nullptr, ledger_bytes_, PROT_READ, MAP_SHARED, fd, 0);
    (void)::close(fd);
    ledger_ = place == MAP_FAILED ? nullptr : static_cast<const char*>(place);
    return ledger_ != nullptr ? "ok" : "error ledger";
  }
  if (verb == "target") {
    in >> target_;
    return "ok";
  }
  if (verb == "rule") {
    std::string rest;
    std::getline(in, rest);
    return rules_.add(rest) ? "ok" : "error rule";
  }
  if (verb == "clear") {
    rules_.clear();
    faults_ = 0;
    power_ = true;
    refuse_space_ = false;
    return "ok";
  }
  if (verb == "snapshots") {
    moments_.clear();
    moments_seen_ = 0;
    in >> most_moments_ >> moment_seed_;
    return "ok";
  }
  if (verb == "cut") {
    std::string mode;
    std::uint64_t seed = 0;
    Cut cut = Cut::kNone;
    if (!(in >> mode >> seed) || !cut_of(mode, cut) || file == nullptr) {
      return "error cut";
    }
    file->file.cut(cut, seed);
    say("cut", nullptr, seed, file->file.size());
    return "ok";
  }
  if (verb == "image") {
    return image(in);
  }
  if (verb == "moments") {
    most_moments_ = 0;
    return "ok " + std::to_string(moments_.size()) + " " + std::to_string(moments_seen_);
  }
  if (verb == "save") {
    std::size_t index = 0;
    std::string path;
    in >> index >> path;
    return index < moments_.size() && save(moments_[index].file, path.c_str()) ? "ok"
                                                                               : "error save";
  }
  if (verb == "promises") {
    std::size_t index = 0;
    in >> index;
    return index < moments_.size() ? moments_[index].promises : "error promises";
  }
  if (verb == "power") {
    std::string what;
    in >> what;
    if (what == "off") {
      power_off();
    } else {
      power_ = true;
    }
    return "ok";
  }
  if (verb == "release") {
    rules_.clear();
    std::list<Held> held;
    held.swap(held_);
    for (const Held& one : held) {
      one.go();
    }
    return "ok " + std::to_string(held.size());
  }
  if (verb == "hung") {
    waits_for_hung_ = held_.empty();
    return waits_for_hung_ ? "" : "ok";
  }
  if (verb == "nospace") {
    refuse_space_ = true;
    return "ok";
  }
  if (verb == "stats") {
    return "ok " + std::to_string(rules_.count(Op::kWrite)) + " " +
           std::to_string(rules_.count(Op::kRead)) + " " +
           std::to_string(rules_.count(Op::kFsync)) + " " + std::to_string(faults_);
  }
  return "error command";
}

// False at its end.
bool Daemon::serve_control() {
  char packet[4096];
  const ssize_t got = ::recv(control_, packet, sizeof packet, 0);
  if (got <= 0) {
    return got < 0 && errno == EINTR;
  }
  const std::string line(packet, static_cast<std::size_t>(got));
  if (line == "quit") {
    return false;
  }
  const std::string text = command(line);
  if (!text.empty()) {
    answer(text);
  }
  return true;
}

void on_init(void* /*data*/, fuse_conn_info* connection) {
  connection->max_write = 1U << 20U;
  // With it the kernel makes EIO of a short direct write, and no client would ever see one.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ASYNC_DIO);
}

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Daemon& daemon = *daemon_of(request);
  const fuse_ino_t ino = parent == FUSE_ROOT_ID ? daemon.ino_of(name) : 0;
  if (ino == 0) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  const fuse_entry_param entry = entry_of(daemon, ino);
  (void)fuse_reply_entry(request, &entry);
}

void on_forget(fuse_req_t request, fuse_ino_t ino, std::uint64_t lookups) {
  daemon_of(request)->forget(ino, lookups);
  fuse_reply_none(request);
}

void on_getattr(fuse_req_t request, fuse_ino_t ino, fuse_file_info* /*info*/) {
  const Inode* inode = daemon_of(request)->inode(ino);
  if (inode == nullptr && ino != FUSE_ROOT_ID) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  const struct stat st = stat_of(ino, inode);
  (void)fuse_reply_attr(request, &st, 0);
}

void on_setattr(fuse_req_t request, fuse_ino_t ino, struct stat* wanted, int which,
                fuse_file_info* info) {
  Inode* inode = daemon_of(request)->inode(ino);
  if (inode != nullptr && (which & FUSE_SET_ATTR_SIZE) != 0) {
    inode->file.resize(static_cast<std::uint64_t>(wanted->st_size));
  }
  if (inode != nullptr && (which & FUSE_SET_ATTR_MODE) != 0) {
    inode->mode = wanted->st_mode & 07777U;
  }
  on_getattr(request, ino, info);
}

void on_open(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* info) {
  (void)fuse_reply_open(request, info);
}

void on_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* info) {
  Daemon& daemon = *daemon_of(request);
  if (parent != FUSE_ROOT_ID) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  const fuse_ctx* who = fuse_req_ctx(request);
  fuse_ino_t ino = daemon.ino_of(name);
  if (ino == 0) {
    ino = daemon.make(name, mode, who->uid, who->gid);
  }
  const fuse_entry_param entry = entry_of(daemon, ino);
  (void)fuse_reply_create(request, &entry, info);
}

void on_unlink(fuse_req_t request, fuse_ino_t /*parent*/, const char* name) {
  Daemon& daemon = *daemon_of(request);
  if (daemon.ino_of(name) == 0) {
    (void)fuse_reply_err(request, ENOENT);
    return;
  }
  daemon.unlink(name);
  (void)fuse_reply_err(request, 0);
}

void on_read(fuse_req_t request, fuse_ino_t ino, std::size_t bytes, off_t offset,
             fuse_file_info* /*info*/) {
  daemon_of(request)->do_read(request, ino, bytes, static_cast<std::uint64_t>(offset));
}

// RWF_DSYNC and O_DSYNC come as a flag of the write.
void on_write(fuse_req_t request, fuse_ino_t ino, const char* data, std::size_t bytes, off_t offset,
              fuse_file_info* info) {
  const bool durable = (info->flags & O_DSYNC) != 0;
  daemon_of(request)->do_write(request, ino, std::string(data, bytes),
                               static_cast<std::uint64_t>(offset), durable);
}

void on_fsync(fuse_req_t request, fuse_ino_t ino, int /*data_only*/, fuse_file_info* /*info*/) {
  daemon_of(request)->do_fsync(request, ino);
}

void on_fsync_directory(fuse_req_t request, fuse_ino_t /*ino*/, int /*data_only*/,
                        fuse_file_info* /*info*/) {
  (void)fuse_reply_err(request, 0);
}

void on_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t bytes,
                  fuse_file_info* /*info*/) {
  Daemon& daemon = *daemon_of(request);
  Inode* inode = daemon.inode(ino);
  if (mode != 0) {
    (void)fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  if (daemon.refuses_space()) {
    (void)fuse_reply_err(request, ENOSPC);
    return;
  }
  inode->file.resize(std::max(inode->file.size(), static_cast<std::uint64_t>(offset + bytes)));
  (void)fuse_reply_err(request, 0);
}

void on_readdir(fuse_req_t request, fuse_ino_t /*ino*/, std::size_t bytes, off_t offset,
                fuse_file_info* /*info*/) {
  Daemon& daemon = *daemon_of(request);
  std::string out(bytes, '\0');
  std::size_t used = 0;
  off_t index = 0;
  for (const auto& [name, ino] : daemon.names()) {
    if (index++ < offset) {
      continue;
    }
    const struct stat st = stat_of(ino, daemon.inode(ino));
    const std::size_t takes =
        fuse_add_direntry(request, out.data() + used, bytes - used, name.c_str(), &st, index);
    if (takes > bytes - used) {
      break;
    }
    used += takes;
  }
  (void)fuse_reply_buf(request, out.data(), used);
}

void on_statfs(fuse_req_t request, fuse_ino_t /*ino*/) {
  struct statvfs st {};
  st.f_bsize = st.f_frsize = 4096;
  st.f_blocks = st.f_bfree = st.f_bavail = 1U << 20U;
  st.f_namemax = 255;
  (void)fuse_reply_statfs(request, &st);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.forget = on_forget;
  ops.getattr = on_getattr;
  ops.setattr = on_setattr;
  ops.open = on_open;
  ops.create = on_create;
  ops.unlink = on_unlink;
  ops.read = on_read;
  ops.write = on_write;
  ops.fsync = on_fsync;
  ops.fsyncdir = on_fsync_directory;
  ops.fallocate = on_fallocate;
  ops.readdir = on_readdir;
  ops.statfs = on_statfs;
  return ops;
}

int Daemon::run(const char* directory) {
  const fuse_lowlevel_ops ops = operations();
  char name[] = "faultfs";
  char option[] = "-o";
  char value[] = "fsname=faultfs,default_permissions";
  char* words[] = {name, option, value};
  fuse_args arguments = FUSE_ARGS_INIT(3, words);
  session_ = fuse_session_new(&arguments, &ops, sizeof ops, this);
  if (session_ == nullptr || fuse_session_mount(session_, directory) != 0) {
    answer(std::string("error mount: ") + std::strerror(errno));
    return 1;
  }
  answer("ok");
  fuse_buf buffer{};
  bool running = true;
  while (running && fuse_session_exited(session_) == 0) {
    pollfd both[2] = {{fuse_session_fd(session_), POLLIN, 0}, {control_, POLLIN, 0}};
    if (::poll(both, 2, -1) < 0 && errno != EINTR) {
      break;
    }
    if ((both[1].revents & (POLLIN | POLLHUP)) != 0) {
      running = serve_control();
    }
    if (running && (both[0].revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
      const int got = fuse_session_receive_buf(session_, &buffer);
      if (got > 0) {
        fuse_session_process_buf(session_, &buffer);
      } else if (got != -EINTR && got != -EAGAIN) {
        running = false;
      }
    }
  }
  power_off();
  fuse_session_unmount(session_);
  fuse_session_destroy(session_);
  return 0;
}

}  // namespace

int run_daemon(const char* directory, int control, const char* log) {
  Daemon daemon(control, log);
  return daemon.run(directory);
}

}  // namespace faultfs

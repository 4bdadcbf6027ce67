// FaultIo: reads, writes and fsyncs of files of faultfs. Those of the file under test meet the
// rules: they fail, lie, hang or go wrong; those of other files are done, durably and at once.
//
// I1 Every request is answered once: when it is done, when what hangs is released, or when the
//    power goes.
// I2 Without power every operation on the file under test fails with EIO and changes nothing.
// I3 A moment can be sampled before each change, with the write under way, and after it; both
//    before the change is answered.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "faultfs/directory.h"
#include "faultfs/fuse.h"
#include "faultfs/moments.h"
#include "faultfs/rules.h"

namespace faultfs {

class FaultIo {
 public:
  // `log`: where it says what it did to operations; nullptr: nowhere.
  FaultIo(Directory& directory, Moments& moments, const char* log);

  void read(fuse_req_t request, InodeNumber number, std::size_t bytes, std::uint64_t offset);
  // `durable`: by itself, without an fsync.
  void write(fuse_req_t request, InodeNumber number, const std::string& data, std::uint64_t offset,
             bool durable);
  void fsync(fuse_req_t request, InodeNumber number);

  void set_target(const std::string& name) { target_ = name; }
  [[nodiscard]] bool add_rule(const std::string& text) { return rules_.add(text); }
  [[nodiscard]] std::uint64_t count(Op op) const { return rules_.count(op); }
  [[nodiscard]] std::uint64_t faults() const { return faults_; }
  // No rules, counts from 0, power and space.
  void clear();

  void power_on() { power_ = true; }
  void power_off();
  // In place: what is pending is lost, or not. False: the file under test is not there.
  [[nodiscard]] bool cut(Cut cut, std::uint64_t seed);

  // Whether fallocate() is to find no space.
  void refuse_space() { refuses_space_ = true; }
  [[nodiscard]] bool refuses_space() const { return refuses_space_; }

  [[nodiscard]] bool holds_any() const { return !held_.empty(); }
  // To be called once, when the next operation hangs.
  void on_hold(std::function<void()> tell) { tell_hold_ = std::move(tell); }
  // Does what hangs, without rules; says how many operations that were.
  std::size_t release();

 private:
  // An operation that hangs.
  struct Held {
    std::function<void()> go;
    fuse_req_t request;
  };

  [[nodiscard]] bool is_target(InodeNumber number) const {
    return number == directory_.number_of(target_);
  }
  void apply_write(fuse_req_t request, FaultFile& file, const std::string& data,
                   std::uint64_t offset, bool durable, const Rule* rule);
  void apply_fsync(fuse_req_t request, FaultFile& file, const Rule* rule);
  void hold(std::function<void()> go, fuse_req_t request);
  // The power goes before this operation.
  void lose_power(fuse_req_t request, const FaultFile& file, const PendingWrite* in_flight);
  void say(const char* what, const Rule* rule, std::uint64_t offset, std::uint64_t bytes);

  Directory& directory_;
  Moments& moments_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> log_;
  std::string target_ = "log";
  Rules rules_;
  bool power_ = true;
  bool refuses_space_ = false;
  std::list<Held> held_;
  std::function<void()> tell_hold_;
  std::uint64_t faults_ = 0;
  std::vector<char> buffer_;  // of reads
};

}  // namespace faultfs

#include "faultfs/control.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "faultfs/rules.h"
#include "faultfs/store.h"

namespace faultfs {

bool Control::serve() {
  char packet[4096];
  const ssize_t got = ::recv(socket_, packet, sizeof packet, 0);
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

void Control::answer(const std::string& text) {
  (void)::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
}

std::string Control::command(const std::string& line) {
  struct Verb {
    const char* name;
    std::string (Control::*act)(std::istringstream& in);
  };
  static constexpr std::array<Verb, 15> kVerbs = {{{"ledger", &Control::ledger},
                                                   {"target", &Control::target},
                                                   {"rule", &Control::rule},
                                                   {"clear", &Control::clear},
                                                   {"snapshots", &Control::snapshots},
                                                   {"cut", &Control::cut},
                                                   {"image", &Control::image},
                                                   {"moments", &Control::moments},
                                                   {"save", &Control::save_moment},
                                                   {"promises", &Control::promises},
                                                   {"power", &Control::power},
                                                   {"nospace", &Control::no_space},
                                                   {"release", &Control::release},
                                                   {"hung", &Control::hung},
                                                   {"stats", &Control::stats}}};
  std::istringstream in(line);
  std::string name;
  in >> name;
  for (const Verb& verb : kVerbs) {
    if (name == verb.name) {
      return (this->*verb.act)(in);
    }
  }
  return "error command";
}

std::string Control::ledger(std::istringstream& in) {
  std::string path;
  std::size_t bytes = 0;
  in >> path >> bytes;
  return moments_.use_ledger(path, bytes) ? "ok" : "error ledger";
}

std::string Control::target(std::istringstream& in) {
  std::string name;
  in >> name;
  io_.set_target(name);
  return "ok";
}

std::string Control::rule(std::istringstream& in) {
  std::string rest;
  std::getline(in, rest);
  return io_.add_rule(rest) ? "ok" : "error rule";
}

std::string Control::clear(std::istringstream& /*in*/) {
  io_.clear();
  return "ok";
}

std::string Control::snapshots(std::istringstream& in) {
  std::size_t most = 0;
  std::uint64_t seed = 0;
  in >> most >> seed;
  moments_.begin(most, seed);
  return "ok";
}

std::string Control::cut(std::istringstream& in) {
  std::string mode;
  std::uint64_t seed = 0;
  Cut cut = Cut::kNone;
  const bool done = (in >> mode >> seed) && cut_of(mode, cut) && io_.cut(cut, seed);
  return done ? "ok" : "error cut";
}

std::string Control::image(std::istringstream& in) {
  std::string name;
  std::string mode;
  std::size_t index = 0;
  std::uint64_t seed = 0;
  Cut cut = Cut::kNone;
  if (!(in >> name >> index >> mode >> seed) || !cut_of(mode, cut) || index >= moments_.size()) {
    return "error image";
  }
  InodeNumber number = directory_.number_of(name);
  if (number == kNoInode) {
    number = directory_.make(name, 0600, ::getuid(), ::getgid());
  }
  directory_.inode(number)->file.become(moments_[index].file, cut, seed);
  io_.power_on();
  return "ok";
}

std::string Control::moments(std::istringstream& /*in*/) {
  moments_.end();
  return "ok " + std::to_string(moments_.size()) + " " + std::to_string(moments_.seen());
}

std::string Control::save_moment(std::istringstream& in) {
  std::size_t index = 0;
  std::string path;
  in >> index >> path;
  const bool saved = index < moments_.size() && save(moments_[index].file, path.c_str());
  return saved ? "ok" : "error save";
}

std::string Control::promises(std::istringstream& in) {
  std::size_t index = 0;
  in >> index;
  return index < moments_.size() ? moments_[index].promises : "error promises";
}

std::string Control::power(std::istringstream& in) {
  std::string what;
  in >> what;
  if (what == "off") {
    io_.power_off();
  } else {
    io_.power_on();
  }
  return "ok";
}

std::string Control::no_space(std::istringstream& /*in*/) {
  io_.refuse_space();
  return "ok";
}

std::string Control::release(std::istringstream& /*in*/) {
  return "ok " + std::to_string(io_.release());
}

std::string Control::hung(std::istringstream& /*in*/) {
  if (io_.holds_any()) {
    return "ok";
  }
  io_.on_hold([this] { answer("ok"); });
  return "";
}

std::string Control::stats(std::istringstream& /*in*/) {
  return "ok " + std::to_string(io_.count(Op::kWrite)) + " " +
         std::to_string(io_.count(Op::kRead)) + " " + std::to_string(io_.count(Op::kFsync)) + " " +
         std::to_string(io_.faults());
}

}  // namespace faultfs

#include "output.h"

#include <time.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "keel/base/os.h"

namespace keel::tools {
namespace {

constexpr std::uint64_t kProgressPeriodNs = 100'000'000;

}  // namespace

int exit_code_of(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument: return kUsage;
    case Errc::kDamaged: return kCheckFailed;
    case Errc::kNotALog:
    case Errc::kBadVersion:
    case Errc::kBusy:
    case Errc::kUntrusted:
    case Errc::kExists: return kUnfit;
    default: return kWorldFailed;
  }
}

Failure::Failure(int exit_code, std::string subject, std::string text, std::string code)
    : exit_code_(exit_code),
      subject_(std::move(subject)),
      text_(std::move(text)),
      code_(std::move(code)) {}

Failure::Failure(std::string subject, const Error& error)
    : Failure(exit_code_of(error.code), std::move(subject), error.message(),
              to_string(error.code)) {}

std::string Failure::line() const {
  return printable(subject_.empty() ? text_ : subject_ + ": " + text_);
}

Json Failure::json() const {
  Json error{{"code", code_}, {"message", text_}};
  if (!subject_.empty()) {
    error["path"] = subject_;
  }
  return {{"ok", false}, {"exit", exit_code_}, {"error", error}};
}

std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void print_json(const Json& json) { std::printf("%s\n", json_text(json).c_str()); }

void warn(const std::string& subject, const std::string& text) {
  std::fprintf(stderr, "keel: %s: warning: %s\n", printable(subject).c_str(), text.c_str());
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      std::array<char, 8> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\x%02x", unsigned{byte});
      out += escaped.data();
    }
  }
  return out;
}

std::string human(Bytes bytes) {
  static constexpr std::array<const char*, 5> kUnits{"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < Bytes(1024)) {
    return std::to_string(bytes.value()) + " B";
  }
  auto value = static_cast<double>(bytes.value()) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %s", value, kUnits[unit]);
  return text.data();
}

std::string grouped(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > 3;) {
    at -= 3;
    text.insert(at, 1, ',');
  }
  return text;
}

std::string utc(std::uint64_t realtime_ns) {
  const auto seconds = static_cast<time_t>(realtime_ns / 1'000'000'000U);
  struct tm parts {};
  std::array<char, 32> text{};
  if (::gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
    return "unknown";
  }
  return text.data();
}

Progress::Progress() : terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (shown_) {
    std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
    shown_ = false;
  }
}

void Progress::show(const std::string& text) {
  if (due()) {
    print(text);
  }
}

void Progress::show(const char* act, Bytes done, Bytes most) {
  if (due()) {
    print(std::string(act) + " " + human(done) + " of " + human(most));
  }
}

bool Progress::due() {
  if (!terminal_) {
    return false;
  }
  const std::uint64_t now = os().monotonic_ns();
  if (now - last_ns_ < kProgressPeriodNs) {
    return false;
  }
  last_ns_ = now;
  return true;
}

void Progress::print(const std::string& text) {
  std::fprintf(stderr, "\r\033[K%s", printable(text).c_str());
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace keel::tools

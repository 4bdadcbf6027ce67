// Options whose values are numbers: whole ones, seconds, sizes. CLI11's own take a sign, octal
// digits, what overflows and "nan" for other numbers.
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <system_error>
#include <utility>

#include "command.h"

namespace keel::tools {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 62;

// All of the text is the number, from `least` to `most`. Refuses also what cannot be compared: nan.
template <class Number>
bool parse(const std::string& text, Number least, Number most, Number& out) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || !(value >= least && value <= most)) {
    return false;
  }
  out = value;
  return true;
}

// Bits to shift by for a suffix; -1 if it is none.
int shift_of(const std::string& suffix) {
  static const std::string kLetters = "KMGT";
  if (suffix.empty()) {
    return 0;
  }
  const auto at =
      kLetters.find(static_cast<char>(std::toupper(static_cast<unsigned char>(suffix[0]))));
  const std::string rest = suffix.substr(1);
  return at == std::string::npos || !(rest.empty() || rest == "iB") ? -1
                                                                    : static_cast<int>(at + 1) * 10;
}

// `take` is given the text, and false is a wrong value.
CLI::Option* add_checked(CLI::App& app, const std::string& name, const std::string& help,
                         const std::string& what, std::function<bool(const std::string&)> take) {
  return app.add_option_function<std::string>(
      name,
      [name, what, take = std::move(take)](const std::string& text) {
        if (!take(text)) {
          throw CLI::ValidationError(name, "'" + text + "' is not " + what);
        }
      },
      help);
}

// "0.01", not "0.010000".
std::string text_of(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g", value);
  return text.data();
}

}  // namespace

bool parse_number(const std::string& text, std::uint64_t least, std::uint64_t most,
                  std::uint64_t& out) {
  return parse(text, least, most, out);
}

bool parse_size(const std::string& text, Bytes& out) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const int shift = shift_of(text.substr(digits));
  std::uint64_t value = 0;
  if (shift < 0 || !parse_number(text.substr(0, digits), 0, kMostBytes >> shift, value)) {
    return false;
  }
  out = Bytes(value << shift);
  return true;
}

CLI::Option* add_number_for(CLI::App& app, const std::string& name, std::uint64_t least,
                            std::uint64_t most, std::function<void(std::uint64_t)> take,
                            const std::string& help) {
  const std::string from = std::to_string(least);
  const std::string to = std::to_string(most);
  return add_checked(app, name, help, "a whole number from " + from + " to " + to,
                     [least, most, take = std::move(take)](const std::string& text) {
                       std::uint64_t value = 0;
                       if (!parse_number(text, least, most, value)) {
                         return false;
                       }
                       take(value);
                       return true;
                     })
      ->type_name(most == kMostNumber ? "NUMBER" : "NUMBER in [" + from + " - " + to + "]");
}

CLI::Option* add_seconds(CLI::App& app, const std::string& name, double& out, double least,
                         double most, const std::string& help) {
  const std::string from = text_of(least);
  const std::string to = text_of(most);
  return add_checked(
             app, name, help, "a number from " + from + " to " + to,
             [&out, least, most](const std::string& text) { return parse(text, least, most, out); })
      ->type_name("SECONDS in [" + from + " - " + to + "]");
}

CLI::Option* add_size(CLI::App& app, const std::string& name, Bytes& out, const std::string& help) {
  return add_checked(app, name, help, "a size (digits, then K, M, G, T or nothing)",
                     [&out](const std::string& text) { return parse_size(text, out); })
      ->type_name("BYTES");
}

}  // namespace keel::tools

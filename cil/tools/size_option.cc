#include "command.h"

namespace keel::tools {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 62;

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

}  // namespace

bool parse_size(const std::string& text, Bytes& out) {
  std::size_t digits = 0;
  std::uint64_t value = 0;
  for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
    if (value > kMostBytes / 10) {
      return false;
    }
    value = value * 10 + static_cast<std::uint64_t>(text[digits] - '0');
  }
  const int shift = shift_of(text.substr(digits));
  if (digits == 0 || shift < 0 || value > (kMostBytes >> shift)) {
    return false;
  }
  out = Bytes(value << shift);
  return true;
}

CLI::Option* add_size(CLI::App& app, const std::string& name, Bytes& out, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&out, name](const std::string& text) {
            if (!parse_size(text, out)) {
              throw CLI::ValidationError(
                  name, "'" + text + "' is not a size (digits, then K, M, G, T or nothing)");
            }
          },
          help)
      ->type_name("BYTES");
}

}  // namespace keel::tools

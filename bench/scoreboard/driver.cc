#include "scoreboard/driver.h"

#include <nlohmann/json.hpp>

namespace keel::bench {

Result<Figures> run_for_figures(const Command& command) {
  const auto text = run_child(command);
  if (!text) {
    return text.error();
  }
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object()) {
    return Error{Errc::kSystem, 0, "a program printed no JSON", 0};
  }
  Figures figures;
  for (const auto& [name, value] : json.items()) {
    if (value.is_number()) {
      figures[name] = value.get<double>();
    }
  }
  return figures;
}

}  // namespace keel::bench

#include "mem/bench_table.h"

#include <array>
#include <cstdio>

namespace keel::tools {
namespace {

std::string time_of(const Json& row, const char* name) {
  return row.at(name).is_null() ? "-" : duration(row.at(name).get<double>());
}

std::string rate_of(const Json& row) {
  const Json& rate = row.at("rate_per_s");
  return rate.is_null() ? "-" : grouped(static_cast<std::uint64_t>(rate.get<double>()));
}

std::string faults_of(const Json& row) {
  const Json& faults = row.at("faults_per_operation");
  if (faults.is_null()) {
    return "-";
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3g", faults.get<double>());
  return text.data();
}

// What only some rows have.
std::string remark_of(const Json& row) {
  if (row.contains("resident_bytes")) {
    return human(Bytes(row["resident_bytes"].get<std::uint64_t>())) + " for " +
           human(Bytes(row["live_bytes"].get<std::uint64_t>())) + " live";
  }
  if (row.contains("possible")) {
    return row["operations"].dump() + " of " + row["possible"].dump();
  }
  return "";
}

void print_line(const std::array<std::string, 9>& cells, const std::string& remark) {
  std::printf("%-11s %-14s %-7s %12s %9s %9s %9s %9s %8s  %s\n", cells[0].c_str(), cells[1].c_str(),
              cells[2].c_str(), cells[3].c_str(), cells[4].c_str(), cells[5].c_str(),
              cells[6].c_str(), cells[7].c_str(), cells[8].c_str(), remark.c_str());
}

}  // namespace

std::string duration(double ns) {
  static constexpr std::array<const char*, 4> kUnits{"ns", "us", "ms", "s"};
  std::size_t unit = 0;
  // 999.5 would be printed as 1000.
  while (ns >= 999.5 && unit + 1 < kUnits.size()) {
    ns /= 1000;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 || ns >= 99.95 ? "%.0f %s" : "%.1f %s", ns,
                kUnits[unit]);
  return text.data();
}

void print_table_head() {
  print_line({"workload", "case", "source", "per second", "p50", "p99", "p99.9", "max", "faults"},
             "memory");
}

void print_table_rows(const Json& rows) {
  for (const Json& row : rows) {
    print_line(
        {row["workload"], row["case"], row["source"], rate_of(row), time_of(row, "p50_ns"),
         time_of(row, "p99_ns"), time_of(row, "p999_ns"), time_of(row, "max_ns"), faults_of(row)},
        remark_of(row));
  }
}

}  // namespace keel::tools

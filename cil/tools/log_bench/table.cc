#include "log_bench/table.h"

#include <array>
#include <cstdio>
#include <string>

#include "mem/bench_table.h"

namespace keel::tools {
namespace {

std::string time_of(const Json& row, const char* name) {
  return row.at(name).is_null() ? "-" : duration(row.at(name).get<double>() * 1000);
}

std::string count_of(const Json& row, const char* name) {
  return row.at(name).is_null() ? "-"
                                : grouped(static_cast<std::uint64_t>(row.at(name).get<double>()));
}

std::string bytes_of(const Json& row, const char* name) {
  return row.at(name).is_null() ? "-" : human(Bytes(row.at(name).get<std::uint64_t>()));
}

std::string remark_of(const Json& row) {
  std::string text = duration(row["seconds"].get<double>() * 1e9);
  if (row.contains("reopen_ms")) {
    text += ", opened again in " + duration(row["reopen_ms"].get<double>() * 1e6);
  }
  return text;
}

void print_line(const std::array<std::string, 10>& cells, const std::string& remark) {
  std::printf("%-8s %7s %9s %11s %8s %8s %8s %8s %10s %10s  %s\n", cells[0].c_str(),
              cells[1].c_str(), cells[2].c_str(), cells[3].c_str(), cells[4].c_str(),
              cells[5].c_str(), cells[6].c_str(), cells[7].c_str(), cells[8].c_str(),
              cells[9].c_str(), remark.c_str());
}

}  // namespace

void print_log_table_head() {
  print_line({"workload", "threads", "object", "commits/s", "p50", "p99", "p99.9", "max",
              "committed", "log"},
             "time");
}

void print_log_table_row(const Json& row) {
  print_line({row["workload"], row["threads"].dump(), bytes_of(row, "object_bytes"),
              count_of(row, "rate_per_s"), time_of(row, "p50_us"), time_of(row, "p99_us"),
              time_of(row, "p999_us"), time_of(row, "max_us"), bytes_of(row, "payload_bytes"),
              bytes_of(row, "log_bytes")},
             remark_of(row));
}

}  // namespace keel::tools

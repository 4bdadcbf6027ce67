#include "demo/summary.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace keel::tools {
namespace {

struct Totals {
  std::uint64_t transactions = 0, acknowledged = 0, recovered = 0, forces = 0;
  std::uint64_t busy_ns = 0, recovery_ns = 0, torn = 0;
  Bytes committed{}, written{}, recovered_bytes{};
  std::uint64_t contiguous = 0, vmalloc = 0;
  std::uint64_t force_p50_ns = 0, force_p99_ns = 0;
};

std::uint64_t percentile(const std::vector<std::uint64_t>& sorted, std::size_t percent) {
  return sorted.empty() ? 0 : sorted[std::min(sorted.size() * percent / 100, sorted.size() - 1)];
}

Totals totals_of(const Summary& summary) {
  Totals totals;
  std::vector<std::uint64_t> force_ns;
  for (const LifeRow& row : summary.rows) {
    const LifeResult& life = row.result;
    totals.transactions += life.transactions;
    totals.acknowledged += life.acknowledged;
    totals.busy_ns += life.busy_ns;
    totals.committed += life.journal.committed;
    totals.written += life.journal.written;
    totals.contiguous += life.pool.contiguous_allocations;
    totals.vmalloc += life.pool.vmalloc_allocations;
    totals.recovered += row.transactions;
    totals.recovered_bytes += row.report.bytes;
    totals.recovery_ns += row.report.duration_ns;
    totals.torn += row.report.end == LogEnd::kTorn ? 1 : 0;
    force_ns.insert(force_ns.end(), life.force_ns.begin(), life.force_ns.end());
  }
  std::sort(force_ns.begin(), force_ns.end());
  totals.forces = force_ns.size();
  totals.force_p50_ns = percentile(force_ns, 50);
  totals.force_p99_ns = percentile(force_ns, 99);
  return totals;
}

double per_second(std::uint64_t count, std::uint64_t duration_ns) {
  return duration_ns == 0 ? 0 : static_cast<double>(count) * 1e9 / static_cast<double>(duration_ns);
}

double megabytes_per_second(Bytes bytes, std::uint64_t duration_ns) {
  return per_second(bytes.value(), duration_ns) / 1e6;
}

// How much less was written than committed, of 100.
double saved_percent(Bytes committed, Bytes written) {
  return committed == Bytes(0) ? 0
                               : 100 - 100 * static_cast<double>(written.value()) /
                                           static_cast<double>(committed.value());
}

std::string decimal(double value, int digits) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

std::string whole(double value) { return grouped(static_cast<std::uint64_t>(value)); }

std::string milliseconds(std::uint64_t ns) {
  return decimal(static_cast<double>(ns) / 1e6, 2) + " ms";
}

void line(const char* name, const std::string& value) {
  std::printf("  %-14s%s\n", name, value.c_str());
}

void print_rows(const Summary& summary) {
  std::printf("  %-6s%-23s%8s%13s%13s%11s%10s%11s%11s%7s%6s\n", "life", "killed while", "objects",
              "transactions", "acknowledged", "in the log", "commits/s", "committed", "written",
              "saved", "end");
  for (const LifeRow& row : summary.rows) {
    const LifeResult& life = row.result;
    const std::string name = std::to_string(row.round) + "." + std::to_string(row.life);
    std::printf("  %-6s%-23s%8s%13s%13s%11s%10s%11s%11s%6s%%%6s\n", name.c_str(), life.moment,
                grouped(row.objects).c_str(), grouped(life.transactions).c_str(),
                grouped(life.acknowledged).c_str(), grouped(row.transactions).c_str(),
                whole(per_second(life.transactions, life.busy_ns)).c_str(),
                human(life.journal.committed).c_str(), human(life.journal.written).c_str(),
                decimal(saved_percent(life.journal.committed, life.journal.written), 0).c_str(),
                keel::to_string(row.report.end));
  }
}

std::string verdict(const Summary& summary) {
  if (summary.held()) {
    return "nothing lost, nothing in part, a prefix of the commits, every byte as in the files";
  }
  std::uint64_t count = 0;
  for (const LifeRow& row : summary.rows) {
    count += row.findings.count();
  }
  return "BROKEN: " + grouped(count) + " findings, see above";
}

Json to_json(const LifeRow& row) {
  const LifeResult& life = row.result;
  return {{"round", row.round},
          {"life", row.life},
          {"killed_while", life.moment},
          {"objects", row.objects},
          {"transactions", life.transactions},
          {"acknowledged", life.acknowledged},
          {"recovered_transactions", row.transactions},
          {"recovered_by", row.through_journal ? "open" : "scan"},
          {"commits_per_s", per_second(life.transactions, life.busy_ns)},
          {"committed_bytes", life.journal.committed.value()},
          {"coalesced_bytes", life.journal.coalesced.value()},
          {"written_bytes", life.journal.written.value()},
          {"checkpoints", row.report.checkpoints},
          {"recovered_bytes", row.report.bytes.value()},
          {"recovery_ns", row.report.duration_ns},
          {"end", keel::to_string(row.report.end)},
          {"findings", row.findings.texts()}};
}

}  // namespace

bool Summary::held() const {
  return std::all_of(rows.begin(), rows.end(),
                     [](const LifeRow& row) { return row.findings.empty(); });
}

void print_text(const Summary& summary) {
  const Totals totals = totals_of(summary);
  print_rows(summary);
  std::printf("\n");
  line("rounds", std::to_string(summary.rounds) + " logs of " + human(summary.log) + ", " +
                     std::to_string(summary.rows.size()) + " lives and kills, " +
                     decimal(static_cast<double>(summary.duration_ns) / 1e9, 1) + " s");
  line("transactions", grouped(totals.transactions) + " committed, " +
                           grouped(totals.acknowledged) + " acknowledged; " +
                           whole(per_second(totals.transactions, totals.busy_ns)) +
                           " commits/s by " + std::to_string(summary.threads) + " threads");
  line("merging", human(totals.committed) + " committed, " + human(totals.written) +
                      " written: saved " +
                      decimal(saved_percent(totals.committed, totals.written), 1) + " %");
  line("buffers",
       grouped(totals.contiguous) + " contiguous, " + grouped(totals.vmalloc) + " from vmalloc");
  line("force", "p50 " + milliseconds(totals.force_p50_ns) + ", p99 " +
                    milliseconds(totals.force_p99_ns) + " (" + grouped(totals.forces) + " forces)");
  line("recovery", whole(megabytes_per_second(totals.recovered_bytes, totals.recovery_ns)) +
                       " MB/s (" + human(totals.recovered_bytes) + " in all; " +
                       std::to_string(totals.torn) + " of " + std::to_string(summary.rows.size()) +
                       " ends torn by the kill)");
  line("verdict", verdict(summary));
}

Json to_json(const Summary& summary) {
  const Totals totals = totals_of(summary);
  Json rows = Json::array();
  for (const LifeRow& row : summary.rows) {
    rows.push_back(to_json(row));
  }
  return {{"ok", summary.held()},
          {"directory", summary.directory},
          {"seed", summary.seed},
          {"rounds", summary.rounds},
          {"threads", summary.threads},
          {"files", summary.files},
          {"objects", summary.objects},
          {"bytes", summary.bytes.value()},
          {"unreadable", summary.unreadable},
          {"log_bytes", summary.log.value()},
          {"duration_ns", summary.duration_ns},
          {"kills", summary.rows.size()},
          {"torn_ends", totals.torn},
          {"transactions", totals.transactions},
          {"acknowledged", totals.acknowledged},
          {"commits_per_s", per_second(totals.transactions, totals.busy_ns)},
          {"committed_bytes", totals.committed.value()},
          {"written_bytes", totals.written.value()},
          {"saved_percent", saved_percent(totals.committed, totals.written)},
          {"buffers", {{"contiguous", totals.contiguous}, {"vmalloc", totals.vmalloc}}},
          {"force",
           {{"count", totals.forces},
            {"p50_ns", totals.force_p50_ns},
            {"p99_ns", totals.force_p99_ns}}},
          {"recovery_mb_per_s", megabytes_per_second(totals.recovered_bytes, totals.recovery_ns)},
          {"verdict", verdict(summary)},
          {"kept_log", summary.kept_log},
          {"lives", rows}};
}

}  // namespace keel::tools

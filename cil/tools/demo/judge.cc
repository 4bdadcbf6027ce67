#include "demo/judge.h"

#include <algorithm>
#include <cstring>

#include "demo/edit.h"

namespace keel::tools {
namespace {

std::string number(std::uint64_t value) { return std::to_string(value); }

void judge_found(const RecoveredTransaction& found, const RecoveredTransaction& committed,
                 const TransactionName& name, Findings& findings) {
  if (found.life != committed.life) {
    findings.add(to_string(name) + " was found as made in life " + number(found.life));
  }
  if (found.sequence != committed.sequence) {
    findings.add(to_string(name) + " was committed to sequence " +
                 number(committed.sequence.value()) + " and found in " +
                 number(found.sequence.value()));
  }
}

void judge_worker(std::uint32_t worker, const Recovered& recovered, const Ledger& ledger,
                  Findings& findings) {
  const auto& found = recovered.of_worker(worker);
  const auto& committed = ledger.committed[worker];
  if (found.size() < ledger.acknowledged[worker]) {
    findings.add("lost: " + to_string({ledger.life, worker, ledger.acknowledged[worker]}) +
                 " was acknowledged; the last one there is number " + number(found.size()));
  }
  for (std::size_t i = 0; i < std::min(found.size(), committed.size()); ++i) {
    judge_found(found[i], committed[i], {committed[i].life, worker, i + 1}, findings);
  }
  for (std::size_t i = found.size(); i < committed.size(); ++i) {
    if (committed[i].sequence <= recovered.last_sequence()) {
      findings.add("not a prefix: " + to_string({committed[i].life, worker, i + 1}) +
                   " was committed to sequence " + number(committed[i].sequence.value()) +
                   ", which is there without it");
    }
  }
  // A worker notes each commit before its next one: only the very last can be there unknown.
  if (found.size() > committed.size() + 1 ||
      (found.size() > committed.size() && found.back().life != ledger.life)) {
    findings.add("transactions that thread " + number(worker + 1) + " never committed: " +
                 number(found.size()) + " found, " + number(committed.size()) + " known");
  }
}

void judge_object(const RecoveredImage& image, const PlannedObject& planned,
                  const std::vector<std::byte>& file, std::uint32_t object, std::uint64_t seed,
                  Findings& findings) {
  const std::byte* part = file.data() + planned.offset;
  std::vector<std::byte> expected(part, part + planned.size_bytes);
  for (std::uint32_t version = 2; version <= image.trailer.version; ++version) {
    apply_edit(expected, planned.size_bytes, seed, object, version);
  }
  if (expected == image.bytes) {
    return;
  }
  const auto differ =
      std::mismatch(expected.begin(), expected.end(), image.bytes.begin(), image.bytes.end());
  findings.add("object " + number(object_id(object)) + " at version " +
               number(image.trailer.version) + " differs from the file and its edits at byte " +
               number(static_cast<std::uint64_t>(differ.first - expected.begin())) + " (" +
               number(image.bytes.size()) + " bytes, should be " + number(expected.size()) + ")");
}

}  // namespace

void Ledger::settle(const Recovered& recovered) {
  for (std::uint32_t worker = 0; worker < kMostThreads; ++worker) {
    committed[worker] = recovered.of_worker(worker);
    acknowledged[worker] = committed[worker].size();
  }
  acknowledged_sequence = recovered.last_sequence();
}

void judge_transactions(const Recovered& recovered, const RecoveryReport& report,
                        const Ledger& ledger, Findings& findings) {
  findings.add_all(recovered.findings());
  if (report.end == LogEnd::kDamaged) {
    findings.add("the log is damaged: " + report.message());
  }
  if (recovered.last_sequence() < ledger.acknowledged_sequence) {
    findings.add("lost: sequence " + number(ledger.acknowledged_sequence.value()) +
                 " was acknowledged; the last one there is " +
                 number(recovered.last_sequence().value()));
  }
  for (std::uint32_t worker = 0; worker < kMostThreads; ++worker) {
    judge_worker(worker, recovered, ledger, findings);
  }
}

void judge_bytes(const Recovered& recovered, const Plan& plan, std::uint64_t seed,
                 Findings& findings) {
  for (const PlannedFile& file : plan.files) {
    const std::uint32_t end = file.first_object + file.object_count;
    std::vector<std::byte> bytes;
    for (std::uint32_t object = file.first_object; object < end; ++object) {
      const RecoveredImage& image = recovered.images()[object];
      if (image.trailer.version == 0) {
        continue;
      }
      if (bytes.empty()) {
        bytes = read_planned(file);
      }
      judge_object(image, plan.objects[object], bytes, object, seed, findings);
    }
  }
}

}  // namespace keel::tools

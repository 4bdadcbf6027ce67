#include "crash_committer.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "keel/base/check.h"
#include "keel/base/os.h"
#include "support/sim_disk.h"

using namespace keel;

namespace keel_test::crash_lab {

void Committer::Object::set(Version version_now) {
  version = version_now;
  bytes = content_of(version);
  if (is_erasure(version)) {
    item.erase();
  } else {
    item.set(bytes.data(), bytes.size());
  }
}

Committer::Committer(const CrashPlan& plan, LifeRecord& record, std::uint32_t number)
    : plan_(plan), record_(record), random_(record.seed() * 1000 + number) {
  for (std::uint64_t id = number; id < kCrashObjects; id += plan_.threads) {
    mine_.push_back(std::make_unique<Object>(id));
    mine_.back()->version = record_.newest(id).version;
  }
}

void Committer::commit_many(Journal& journal, std::uint32_t transactions) {
  for (std::uint32_t i = 0; i < transactions && !record_.failed(); ++i) {
    const std::uint64_t sequence = commit_one(journal);
    if (sequence == 0) {
      continue;
    }
    if (plan_.mixed_waits) {
      wait_otherwise(journal, sequence);
    }
    const std::uint64_t draw = sim_random(random_) % 16;
    // Half of the time nobody forces: then checkpoints of several records come to be.
    if (draw < 5 ? i / 32 % 2 == 0 || draw == 4 : plan_.often && draw > 8) {
      force(journal, sequence - (draw == 3 ? 1 : 0));
    } else if (draw < 8) {
      release_some(journal, 3);
    } else if (draw == 8 && i > transactions / 4) {
      release_recovered(journal);
    }
  }
  if (plan_.threads > 1 && force_all(journal)) {
    // The others still need the space.
    for (const auto& object : mine_) {
      if (record_.is_committed(object->item.id())) {
        go_home(journal, *object, object->version);
      }
    }
  }
}

void Committer::wait_otherwise(Journal& journal, std::uint64_t sequence) {
  const std::uint64_t draw = sim_random(random_);
  if (draw % 8 == 0) {
    const Status asked = journal.on_stable(Sequence(sequence), [this, sequence](const Status& s) {
      if (plan_.on_callback) {
        plan_.on_callback();
      }
      if (s.ok()) {
        record_.promise(sequence);
      }
      record_.callback_called();
    });
    if (!asked.ok() && !record_.may_fail(Failing::kJournal, asked.error())) {
      record_.was_refused("on_stable", asked.error());
    }
    record_.asked_for_callback(asked.ok());
  } else if (draw % 16 == 1) {
    const Status forced = journal.force(Sequence(sequence), draw / 16 % 400'000);
    if (forced.ok()) {
      record_.promise(sequence);
    } else if (forced.error().code != Errc::kTimeout) {
      (void)record_.succeeded(forced, "force with a timeout");
    }
  } else if (draw / 16 % plan_.pause_one_in == 0) {
    os().sleep_ns(sim_random(random_) % plan_.pause_ns);
  }
}

std::uint64_t Committer::commit_one(Journal& journal) {
  Chosen chosen{};
  const std::size_t bytes = choose(chosen);
  auto transaction = begin(journal, bytes);
  if (!transaction) {
    take_back(chosen);
    return 0;
  }
  for (Object* object : chosen) {
    if (object != nullptr) {
      KEEL_CHECK(transaction->log(object->item).ok(), "log");
    }
  }
  const auto sequence = transaction->commit();
  if (!sequence) {
    if (sequence.error().code != Errc::kNoMemory) {
      (void)record_.succeeded(sequence.error(), "commit");
    } else {
      record_.was_refused("commit", sequence.error());
    }
    take_back(chosen);
    return 0;
  }
  for (Object* object : chosen) {
    if (object != nullptr) {
      record_.committed(object->item.id(), sequence->value(), object->version);
      object->released = false;
    }
  }
  newest_ = sequence->value();
  return newest_;
}

std::size_t Committer::choose(Chosen& chosen) {
  const std::size_t count = 1 + sim_random(random_) % chosen.size();
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Object& object = *mine_[sim_random(random_) % mine_.size()];
    const auto end = chosen.begin() + static_cast<std::ptrdiff_t>(i);
    if (std::find(chosen.begin(), end, &object) != end) {
      continue;
    }
    chosen[i] = &object;
    object.set(record_.new_version());
    bytes += ObjectItem::log_bytes(object.bytes.size());
  }
  return bytes;
}

void Committer::take_back(const Chosen& chosen) {
  for (Object* object : chosen) {
    if (object != nullptr) {
      object->set(record_.newest(object->item.id()).version);
    }
  }
}

std::optional<Transaction> Committer::begin(Journal& journal, std::size_t bytes) {
  for (int attempt = 0;; ++attempt) {
    auto transaction = journal.begin(bytes, 4);
    if (transaction) {
      return std::move(*transaction);
    }
    const Errc code = transaction.error().code;
    if (code == Errc::kNoMemory) {
      record_.was_refused("begin", transaction.error());
      return std::nullopt;
    }
    if (code != Errc::kLogFull || attempt >= 1000) {
      (void)record_.succeeded(transaction.error(), "begin");
      return std::nullopt;
    }
    if (!force_all(journal)) {
      return std::nullopt;
    }
    release_recovered(journal);
    for (const auto& object : mine_) {
      go_home(journal, *object, record_.newest(object->item.id()).version);
    }
  }
}

void Committer::force(Journal& journal, std::uint64_t sequence) {
  if (!record_.succeeded(journal.force(Sequence(sequence)), "force")) {
    return;
  }
  record_.promise(sequence);
  // The tail is held for what was forced, before anybody is told.
  for (const auto& object : mine_) {
    const Change& newest = record_.newest(object->item.id());
    const bool is_logged = record_.is_committed(object->item.id()) && !is_erasure(newest.version);
    KEEL_CHECK(!is_logged || newest.sequence > sequence || object->released ||
                   object->item.tracked() || record_.failed(),
               "an item that was forced holds no tail", newest.sequence, sequence);
  }
}

bool Committer::force_all(Journal& journal) {
  const bool forced = record_.succeeded(journal.force_all(), "force_all");
  if (forced) {
    record_.promise(newest_);
  }
  return forced;
}

void Committer::go_home(Journal& journal, Object& object, Version version) {
  if (object.item.pinned() || object.item.aborted()) {
    return;
  }
  record_.goes_home(object.item.id(), version);
  object.released = true;
  (void)journal.release(object.item);  // or later, if it is just being logged again
}

void Committer::release_some(Journal& journal, int count) {
  for (int i = 0; i < count; ++i) {
    Object& object = *mine_[sim_random(random_) % mine_.size()];
    // An object that this life has not committed may have newer bytes in the log than at home.
    if (record_.is_committed(object.item.id())) {
      go_home(journal, object, object.version);
    }
  }
}

void Committer::release_recovered(Journal& journal) {
  record_.recovered_goes_home();
  journal.release_recovered();
}

}  // namespace keel_test::crash_lab

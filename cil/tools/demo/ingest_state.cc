#include "demo/ingest_state.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "demo/edit.h"
#include "keel/base/os.h"

namespace keel::tools {
namespace {

std::string read_whole(int fd) {
  std::string text;
  std::array<char, 65536> piece{};
  for (;;) {
    const ssize_t got = ::pread(fd, piece.data(), piece.size(), static_cast<off_t>(text.size()));
    if (got < 0 && errno != EINTR) {
      throw Failure("", system_error(errno, "read the plan"));
    }
    if (got == 0) {
      return text;
    }
    text.append(piece.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
}

}  // namespace

void send_message(int fd, const Message& message) {
  ssize_t wrote = 0;
  do {
    wrote = ::write(fd, &message, sizeof message);
  } while (wrote < 0 && errno == EINTR);
  if (wrote != static_cast<ssize_t>(sizeof message)) {
    ::_exit(kWorldFailed);
  }
}

Message failure_message(const Failure& failure) {
  Message message;
  message.kind = MessageKind::kFailed;
  message.exit_code = failure.exit_code();
  std::snprintf(message.text.data(), message.text.size(), "%s", failure.line().c_str());
  return message;
}

IngestState::IngestState(const IngestOptions& ingest)
    : options(ingest),
      plan(decode_plan(read_whole(ingest.plan_fd))),
      notebook(Notebook::attach(ingest.notebook_fd)) {
  for (std::uint32_t object = 0; object < plan.objects.size(); ++object) {
    objects.push_back(std::make_unique<LiveObject>(object));
  }
  open();
}

void IngestState::open() {
  Recovered recovered(objects.size());
  JournalConfig config;
  config.buffered = options.buffered;
  auto opened = Journal::open(options.log, config, [&recovered](const RecoveredCheckpoint& found) {
    recovered.checkpoint(found);
    return Status{};
  });
  require(opened, options.log);
  journal = std::move(*opened);
  if (!recovered.findings().empty()) {
    throw Failure(kCheckFailed, options.log, recovered.findings().texts().front(), "broken");
  }
  Message message;
  message.kind = MessageKind::kOpened;
  for (std::uint32_t worker = 0; worker < kMostThreads; ++worker) {
    message.covered[worker] = recovered.of_worker(worker).size();
  }
  take_over(recovered);
  send(message);
}

void IngestState::take_over(Recovered& recovered) {
  for (std::uint32_t object = 0; object < objects.size(); ++object) {
    RecoveredImage& image = recovered.images()[object];
    if (image.trailer.version == 0) {
      to_ingest_.push_back(object);
      continue;
    }
    objects[object]->bytes = std::move(image.bytes);
    append(objects[object]->bytes, image.trailer);
    objects[object]->version = image.trailer.version;
  }
  notes().left.store(to_ingest_.size(), std::memory_order_relaxed);
  notes().log_used.store(journal->stats().log_used.value(), std::memory_order_relaxed);
}

void IngestState::claim(const std::function<bool(std::uint32_t)>& fits) {
  const std::lock_guard lock(claim_mutex_);
  while (!to_ingest_.empty() && fits(to_ingest_.front())) {
    to_ingest_.pop_front();
  }
  notes().left.store(to_ingest_.size(), std::memory_order_relaxed);
}

void IngestState::send(Message message) const {
  message.journal = journal->stats();
  message.pool = default_pool().stats();
  send_message(options.pipe_fd, message);
}

void IngestState::fail(const Failure& failure) {
  stopping.store(true, std::memory_order_relaxed);
  if (!failed_.exchange(true)) {
    send_message(options.pipe_fd, failure_message(failure));
  }
}

Status IngestState::force_and_acknowledge() {
  Message message;
  message.kind = MessageKind::kForced;
  Sequence target{};
  for (std::uint32_t worker = 0; worker < options.threads; ++worker) {
    const WorkerNotes& noted = notes().workers[worker];
    // Pairs with the release in Worker::note().
    const std::uint64_t count = noted.committed.load(std::memory_order_acquire);
    message.covered[worker] = noted.base + count;
    if (count != 0) {
      target = std::max(target, noted.last_sequence(count));
    }
  }
  if (target == Sequence{}) {
    return {};
  }
  notes().forcing.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t started = os().monotonic_ns();
  const Status status = journal->force(target);
  message.force_ns = os().monotonic_ns() - started;
  notes().forcing.fetch_sub(1, std::memory_order_relaxed);
  if (status.ok()) {
    message.sequence = target.value();
    send(message);
  }
  return status;
}

}  // namespace keel::tools

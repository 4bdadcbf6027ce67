#include "message.h"

#include <array>
#include <atomic>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>

#include "keel/alloc/page_allocator.h"
#include "keel/alloc/pool.h"

namespace keel {
namespace {

void print_to_stderr(const char* line) { std::fprintf(stderr, "keel: %s\n", line); }

// Relaxed everywhere: a function pointer, nothing is published with it.
std::atomic<MessageHook> g_hook{print_to_stderr};

// A line that is cut where it would overflow.
class Line {
 public:
  [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int wanted =
        std::vsnprintf(text_.data() + used_, text_.size() - used_, format, arguments);
    va_end(arguments);
    if (wanted > 0) {
      const std::size_t room = text_.size() - 1 - used_;
      used_ += static_cast<std::size_t>(wanted) < room ? static_cast<std::size_t>(wanted) : room;
    }
  }
  [[nodiscard]] const char* text() const { return text_.data(); }

 private:
  std::array<char, 768> text_{};
  std::size_t used_ = 0;
};

}  // namespace

MessageHook set_message_hook(MessageHook hook) {
  return g_hook.exchange(hook != nullptr ? hook : print_to_stderr, std::memory_order_relaxed);
}

void send_message(const char* line) { g_hook.load(std::memory_order_relaxed)(line); }

void send_memory_report(const MemoryReport& report, const PageAllocator& allocator) {
  const std::uint64_t free_bytes = bytes_of(allocator.counts().free);
  Line line;
  line.add("%s: size %zu, flags 0x%" PRIx32 ", owner '%s'", report.headline, report.size_bytes,
           report.flags, report.owner);
  if (report.limit) {
    line.add(" (holds %" PRIu64 " of %" PRIu64 " allowed)", report.limited.value(),
             report.limit->value());
  }
  line.add(", capacity %" PRIu64 ", populated %" PRIu64 ", free %" PRIu64 "; held by",
           report.capacity.value(), report.populated.value(), free_bytes);
  std::array<Holder, 5> largest;
  const std::size_t count = allocator.holders(largest);
  for (std::size_t i = 0; i < count; ++i) {
    line.add("%s '%s' %" PRIu64, i == 0 ? "" : ",", largest[i].owner, bytes_of(largest[i].pages));
  }
  line.add("%s", count == 0 ? " nobody" : "");
  send_message(line.text());
}

}  // namespace keel

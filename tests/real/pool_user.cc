#include "pool_user.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "faultfs/store.h"
#include "keel/alloc/pool.h"
#include "ledger.h"
#include "self_limit.h"

using namespace keel;

namespace keel_test {
namespace {

struct Buffer {
  char* bytes = nullptr;
  std::size_t size = 0;
  char mark = 0;
};

bool is_whole(const Buffer& buffer) {
  return buffer.bytes == nullptr ||
         (buffer.bytes[0] == buffer.mark && buffer.bytes[buffer.size / 2] == buffer.mark &&
          buffer.bytes[buffer.size - 1] == buffer.mark);
}

}  // namespace

int run_pool_user(const WriterPlan& plan) {
  LedgerFile ledger(plan.ledger);
  if (!plan.late) {
    impose_limit(plan);
  }
  auto pool =
      Pool::create({.capacity_bytes = std::size_t{64} << 20U, .lock_memory = plan.lock_memory});
  if (!pool) {
    (void)std::fprintf(stderr, "pool: %s\n", pool.error().message().c_str());
    return kWriterNotOpened;
  }
  std::vector<Buffer> buffers(400);
  std::uint64_t random = plan.seed;
  if (plan.late) {
    impose_limit(plan);
  }
  for (std::uint32_t n = 0; n < plan.transactions; ++n) {
    Buffer& buffer = buffers[faultfs::random_step(random) % buffers.size()];
    if (!is_whole(buffer)) {
      return 1;
    }
    (*pool)->kvfree(buffer.bytes);
    const std::uint64_t draw = faultfs::random_step(random);
    buffer.size = 1 + draw % (std::size_t{1} << (6U + draw / 64 % 16U));
    buffer.mark = static_cast<char>(draw >> 40U);
    buffer.bytes = static_cast<char*>((*pool)->kvmalloc(buffer.size));
    if (buffer.bytes == nullptr) {
      ++ledger->refused;
      continue;
    }
    std::memset(buffer.bytes, buffer.mark, buffer.size);
  }
  for (Buffer& buffer : buffers) {
    if (!is_whole(buffer)) {
      return 1;
    }
    (*pool)->kvfree(buffer.bytes);
  }
  (*pool)->purge();
  (void)(*pool)->trim();
  (*pool)->audit();
  return 0;
}

}  // namespace keel_test

// The dump of a pool's mapped areas.
//
// The window knows who had an area mapped. Since buffers go from owner to owner without being
// mapped again, the present one stands in the record of the buffer's first frame, which the area's
// cookie names. Between the two looks the buffer may be gone and its frame another's: then the
// table of areas says so, before or after the record was read, and the window's word stands.
#include "keel/alloc/pool_dump.h"

#include <cinttypes>
#include <cstdio>

#include "pool_impl.h"

namespace keel {
namespace {

PoolAreaState state_of(VmapState state) {
  if (state == VmapState::kMapping) {
    return PoolAreaState::kMapping;
  }
  return state == VmapState::kLive ? PoolAreaState::kLive : PoolAreaState::kLazy;
}

}  // namespace

const char* to_string(PoolAreaState state) {
  switch (state) {
    case PoolAreaState::kMapping: return "mapping";
    case PoolAreaState::kLive: return "live";
    case PoolAreaState::kIdle: return "idle";
    case PoolAreaState::kLazy: return "lazy";
  }
  return "unknown";
}

PoolArea Pool::Impl::show(const VmapRange& range) const {
  PoolArea area{.start = range.area.start,
                .size = Bytes(bytes_of(range.area.pages)),
                .pages = range.area.pages,
                .runs = range.runs,
                .owner = range.area.owner,
                .state = state_of(range.state)};
  if (range.state != VmapState::kLive) {
    return area;
  }
  const auto frame = static_cast<std::uint32_t>(range.area.cookie);
  FrameUse expected{};
  if (frame_at(area.start, expected) != frame) {
    return area;  // On its way in or out.
  }
  const FrameRecord& record = records[frame];
  const char* owner = record.owner_name();
  const FrameUse use = record.word().use;
  const bool known = use == FrameUse::kChain || use == FrameUse::kCachedChain;
  if (known && frame_at(area.start, expected) == frame) {
    area.owner = owner;
    area.state = use == FrameUse::kChain ? PoolAreaState::kLive : PoolAreaState::kIdle;
  }
  return area;
}

void Pool::dump(PoolAreaVisitor& visitor) const {
  if (!owned_by_this_process()) {
    return;
  }
  class Shown final : public VmapVisitor {
   public:
    Shown(const Impl& impl, PoolAreaVisitor& to) : impl_(impl), to_(to) {}
    void visit(const VmapRange& range) override { to_.visit(impl_.show(range)); }

   private:
    const Impl& impl_;
    PoolAreaVisitor& to_;
  } shown(*impl_, visitor);
  impl_->window->visit_ranges(shown);
}

std::size_t to_line(const PoolArea& area, std::span<char> out) {
  if (out.empty()) {
    return 0;
  }
  const auto start = reinterpret_cast<std::uintptr_t>(area.start);
  const int length = std::snprintf(
      out.data(), out.size(),
      "0x%016" PRIxPTR "-0x%016" PRIxPTR " %9" PRIu64 " %s pages=%" PRIu64 " runs=%" PRIu64 " %s",
      start, start + area.size.value(), area.size.value(), area.owner[0] != '\0' ? area.owner : "-",
      area.pages.value(), area.runs, to_string(area.state));
  const auto wanted = length > 0 ? static_cast<std::size_t>(length) : 0;
  return wanted < out.size() ? wanted : out.size() - 1;
}

}  // namespace keel

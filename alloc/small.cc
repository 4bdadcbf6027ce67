// Objects below a page: how a pool uses kmalloc (kmalloc.h).
//
// They are kmalloc's as long as it has slabs for them; else, or where that would mean a system call
// that the caller forbids, a small request takes a page like any other. Slabs come from the free
// lists alone and fail fast; the pool's thread keeps those filled.
#include <algorithm>
#include <cstring>

#include "keel/base/check.h"
#include "poison.h"
#include "pool_impl.h"

namespace keel {
namespace {

// Beside the owner's id in an object's tag: its bytes are charged to a limit.
constexpr std::uint16_t kCharged = 1U << 14;
static_assert(kCharged > OwnerIds::kMost && (kCharged | (OwnerIds::kMost - 1)) <= kMaxKmallocTag);

}  // namespace

void* Pool::Impl::SlabSource::allocate(Pages wanted) {
  const std::optional<Pfn> frame = impl.pages->allocate(wanted, kSlabOwner);
  if (!frame) {
    return nullptr;
  }
  impl.pages->record(*frame).set(
      {.use = FrameUse::kSlab, .pages = static_cast<std::uint32_t>(wanted.value())});
  std::byte* slab = impl.store->address_of(*frame);
  unpoison_range(slab, bytes_of(wanted));
  return slab;
}

void Pool::Impl::SlabSource::free(void* run, Pages held) {
  std::array<Pfn, 1> one{impl.store->pfn_of(run)};
  poison_range(run, bytes_of(held));
  KEEL_CHECK(impl.pages->free_batch(one) == 0, "free of what is no slab", one[0].value());
  impl.note_freed();
}

Status Pool::Impl::open_small() {
  auto made = Kmalloc::create(
      {.base = store->address_of(Pfn(0)),
       .capacity = store->capacity(),
       .source = &slab_source,
       .backend = config.system_malloc ? KmallocBackend::kSystem : KmallocBackend::kSlabs});
  if (!made) {
    return made.error();
  }
  small = std::move(*made);
  return {};
}

// nullptr if the request has to take a page.
void* Pool::Impl::allocate_small(std::size_t size_bytes, AllocFlags flags, const char* owner) {
  if (has(flags, AllocFlags::kNoWait) || hardened.on() || NoAllocScope::active() ||
      !store->owned_by_this_process()) [[unlikely]] {
    return nullptr;
  }
  owner = owner != nullptr ? owner : "";  // As allocate_slowly() is told.
  const std::uint16_t id = owners.of(owner);
  const unsigned limit = tags.find(owner);
  const bool limited = limit != TagLimits::kUnlimited;
  if (limited && id == OwnerIds::kOthers) {
    return nullptr;  // When it is freed nothing would lead back to its limit; a page's record does.
  }
  // Charged first, so that nothing is taken that is not kept: others might miss it.
  if (limited && !tags.charge(limit, small->object_bytes(size_bytes))) {
    return nullptr;  // The page that the caller tries next is refused as well, since it is larger.
  }
  void* object = small->allocate(size_bytes, limited ? id | kCharged : id);
  if (object == nullptr) {
    if (limited) {
      tags.uncharge(limit, small->object_bytes(size_bytes));
    }
    keeper->note_low();
    return nullptr;
  }
  if (has(flags, AllocFlags::kZero)) {
    // All of it: kvrealloc() takes what lies behind the size asked for along.
    std::memset(object, 0, small->size(object));
  }
  return object;
}

// False if `address` is no live object of kmalloc's; then nothing has changed.
bool Pool::Impl::free_small(void* address) {
  const KmallocObject object = small->free(address);
  if (object.outcome != KmallocOutcome::kOk) {
    return false;
  }
  if ((object.tag & kCharged) != 0) {
    const unsigned limit = tags.find(owners.name(object.tag & ~kCharged & 0xffff));
    if (limit != TagLimits::kUnlimited) {
      tags.uncharge(limit, object.bytes.value());
    }
  }
  note_freed();  // Its slab may be empty now, which only the next pass finds out.
  return true;
}

// In place if the new size has the same class, which is all that is known of an object: so it is
// aligned as its size wants it, and freed with it. What a larger one is asked for beyond is not
// zeroed by kZero but in a new object.
void* Pool::Impl::reallocate_small(Pool& pool, void* address, std::size_t held,
                                   const Request& request) {
  if (small->may_hold(held, request.size_bytes) && request.size_bytes > held / 2 &&
      is_within_limit(request.size_bytes) && !has(request.flags, AllocFlags::kZero)) {
    return address;
  }
  void* moved = pool.kvmalloc(request.size_bytes, request.flags, request.owner);
  if (moved != nullptr) {
    std::memcpy(moved, address, std::min(held, request.size_bytes));
    (void)free_small(address);
  }
  return moved;
}

void Pool::Impl::report_wrong_small(const void* address, const char* call) const {
  const KmallocObject object = small->find(address);
  Bug bug = Bug::kUnknownAddress;
  if (object.outcome == KmallocOutcome::kInterior) {
    bug = Bug::kInteriorPointer;
  } else if (object.outcome == KmallocOutcome::kDouble) {
    bug = Bug::kDoubleFree;
  }
  const bool known = object.outcome != KmallocOutcome::kUnknown;
  report_bug({.bug = bug,
              .call = call,
              .address = reinterpret_cast<std::uintptr_t>(address),
              .area_start = reinterpret_cast<std::uintptr_t>(object.start),
              .area_bytes = object.bytes.value(),
              .owner = known ? owners.name(object.tag & (kCharged - 1)) : ""});
}

void Pool::Impl::add_small_holders(std::span<OwnerBytes> all, std::size_t& count) const {
  std::array<std::uint64_t, OwnerIds::kMost> sums{};
  small->sum_live(sums, kCharged);
  const auto entry_of = [&](const char* owner) -> OwnerBytes* {
    for (std::size_t i = 0; i < count; ++i) {
      if (std::strcmp(all[i].owner, owner) == 0) {
        return &all[i];
      }
    }
    return nullptr;
  };
  for (std::uint16_t id = 0; id < sums.size(); ++id) {
    if (sums[id] == 0) {
      continue;
    }
    OwnerBytes* entry = entry_of(owners.name(id));
    if (entry == nullptr) {
      KEEL_ASSERT(count < all.size(), "more owners than there is room for", count);
      entry = &all[count++];
      *entry = {owners.name(id), Bytes(0)};
    }
    entry->held += Bytes(sums[id]);
    if (OwnerBytes* slabs = entry_of(kSlabOwner)) {
      slabs->held -= std::min(slabs->held, Bytes(sums[id]));
    }
  }
}

}  // namespace keel

#include "slab_arenas.h"

#include <sys/types.h>

#include <cstdio>

#include "keel/base/check.h"
#include "keel/base/thread_scheduler.h"

// What would break the contract of kmalloc, if it stood in the environment's MALLOC_CONF: sampled
// and guarded objects are whole pages, a filled one would be written to after its free, and slabs
// may be longer than the table knows or of more lengths than there are arenas.
// One arena for what jemalloc keeps of its own: with more it makes one for a thread when that first
// comes, and follows a null pointer (5.3) if there is no mapping to be had for it.
// Weak: libkeel-malloc.so, whose objects are in those arenas, has options of its own.
extern "C" {
[[gnu::weak]] extern const char keel_je_overruling[];
const char keel_je_overruling[] = KEEL_JE_CONTRACT_OPTIONS ",narenas:1";
}
const char* keel_je_malloc_conf_2_conf_harder = keel_je_overruling;

namespace keel {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr ssize_t kNever = -1;

template <class T>
int read_control(const char* name, T& value) {
  std::size_t bytes = sizeof value;
  return keel_je_mallctl(name, &value, &bytes, nullptr, 0);
}

template <class T>
int write_control(const char* name, T value) {
  return keel_je_mallctl(name, nullptr, nullptr, &value, sizeof value);
}

// "arena.<index>.<leaf>", also for bins.
class ControlName {
 public:
  ControlName(const char* branch, unsigned index, const char* leaf) {
    (void)std::snprintf(text_, sizeof text_, "%s.%u.%s", branch, index, leaf);
  }
  operator const char*() const { return text_; }  // NOLINT(*-explicit-*)

 private:
  char text_[64];
};

Error control_error(int error, const char* what) { return {Errc::kNoMemory, error, what, 0}; }

// Both for one writer at a time (a claimed CPU), and for many.
void add_alone(std::atomic<std::uint64_t>& counter, std::uint64_t by) {
  counter.store(counter.load(kRelaxed) + by, kRelaxed);
}
void add_shared(std::atomic<std::uint64_t>& counter, std::uint64_t by) {
  counter.fetch_add(by, kRelaxed);
}

}  // namespace

// The current CPU's slot, for as long as this lives; none if another thread has it.
class SlabArenas::Claim {
 public:
  explicit Claim(Cpu& cpu) : cpu_(&cpu) {
    // Acquire pairs with the release below: the tcache passes from thread to thread.
    if (cpu.claimed.exchange(true, std::memory_order_acquire)) {
      cpu_ = nullptr;
    }
  }
  ~Claim() {
    if (cpu_ != nullptr) {
      cpu_->claimed.store(false, std::memory_order_release);
    }
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  explicit operator bool() const { return cpu_ != nullptr; }
  [[nodiscard]] Cpu& operator*() const { return *cpu_; }
  [[nodiscard]] Cpu* operator->() const { return cpu_; }

 private:
  Cpu* cpu_;
};

// Birth and death ---------------------------------------------------------------------------------

Status SlabArenas::open(ExtentSource& source, SlabTable& table) {
  const SerialScope in_jemalloc;
  source_ = &source;
  table_ = &table;
  // No hook to commit, purge, split or merge: each is "cannot".
  hooks_.table = {hook_alloc, hook_dalloc, hook_destroy, nullptr, nullptr,
                  nullptr,    nullptr,     nullptr,      nullptr};
  hooks_.self = this;
  if (!cpus_.emplace().ok()) {
    return Error{Errc::kNoMemory, 0, "per-CPU caches of kmalloc"};
  }
  return open_classes();
}

// jemalloc's bins up to a page, from 16 bytes: so every object begins at a mark, and those of a
// power of two at a multiple of their size, as slabs begin at pages.
Status SlabArenas::open_classes() {
  unsigned bins = 0;
  if (const int error = read_control("arenas.nbins", bins)) {
    return control_error(error, "reading jemalloc's bins");
  }
  std::size_t classes = 0;
  std::size_t slots = 0;  // sizes below this many slots have their class
  for (unsigned bin = 0; bin < bins && slots < class_of_.size(); ++bin) {
    std::size_t bytes = 0;
    std::size_t slab_bytes = 0;
    if (read_control(ControlName("arenas.bin", bin, "size"), bytes) != 0 ||
        read_control(ControlName("arenas.bin", bin, "slab_size"), slab_bytes) != 0) {
      return control_error(0, "reading a bin of jemalloc");
    }
    if (bytes % SlabTable::kSlotBytes != 0 || bytes > kPageBytes) {
      continue;
    }
    const Result<unsigned> arena = arena_for(slab_bytes);
    if (!arena) {
      return arena.error();
    }
    KEEL_CHECK(classes < kMaxClasses, "more size classes than expected", bytes);
    classes_[classes] = {static_cast<std::uint16_t>(bytes), je::in_arena(*arena)};
    for (; slots < class_of_.size() && slots * SlabTable::kSlotBytes <= bytes; ++slots) {
      class_of_[slots] = static_cast<std::uint8_t>(classes);
    }
    ++classes;
  }
  KEEL_CHECK(slots == class_of_.size(), "jemalloc has no bins up to a page", slots);
  return {};
}

Result<unsigned> SlabArenas::arena_for(std::size_t slab_bytes) {
  for (Arena& arena : arenas_) {
    if (arena.slab_bytes == slab_bytes) {
      return arena.index;
    }
    if (arena.index == kNone) {
      const Result<unsigned> created = create_arena();
      if (created) {
        arena = {slab_bytes, *created};
      }
      return created;
    }
  }
  return control_error(0, "more lengths of slabs than expected");
}

Result<unsigned> SlabArenas::create_arena() {
  keel_je_arena_config config{&hooks_.table, false};
  unsigned index = kNone;
  std::size_t bytes = sizeof index;
  if (const int error = keel_je_mallctl("experimental.arenas_create_ext", &index, &bytes, &config,
                                        sizeof config)) {
    return control_error(error, "creating an arena of jemalloc");
  }
  // Empty slabs wait for release(), for no caller's clock. Clean ones are not kept apart.
  (void)write_control(ControlName("arena", index, "dirty_decay_ms"), kNever);
  (void)write_control(ControlName("arena", index, "muzzy_decay_ms"), ssize_t{0});
  return index;
}

SlabArenas::~SlabArenas() {
  const SerialScope in_jemalloc;
  if (!cpus_ || !cpus_->ok()) {
    return;
  }
  for (unsigned i = 0; i < PerCpu<Cpu>::size(); ++i) {
    if (cpus_->of(i).tcache != kNone) {
      (void)write_control("tcache.destroy", cpus_->of(i).tcache);
    }
  }
  for (const Arena& arena : arenas_) {
    if (arena.index != kNone) {
      const int error = keel_je_mallctl(ControlName("arena", arena.index, "destroy"), nullptr,
                                        nullptr, nullptr, 0);
      KEEL_CHECK(error == 0, "destroying an arena of jemalloc", static_cast<unsigned>(error));
    }
  }
}

// Objects -----------------------------------------------------------------------------------------

// Made at first use: a machine may have many more CPUs than ever run this process.
int SlabArenas::tcache_flag(Cpu& cpu) {
  if (cpu.tcache == kNone) [[unlikely]] {
    if (cpu.tcache_refused || read_control("tcache.create", cpu.tcache) != 0) {
      cpu.tcache_refused = true;
      cpu.tcache = kNone;
      return je::kNoTcache;
    }
  }
  return je::with_tcache(cpu.tcache);
}

void* SlabArenas::allocate(std::size_t size) {
  const SerialScope in_jemalloc;
  const Class& of = class_for(size);
  if (const Claim cpu(cpus_->local()); cpu) [[likely]] {
    void* object = keel_je_mallocx(of.bytes, of.arena_flag | tcache_flag(*cpu));
    if (object != nullptr) [[likely]] {
      add_alone(cpu->counters.allocations, 1);
      add_alone(cpu->counters.allocated_bytes, of.bytes);
    }
    return object;
  }
  add_shared(bypasses_, 1);
  void* object = keel_je_mallocx(of.bytes, of.arena_flag | je::kNoTcache);
  if (object != nullptr) {
    add_shared(shared_.allocations, 1);
    add_shared(shared_.allocated_bytes, of.bytes);
  }
  return object;
}

void SlabArenas::free(void* object, std::size_t bytes) {
  const SerialScope in_jemalloc;
  if (const Claim cpu(cpus_->local()); cpu) [[likely]] {
    keel_je_sdallocx(object, bytes, tcache_flag(*cpu));
    add_alone(cpu->counters.frees, 1);
    add_alone(cpu->counters.freed_bytes, bytes);
    return;
  }
  add_shared(bypasses_, 1);
  keel_je_sdallocx(object, bytes, je::kNoTcache);
  add_shared(shared_.frees, 1);
  add_shared(shared_.freed_bytes, bytes);
}

Bytes SlabArenas::release() {
  const SerialScope in_jemalloc;
  const std::uint64_t before = given_pages_.load(kRelaxed);
  for (unsigned i = 0; i < PerCpu<Cpu>::size(); ++i) {
    if (const Claim cpu(cpus_->of(i)); cpu && cpu->tcache != kNone) {
      (void)write_control("tcache.flush", cpu->tcache);
    }
  }
  for (const Arena& arena : arenas_) {
    if (arena.index != kNone) {
      (void)keel_je_mallctl(ControlName("arena", arena.index, "purge"), nullptr, nullptr, nullptr,
                            0);
    }
  }
  return Bytes(bytes_of(Pages(given_pages_.load(kRelaxed) - before)));
}

SlabArenas::Counts SlabArenas::counts() const {
  Counts sum;
  const auto add = [&sum](const Counters& counters) {
    sum.allocations += counters.allocations.load(kRelaxed);
    sum.frees += counters.frees.load(kRelaxed);
    sum.allocated += Bytes(counters.allocated_bytes.load(kRelaxed));
    sum.freed += Bytes(counters.freed_bytes.load(kRelaxed));
  };
  for (unsigned i = 0; i < PerCpu<Cpu>::size(); ++i) {
    add(cpus_->of(i).counters);
  }
  add(shared_);
  sum.bypasses = bypasses_.load(kRelaxed);
  return sum;
}

Pages SlabArenas::held() const {
  // Given first: a slab that goes back between the two reads must not make the rest negative.
  const std::uint64_t given = given_pages_.load(kRelaxed);
  return Pages(taken_pages_.load(kRelaxed) - given);
}

// Hooks -------------------------------------------------------------------------------------------

void* SlabArenas::take_slab(std::size_t bytes, std::size_t alignment) {
  bool wanted = false;
  for (const Arena& arena : arenas_) {
    wanted = wanted || arena.slab_bytes == bytes;
  }
  if (!wanted || alignment > kPageBytes) {
    return nullptr;  // growth in advance (I3)
  }
  const Pages pages = pages_for(bytes);
  void* slab = source_->allocate(pages);
  if (slab == nullptr) {
    add_shared(refusals_, 1);
    return nullptr;
  }
  table_->add(slab, pages);
  add_shared(taken_pages_, pages.value());
  const std::uint64_t now = held().value();
  std::uint64_t most = most_pages_.load(kRelaxed);
  while (most < now && !most_pages_.compare_exchange_weak(most, now, kRelaxed)) {
  }
  return slab;
}

void SlabArenas::give_slab(void* slab, std::size_t bytes) {
  const Pages pages = pages_for(bytes);
  table_->remove(slab, pages);
  add_shared(given_pages_, pages.value());
  source_->free(slab, pages);
}

void* SlabArenas::hook_alloc(keel_je_extent_hooks* hooks, void* new_address, std::size_t size,
                             std::size_t alignment, bool* zero, bool* commit, unsigned /*arena*/) {
  if (new_address != nullptr || *zero) {
    return nullptr;  // asked for by large allocations only, of which there are none
  }
  void* slab = reinterpret_cast<Hooks*>(hooks)->self->take_slab(size, alignment);
  *commit = slab != nullptr;
  return slab;
}

bool SlabArenas::hook_dalloc(keel_je_extent_hooks* hooks, void* address, std::size_t size,
                             bool /*committed*/, unsigned /*arena*/) {
  reinterpret_cast<Hooks*>(hooks)->self->give_slab(address, size);
  return false;  // done
}

void SlabArenas::hook_destroy(keel_je_extent_hooks* hooks, void* address, std::size_t size,
                              bool /*committed*/, unsigned /*arena*/) {
  reinterpret_cast<Hooks*>(hooks)->self->give_slab(address, size);
}

}  // namespace keel

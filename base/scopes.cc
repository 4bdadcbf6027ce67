#include "keel/base/scopes.h"

#include "keel/base/check.h"

namespace keel {
namespace {
thread_local unsigned t_no_reclaim = 0;
thread_local unsigned t_no_alloc = 0;
}  // namespace

NoReclaimScope::NoReclaimScope() { ++t_no_reclaim; }
NoReclaimScope::NoReclaimScope(NoReclaimScope&& other) noexcept : owned_(other.owned_) {
  other.owned_ = false;
}
NoReclaimScope::~NoReclaimScope() { t_no_reclaim -= owned_ ? 1U : 0U; }
bool NoReclaimScope::active() { return t_no_reclaim != 0; }

NoAllocScope::NoAllocScope() { ++t_no_alloc; }
NoAllocScope::~NoAllocScope() { --t_no_alloc; }
bool NoAllocScope::active() { return t_no_alloc != 0; }

bool check_allocation_allowed(const char* call) {
  if (t_no_alloc != 0) [[unlikely]] {
    report_bug({.bug = Bug::kAllocationInNoAllocScope, .call = call});
    return false;
  }
  return true;
}

}  // namespace keel

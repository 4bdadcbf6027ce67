#include "keel/base/scopes.h"

#include "keel/base/check.h"

namespace keel {

constinit thread_local unsigned detail::t_no_reclaim_scopes = 0;
constinit thread_local unsigned detail::t_no_alloc_scopes = 0;

NoReclaimScope::NoReclaimScope() { ++detail::t_no_reclaim_scopes; }
NoReclaimScope::NoReclaimScope(NoReclaimScope&& other) noexcept : owned_(other.owned_) {
  other.owned_ = false;
}
NoReclaimScope::~NoReclaimScope() { detail::t_no_reclaim_scopes -= owned_ ? 1U : 0U; }

NoAllocScope::NoAllocScope() { ++detail::t_no_alloc_scopes; }
NoAllocScope::~NoAllocScope() { --detail::t_no_alloc_scopes; }

bool check_allocation_allowed(const char* call) {
  if (detail::t_no_alloc_scopes != 0) [[unlikely]] {
    report_bug({.bug = Bug::kAllocationInNoAllocScope, .call = call});
    return false;
  }
  return true;
}

}  // namespace keel

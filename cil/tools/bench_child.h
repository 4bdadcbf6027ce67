// Runs a workload in a child process and fetches its rows.
//
// A signal that an Interrupt notes asks the child to stop early: it gives what it has by then. A
// child that does not come to an end for some seconds after that is killed; so is one whose parent
// dies.
#pragma once

#include <functional>
#include <string>

#include "output.h"

namespace keel::tools {

struct ChildOutcome {
  Json rows = Json::array();
  std::string failure;  // empty: it ran
  Json error;           // then null; else "code", "message" and perhaps "path", as Failure has them
};

// `work` runs in the child, which has no other thread; `tick` here, ten times a second.
// `name` stands before what the child says when it fails. Throws Failure if there can be no child.
[[nodiscard]] ChildOutcome run_in_child(const char* name, const std::function<Json()>& work,
                                        const std::function<void()>& tick);

}  // namespace keel::tools

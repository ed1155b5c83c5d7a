#pragma once

#include "values.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

namespace gmml {

// An operator of PyTorch's dispatcher with its schema worked out once, so that a call looks nothing up by name.
struct CompiledOperator {
  c10::OperatorHandle handle;
  std::string name;
  std::vector<ArgumentPlan> arguments;
  // For each result the index of the argument that it is (in-place and out= operators), or -1 for a new value.
  std::vector<int> aliases;
};

}  // namespace gmml

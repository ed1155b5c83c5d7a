#pragma once

#include "values.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <string>
#include <vector>

namespace gmml {

class DirectCall;

// An operator of PyTorch's dispatcher with its schema worked out once, so that a call looks nothing up by name.
struct CompiledOperator {
  c10::OperatorHandle handle;
  std::string name;
  std::vector<ArgumentPlan> arguments;
  std::vector<ResultPlan> results;
  std::shared_ptr<const DirectCall> direct;  // the quicker way of a call, where there is one
};

}  // namespace gmml

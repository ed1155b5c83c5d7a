#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace gmml {

// The rules of torch.autograd for the gradients of outputs (none: left to libtorch), which libtorch's C++ side leaves out: it would take
// any gradient that can be broadcast. Throws ValueError.
void checkGradients(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& gradients);

}  // namespace gmml

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

// CUDA kernels that are compiled for the device at hand when they are first used, by the NVRTC that is part of every CUDA build of libtorch.
namespace gmml {

struct Kernel {
  std::string name;                                           // an extern "C" function of the source
  std::vector<std::pair<std::string, std::string>> defines;  // macros that it is compiled with, beside KERNEL_<name>
};

struct Grid {
  std::array<unsigned, 2> blocks;
  std::array<unsigned, 3> threads;
};

// Multiprocessors of the device of a CUDA tensor.
int multiprocessors(const at::Tensor& tensor);

// Puts the kernel on the current stream of the tensor's device. The first call with such a kernel compiles it, which takes a part of a
// second and must not happen while a CUDA graph is captured.
void launchKernel(const at::Tensor& tensor, const char* source, const Kernel& kernel, const Grid& grid, void** arguments);

}  // namespace gmml

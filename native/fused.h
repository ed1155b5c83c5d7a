#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

// What a device has to have for the fused operators: fused.cc checks the arguments and knows the derivatives, fused_cpu.cc and
// fused_cuda.cc compute. All tensors are contiguous and of one device, their shapes and dtypes fit, and no graph is made. 16-bit numbers are read as float32,
// which is also what sums are made in; float64 stays float64 (on the CPU).
namespace gmml::fused {

using OptionalTensor = std::optional<at::Tensor>;

// x and branch [..., D], scale one number for each element of the first dimension: sum = x + scale * branch, of x's dtype, then its layer
// norm in `dtype`. Returns sum, normalised, and mean and 1 / deviation of each row.
using AddLayerNorm = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
    const at::Tensor& x, const at::Tensor& branch, const OptionalTensor& scale, const at::Tensor& weight, const at::Tensor& bias, double eps,
    at::ScalarType dtype);

// The gradients of x, branch, weight and bias. That of branch is undefined where it is x's: no scale, and one dtype.
using AddLayerNormBackward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
    const OptionalTensor& ofSum, const at::Tensor& ofNormalised, const at::Tensor& sum, const at::Tensor& mean, const at::Tensor& rstd,
    const OptionalTensor& scale, const at::Tensor& weight, at::ScalarType branchDtype);

// x [..., D], bias [D].
using BiasGelu = at::Tensor(const at::Tensor& x, const at::Tensor& bias);
using BiasGeluBackward = std::tuple<at::Tensor, at::Tensor>(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& bias);

// prediction [B, N, C p p], clean [B, C, H, W], mask [B, 1, H, W] or none. Returns the mean, and 1 / the number of elements in it.
using MaskedL1 = std::tuple<at::Tensor, at::Tensor>(const at::Tensor& prediction, const at::Tensor& clean, const OptionalTensor& mask,
                                                    int64_t patchSize);
using MaskedL1Backward = at::Tensor(const at::Tensor& gradient, const at::Tensor& scale, const at::Tensor& prediction,
                                    const at::Tensor& clean, const OptionalTensor& mask, int64_t patchSize);

struct Kernels {
  AddLayerNorm* addLayerNorm;
  AddLayerNormBackward* addLayerNormBackward;
  BiasGelu* biasGelu;
  BiasGeluBackward* biasGeluBackward;
  MaskedL1* maskedL1;
  MaskedL1Backward* maskedL1Backward;
};

BiasGelu biasGeluCpu;
BiasGeluBackward biasGeluBackwardCpu;
MaskedL1 maskedL1Cpu;
MaskedL1Backward maskedL1BackwardCpu;

extern const Kernels cpuKernels, cudaKernels;

// Those of a tensor's device.
const Kernels& kernelsOf(const at::Tensor& tensor);

// What sums over numbers of this dtype are made in.
inline at::ScalarType sumDtype(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

}  // namespace gmml::fused

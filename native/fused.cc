// Operators that do in one pass what ATen does in several: residual + layer norm, bias + GELU, and the masked L1 of predicted patches.
// Here the arguments are checked, dtypes settled and nodes of the graph made; what computes is not an operator of its own, since every
// operator can be called from JavaScript with anything.
#include "fused.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/ones_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <sstream>

namespace gmml::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::string text(const at::Tensor& tensor) {
  std::ostringstream out;
  out << at::toString(tensor.scalar_type()) << " " << tensor.sizes() << " " << tensor.device();
  return out.str();
}

void require(bool condition, const char* what, const char* name, const at::Tensor& tensor) {
  if (condition) return;
  TORCH_CHECK_VALUE(false, "expected ", what, " for ", name, ", received ", tensor.defined() ? text(tensor) : "no tensor");
}

bool isFloating(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: case at::kDouble: case at::kBFloat16: case at::kHalf: return true;
    default: return false;
  }
}

// A dense tensor of numbers that the kernels can read, on the device of `beside`.
void requireNumbers(const at::Tensor& tensor, const char* name, const at::Tensor& beside) {
  require(tensor.defined() && tensor.layout() == at::kStrided && (tensor.is_cpu() || tensor.is_cuda()), "a dense tensor on cpu or cuda", name, tensor);
  require(isFloating(tensor), "float32, float64, bfloat16 or float16", name, tensor);
  require(tensor.device() == beside.device(), "the device of the first argument", name, tensor);
  require(tensor.is_cpu() || tensor.scalar_type() != at::kDouble, "no float64 on cuda", name, tensor);
}

void requireRow(const at::Tensor& tensor, const char* name, const at::Tensor& x) {
  requireNumbers(tensor, name, x);
  require(tensor.dim() == 1 && tensor.size(0) == x.size(-1), "as many elements as the rows have", name, tensor);
}

// Autocast has been taken account of when this is in force: what follows is computed as it stands.
using WithoutAutocast = c10::impl::ExcludeDispatchKeyGuard;
const c10::DispatchKeySet kAutocast = c10::autocast_dispatch_keyset;

OptionalTensor optional(const at::Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

// Gradients of an absent tensor, and of one that needs none, are undefined.
at::Tensor times(const at::Tensor& gradient, const OptionalTensor& scale) { return scale ? gradient * *scale : gradient; }

struct AddLayerNormNode : torch::autograd::Function<AddLayerNormNode> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                               const at::Tensor& bias, double eps, const OptionalTensor& scale, at::ScalarType dtype) {
    auto [sum, normalised, mean, rstd] = kernelsOf(x).addLayerNorm(x, branch, scale, weight, bias, eps, dtype);
    context->set_materialize_grads(false);
    context->save_for_backward({sum, mean, rstd, weight, bias, scale.value_or(at::Tensor())});
    context->saved_data["branch"] = branch.scalar_type();
    return {sum, normalised};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &sum = saved[0], &mean = saved[1], &rstd = saved[2], &weight = saved[3], &bias = saved[4];
    const auto scale = optional(saved[5]);
    const auto branchDtype = context->saved_data["branch"].toScalarType();
    at::Tensor ofX, ofBranch, ofWeight, ofBias;
    if (!gradients[1].defined()) {
      ofX = gradients[0];
    } else if (c10::GradMode::is_enabled()) {
      // The gradient is to be differentiated itself: ATen's operators, which can be.
      const auto precise = sumDtype(at::promote_types(sum.scalar_type(), weight.scalar_type()));
      std::tie(ofX, ofWeight, ofBias) = at::native_layer_norm_backward(
          gradients[1].to(precise), sum.to(precise), {sum.size(-1)}, mean.to(precise), rstd.to(precise),
          weight.to(precise), bias.to(precise), {true, true, true});
      ofX = ofX.to(sum.scalar_type());
      if (gradients[0].defined()) ofX = ofX + gradients[0];
    } else {
      const auto ofSum = gradients[0].defined() ? OptionalTensor(gradients[0].contiguous()) : std::nullopt;
      std::tie(ofX, ofBranch, ofWeight, ofBias) =
          kernelsOf(sum).addLayerNormBackward(ofSum, gradients[1].contiguous(), sum, mean, rstd, scale, weight, branchDtype);
    }
    if (!ofBranch.defined() && ofX.defined()) ofBranch = times(ofX, scale).to(branchDtype);
    const auto ofWeightAs = ofWeight.defined() ? ofWeight.to(weight.scalar_type()) : ofWeight;
    const auto ofBiasAs = ofBias.defined() ? ofBias.to(bias.scalar_type()) : ofBias;
    return {ofX, ofBranch, ofWeightAs, ofBiasAs, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor> addLayerNorm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                                                const at::Tensor& bias, double eps, const OptionalTensor& scale,
                                                std::optional<at::ScalarType> dtype) {
  requireNumbers(x, "x", x);
  require(x.dim() > 0 && x.size(-1) > 0, "at least one dimension, the last not empty,", "x", x);
  requireNumbers(branch, "branch", x);
  require(branch.sizes() == x.sizes(), "the shape of x", "branch", branch);
  requireRow(weight, "weight", x);
  requireRow(bias, "bias", x);
  const auto sumType = at::promote_types(x.scalar_type(), branch.scalar_type());
  OptionalTensor factors;
  if (scale) {
    requireNumbers(*scale, "scale", x);
    require(x.dim() > 1 && scale->dim() == x.dim() && scale->size(0) == x.size(0) && scale->numel() == x.size(0),
            "a number for each element of the first dimension, the other dimensions 1,", "scale", *scale);
    require(!scale->requires_grad(), "a tensor that needs no gradient", "scale", *scale);
  }
  // On CUDA torch.autocast has layer_norm in float32, whatever the sum is in.
  const bool autocast = x.is_cuda() && at::autocast::is_autocast_enabled(at::kCUDA);
  const auto own = autocast ? at::promote_types(sumType, at::kFloat) : sumType;
  const auto result = dtype.value_or(own);
  TORCH_CHECK_VALUE(result == own || (own == at::kFloat && (result == at::kBFloat16 || result == at::kHalf)), "expected ",
                    at::toString(own), own == at::kFloat ? " or a 16-bit floating-point dtype" : "", " for dtype, received ",
                    at::toString(result));
  const WithoutAutocast guard(kAutocast);
  if (scale) factors = scale->to(branch.scalar_type()).contiguous();
  // One dtype for both vectors: what a kernel is compiled for.
  const auto& shift = bias.scalar_type() == weight.scalar_type() ? bias : bias.to(weight.scalar_type());
  const auto results = AddLayerNormNode::apply(x.to(sumType).contiguous(), branch.contiguous(), weight.contiguous(), shift.contiguous(),
                                               eps, factors, result);
  return {results[0], results[1]};
}

struct BiasGeluNode : torch::autograd::Function<BiasGeluNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& bias) {
    context->save_for_backward({x, bias});
    return kernelsOf(x).biasGelu(x, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &bias = saved[1];
    if (c10::GradMode::is_enabled()) {
      const auto ofX = at::gelu_backward(gradients[0], (x + bias).to(x.scalar_type()));
      return {ofX, ofX.reshape({-1, bias.size(0)}).sum(0, false, bias.scalar_type())};
    }
    const auto [ofX, ofBias] = kernelsOf(x).biasGeluBackward(gradients[0].contiguous(), x, bias);
    return {ofX, ofBias};
  }
};

at::Tensor biasGelu(const at::Tensor& x, const at::Tensor& bias) {
  requireNumbers(x, "x", x);
  require(x.dim() > 0 && x.size(-1) > 0, "at least one dimension, the last not empty,", "x", x);
  requireRow(bias, "bias", x);
  const WithoutAutocast guard(kAutocast);
  return BiasGeluNode::apply(x.contiguous(), bias.contiguous());
}

struct MaskedL1Node : torch::autograd::Function<MaskedL1Node> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& prediction, const at::Tensor& clean, const OptionalTensor& mask,
                            int64_t patchSize) {
    const auto [loss, scale] = kernelsOf(prediction).maskedL1(prediction, clean, mask, patchSize);
    context->save_for_backward({prediction, clean, mask.value_or(at::Tensor()), scale});
    context->saved_data["patch"] = patchSize;
    return loss;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &prediction = saved[0], &clean = saved[1], &scale = saved[3];
    const auto mask = optional(saved[2]);
    const auto patchSize = context->saved_data["patch"].toInt();
    const auto& gradient = gradients[0];
    at::Tensor result;
    if (c10::GradMode::is_enabled()) {
      // The slope of a distance does not depend on the prediction: only the gradient that comes in is differentiated.
      const at::AutoGradMode off(false);
      result = kernelsOf(prediction).maskedL1Backward(at::ones_like(gradient), scale, prediction, clean, mask, patchSize);
    }
    result = result.defined() ? (gradient * result).to(prediction.scalar_type())
                              : kernelsOf(prediction).maskedL1Backward(gradient, scale, prediction, clean, mask, patchSize);
    return {result, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor maskedL1(const at::Tensor& prediction, const at::Tensor& clean, const OptionalTensor& mask, int64_t patchSize) {
  requireNumbers(prediction, "prediction", prediction);
  requireNumbers(clean, "clean", prediction);
  require(clean.dim() == 4 && clean.size(1) > 0, "images [B, C, H, W]", "clean", clean);
  require(!clean.requires_grad(), "a tensor that needs no gradient", "clean", clean);
  const auto batch = clean.size(0), channels = clean.size(1), height = clean.size(2), width = clean.size(3);
  TORCH_CHECK_VALUE(patchSize > 0 && height % patchSize == 0 && width % patchSize == 0, "expected a divisor of the image size ", height,
                    " x ", width, " for patch_size, received ", patchSize);
  const std::vector<int64_t> patches{batch, height / patchSize * (width / patchSize), channels * patchSize * patchSize};
  require(prediction.sizes() == patches, "the patches of clean [B, N, C p p]", "prediction", prediction);
  const auto precise = at::promote_types(sumDtype(prediction.scalar_type()), sumDtype(clean.scalar_type()));
  const WithoutAutocast guard(kAutocast);
  OptionalTensor weights;
  if (mask) {
    require(mask->defined() && mask->device() == prediction.device() && mask->layout() == at::kStrided && !mask->is_complex(),
            "a dense tensor on the device of prediction", "mask", *mask);
    require(mask->dim() == 4 && mask->size(0) == batch && mask->size(1) == 1 && mask->size(2) == height && mask->size(3) == width,
            "[B, 1, H, W], as clean is,", "mask", *mask);
    require(!mask->requires_grad(), "a tensor that needs no gradient", "mask", *mask);
    weights = (mask->scalar_type() == at::kBool ? *mask : mask->to(precise)).contiguous();
  }
  // float64 in either makes both float64; 16-bit numbers are read as they are.
  const bool wide = precise == at::kDouble;
  return MaskedL1Node::apply((wide ? prediction.to(precise) : prediction).contiguous(), (wide ? clean.to(precise) : clean).contiguous(),
                             weights, patchSize);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gmml, library) {
  library.def("add_layer_norm(Tensor x, Tensor branch, Tensor weight, Tensor bias, float eps=1e-05, Tensor? scale=None, "
              "ScalarType? dtype=None) -> (Tensor sum, Tensor normalised)", addLayerNorm);
  library.def("bias_gelu(Tensor x, Tensor bias) -> Tensor", biasGelu);
  library.def("masked_l1(Tensor prediction, Tensor clean, Tensor? mask, int patch_size) -> Tensor", maskedL1);
}

}  // namespace gmml::fused

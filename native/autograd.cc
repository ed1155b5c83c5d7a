// Gradients, and the thread-local modes that decide how operators run: grad mode and autocast.
#include "autograd.h"

#include "arguments.h"
#include "exports.h"

#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

namespace gmml {

namespace {

std::vector<at::Tensor> gradientsAt(const Napi::CallbackInfo& info, size_t index) {
  return info[index].IsNull() ? std::vector<at::Tensor>() : tensorsAt(info, index, true);
}

Napi::Value backward(const Napi::CallbackInfo& info) {
  const auto outputs = tensorsAt(info, 0), gradients = gradientsAt(info, 1);
  checkGradients(outputs, gradients);
  torch::autograd::backward(outputs, gradients, boolAt(info, 2), boolAt(info, 3));
  return info.Env().Undefined();
}

Napi::Value grad(const Napi::CallbackInfo& info) {
  const auto outputs = tensorsAt(info, 0), given = gradientsAt(info, 2);
  checkGradients(outputs, given);
  auto gradients = torch::autograd::grad(outputs, tensorsAt(info, 1), given, boolAt(info, 3), boolAt(info, 4), boolAt(info, 5));
  auto result = Napi::Array::New(info.Env(), gradients.size());
  for (uint32_t i = 0; i < gradients.size(); ++i) result.Set(i, toHandle(info, std::move(gradients[i])));
  return result;
}

Napi::Value requiresGrad(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), tensorAt(info, 0).requires_grad()); }

Napi::Value setRequiresGrad(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorAt(info, 0);
  const bool value = boolAt(info, 1);
  if (!value && !tensor.is_leaf()) {
    throw ValueError("only a leaf can stop requiring grad: use detach() on a tensor that was computed");
  }
  tensor.set_requires_grad(value);
  return info.Env().Undefined();
}

Napi::Value isLeaf(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), tensorAt(info, 0).is_leaf()); }

// The class of the operation in the graph that made the tensor, without its namespaces: AddBackward0.
Napi::Value gradFunction(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorAt(info, 0);
  std::string name;
  try {
    const auto& node = tensor.grad_fn();  // a shared or an intrusive pointer, by libtorch's version
    if (!node) return info.Env().Null();
    name = node->name();
  } catch (const c10::Error&) {
    name = "Invalid";  // a view that was made and written to without recording: its place in the graph cannot be worked out
  }
  const auto colons = name.rfind("::");
  return Napi::String::New(info.Env(), colons == std::string::npos ? name : name.substr(colons + 2));
}

Napi::Value retainGrad(const Napi::CallbackInfo& info) {
  tensorAt(info, 0).retain_grad();
  return info.Env().Undefined();
}

Napi::Value gradient(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorAt(info, 0);
  // grad() warns about computed tensors that do not retain theirs; they simply have none.
  if (!tensor.is_leaf() && !tensor.retains_grad()) return info.Env().Null();
  return toHandle(info, tensor.grad());
}

Napi::Value setGradient(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorAt(info, 0);
  if (info[1].IsNull()) {
    tensor.mutable_grad() = at::Tensor();
    return info.Env().Undefined();
  }
  const auto& gradient = tensorAt(info, 1);
  // It would hold itself alive for ever.
  if (gradient.is_same(tensor)) throw ValueError("a tensor cannot be its own gradient");
  if (gradient.sizes() != tensor.sizes() || gradient.device() != tensor.device() || gradient.scalar_type() != tensor.scalar_type()) {
    throw ValueError("expected a gradient like its tensor (" + describeTensor(tensor) + "), received " + describeTensor(gradient));
  }
  tensor.mutable_grad() = gradient;
  return info.Env().Undefined();
}

Napi::Value setData(const Napi::CallbackInfo& info) {
  tensorAt(info, 0).set_data(tensorAt(info, 1));
  return info.Env().Undefined();
}

Napi::Value gradMode(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), c10::GradMode::is_enabled()); }

Napi::Value setGradMode(const Napi::CallbackInfo& info) {
  const bool before = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(boolAt(info, 0));
  return Napi::Boolean::New(info.Env(), before);
}

// enterInferenceMode(enabled): regions nest, so JavaScript leaves them in the opposite order. Gives how many are open.
Napi::Value enterInferenceMode(const Napi::CallbackInfo& info) {
  auto& modes = environmentOf(info).inferenceModes;
  modes.push_back(std::make_unique<c10::InferenceMode>(boolAt(info, 0)));
  return Napi::Number::New(info.Env(), static_cast<double>(modes.size()));
}

Napi::Value leaveInferenceMode(const Napi::CallbackInfo& info) {
  auto& modes = environmentOf(info).inferenceModes;
  if (modes.empty()) throw ValueError("no inference mode to leave");
  modes.pop_back();
  return info.Env().Undefined();
}

Napi::Value inferenceMode(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), c10::InferenceMode::is_enabled()); }

at::DeviceType deviceTypeAt(const Napi::CallbackInfo& info, size_t index) { return c10::Device(stringAt(info, index)).type(); }

Napi::Value autocast(const Napi::CallbackInfo& info) {
  const auto type = deviceTypeAt(info, 0);
  auto state = Napi::Object::New(info.Env());
  state.Set("enabled", at::autocast::is_autocast_enabled(type));
  state.Set("dtype", dtypeName(at::autocast::get_autocast_dtype(type)));
  return state;
}

void setAutocast(const Napi::CallbackInfo& info) {
  const auto type = deviceTypeAt(info, 0);
  const bool enabled = boolAt(info, 1);
  const auto dtype = dtypeFromName(stringAt(info, 2));
  if (enabled && dtype != at::kBFloat16 && dtype != at::kHalf) {
    throw ValueError("expected bfloat16 or float16 for autocast, received " + stringAt(info, 2));
  }
  at::autocast::set_autocast_enabled(type, enabled);
  at::autocast::set_autocast_dtype(type, dtype);
}

Napi::Value enterAutocast(const Napi::CallbackInfo& info) {
  setAutocast(info);
  at::autocast::increment_nesting();
  return info.Env().Undefined();
}

Napi::Value leaveAutocast(const Napi::CallbackInfo& info) {
  // The cache holds this region's low-precision copies of the weights: gone with the outermost region.
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  setAutocast(info);
  return info.Env().Undefined();
}

// setAutocastCache(enabled): gives whether it was.
Napi::Value setAutocastCache(const Napi::CallbackInfo& info) {
  const bool before = at::autocast::is_autocast_cache_enabled();
  at::autocast::set_autocast_cache_enabled(boolAt(info, 0));
  return Napi::Boolean::New(info.Env(), before);
}

Napi::Value clearAutocastCache(const Napi::CallbackInfo& info) {
  at::autocast::clear_cache();
  return info.Env().Undefined();
}

}  // namespace

void checkGradients(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& gradients) {
  if (!gradients.empty() && gradients.size() != outputs.size()) {
    throw ValueError("expected " + std::to_string(outputs.size()) + " gradients, one for each output, received " +
                     std::to_string(gradients.size()));
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    const auto &output = outputs[i], &gradient = gradients[i];
    if (!gradient.defined()) continue;
    if (!output.is_same_size(gradient) || output.is_complex() != gradient.is_complex()) {
      throw ValueError("expected a gradient of the shape of output " + std::to_string(i) + " (" + describeTensor(output) +
                       "), complex where it is, received " + describeTensor(gradient));
    }
  }
}

void initAutograd(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"backward", backward>(env, exports, environment);
  exportFunction<"grad", grad>(env, exports, environment);
  exportFunction<"requiresGrad", requiresGrad>(env, exports, environment);
  exportFunction<"setRequiresGrad", setRequiresGrad>(env, exports, environment);
  exportFunction<"isLeaf", isLeaf>(env, exports, environment);
  exportFunction<"gradFunction", gradFunction>(env, exports, environment);
  exportFunction<"retainGrad", retainGrad>(env, exports, environment);
  exportFunction<"gradient", gradient>(env, exports, environment);
  exportFunction<"setGradient", setGradient>(env, exports, environment);
  exportFunction<"setData", setData>(env, exports, environment);
  exportFunction<"gradMode", gradMode>(env, exports, environment);
  exportFunction<"setGradMode", setGradMode>(env, exports, environment);
  exportFunction<"enterInferenceMode", enterInferenceMode>(env, exports, environment);
  exportFunction<"leaveInferenceMode", leaveInferenceMode>(env, exports, environment);
  exportFunction<"inferenceMode", inferenceMode>(env, exports, environment);
  exportFunction<"setAutocastCache", setAutocastCache>(env, exports, environment);
  exportFunction<"clearAutocastCache", clearAutocastCache>(env, exports, environment);
  exportFunction<"autocast", autocast>(env, exports, environment);
  exportFunction<"enterAutocast", enterAutocast>(env, exports, environment);
  exportFunction<"leaveAutocast", leaveAutocast>(env, exports, environment);
}

}  // namespace gmml

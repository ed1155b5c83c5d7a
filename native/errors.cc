#include "errors.h"

#include "cuda.h"
#include "out-of-memory.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <cstring>
#include <utility>

namespace gmml {

namespace {

// What libtorch calls by its name in Python.
constexpr std::pair<const char*, const char*> names[] = {
    {"'torch.use_deterministic_algorithms(True)'", "useDeterministicAlgorithms(true)"},
    {"`torch.use_deterministic_algorithms(True)` or `at::Context::setDeterministicAlgorithms(true)`", "useDeterministicAlgorithms(true)"},
    {"enabled with either useDeterministicAlgorithms", "enabled with useDeterministicAlgorithms"}, {"std::bad_alloc", "not enough memory"},
    {"`torch.no_grad()`", "noGrad()"}, {"`torch.inference_mode()`", "inferenceMode()"}, {"allowed.You", "allowed. You"},
    {".See https://github.com/pytorch/rfcs/pull/17 for more details", ""}};

// libtorch's messages run to paragraphs of advice: the first line is the reason.
std::string reasonOf(const std::string& text) {
  std::string reason = text.substr(0, text.find('\n'));
  // A list of all backends follows.
  reason = reason.substr(0, reason.find(" This could be because the operator doesn't exist for this backend"));
  // Before it stands the condition in the source that did not hold.
  if (const auto at = reason.find("DefaultCPUAllocator: "); at != std::string::npos) reason = reason.substr(at);
  for (const auto& [python, ours] : names) {
    if (const auto at = reason.find(python); at != std::string::npos) reason.replace(at, std::strlen(python), ours);
  }
  while (!reason.empty() && (reason.back() == ' ' || reason.back() == '.' || reason.back() == ':')) reason.pop_back();
  for (const auto* sign : {"from the 'CUDA' backend", "support for cuda devices", "accelerator"}) {
    if (reason.find(sign) == std::string::npos) continue;
    if (const auto missing = cudaUnavailableReason(); !missing.empty()) reason += ". CUDA is not available: " + missing;
    break;
  }
  return reason.empty() ? "failed without a message" : reason;
}

// By name, without what is not known.
napi_value fromMemory(napi_env env, const OutOfMemory& memory) noexcept {
  napi_value result = nullptr, value = nullptr;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "device", fromString(env, memory.device));
  const std::pair<const char*, double> figures[] = {{"requestedBytes", memory.requested}, {"freeBytes", memory.free},
                                                    {"totalBytes", memory.total}, {"allocatedBytes", memory.allocated},
                                                    {"reservedBytes", memory.reserved}};
  for (const auto& [name, bytes] : figures) {
    if (std::isnan(bytes) || napi_create_double(env, bytes, &value) != napi_ok) continue;
    napi_set_named_property(env, result, name, value);
  }
  return result;
}

}  // namespace

std::string describeTensor(const at::Tensor& tensor) noexcept {
  if (!tensor.defined()) return "null";
  std::string text = dtypeName(tensor.scalar_type());
  try {
    text += " [";
    for (int64_t i = 0; i < tensor.dim(); ++i) text += (i ? ", " : "") + std::to_string(tensor.size(i));
    return text + "] " + tensor.device().str();
  } catch (const std::exception&) {
    return text + " of no fixed shape";  // a nested tensor
  }
}

void throwTorchError(napi_env env, Environment& environment, const std::string& operatorName, const std::exception& error,
                     const std::string& arguments) noexcept {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending) return;
  const auto* torchError = dynamic_cast<const c10::Error*>(&error);
  const std::string detail = error.what();
  const std::string text = torchError ? torchError->what_without_backtrace() : detail;
  const auto memory = outOfMemoryOf(error, text);
  std::string message = reasonOf(text);
  if (!operatorName.empty()) message = operatorName + ": " + message;
  if (!arguments.empty()) message += ". Arguments: " + arguments;
  // Plain Node-API, and no status is looked at: in a thread that is being terminated every call fails, and none may throw.
  napi_value errorClass = nullptr, instance = nullptr;
  const auto& made = memory ? environment.outOfMemoryClass : environment.errorClass;
  if (!made.IsEmpty()) napi_get_reference_value(env, made, &errorClass);
  const napi_value values[] = {fromString(env, message), fromString(env, operatorName), fromString(env, detail),
                               memory ? fromMemory(env, *memory) : nullptr};
  if (errorClass && napi_new_instance(env, errorClass, memory ? 4 : 3, values, &instance) == napi_ok) {
    napi_throw(env, instance);
  } else {
    napi_is_exception_pending(env, &pending);
    if (!pending) napi_throw_error(env, "TORCH", message.c_str());
  }
}

}  // namespace gmml

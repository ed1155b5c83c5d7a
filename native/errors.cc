#include "errors.h"

#include "cuda.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <utility>

namespace gmml {

namespace {

// What libtorch calls by its name in Python.
constexpr std::pair<const char*, const char*> names[] = {
    {"`torch.no_grad()`", "noGrad()"}, {"`torch.inference_mode()`", "inferenceMode()"}, {"allowed.You", "allowed. You"},
    {".See https://github.com/pytorch/rfcs/pull/17 for more details", ""}};

// libtorch's messages run to paragraphs of advice: the first line is the reason.
std::string reasonOf(const std::string& text) {
  std::string reason = text.substr(0, text.find('\n'));
  // A list of all backends follows.
  reason = reason.substr(0, reason.find(" This could be because the operator doesn't exist for this backend"));
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
  std::string message = reasonOf(torchError ? torchError->what_without_backtrace() : detail);
  if (!operatorName.empty()) message = operatorName + ": " + message;
  if (!arguments.empty()) message += ". Arguments: " + arguments;
  // Plain Node-API, and no status is looked at: in a thread that is being terminated every call fails, and none may throw.
  napi_value errorClass = nullptr, instance = nullptr;
  if (!environment.errorClass.IsEmpty()) napi_get_reference_value(env, environment.errorClass, &errorClass);
  const napi_value values[] = {fromString(env, message), fromString(env, operatorName), fromString(env, detail)};
  if (errorClass && napi_new_instance(env, errorClass, 3, values, &instance) == napi_ok) {
    napi_throw(env, instance);
  } else {
    napi_is_exception_pending(env, &pending);
    if (!pending) napi_throw_error(env, "TORCH", message.c_str());
  }
}

}  // namespace gmml

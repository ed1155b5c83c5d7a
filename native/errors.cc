#include "errors.h"

#include <c10/util/Exception.h>

namespace gmml {

namespace {

// libtorch's messages run to paragraphs of advice: the first line is the reason.
std::string reasonOf(const std::string& text) {
  std::string reason = text.substr(0, text.find('\n'));
  while (!reason.empty() && (reason.back() == ' ' || reason.back() == '.' || reason.back() == ':')) reason.pop_back();
  return reason.empty() ? "failed without a message" : reason;
}

}  // namespace

std::string describeTensor(const at::Tensor& tensor) {
  if (!tensor.defined()) return "null";
  std::string text = dtypeName(tensor.scalar_type());
  text += " [";
  for (int64_t i = 0; i < tensor.dim(); ++i) text += (i ? ", " : "") + std::to_string(tensor.size(i));
  return text + "] " + tensor.device().str();
}

void throwTorchError(napi_env env, Environment& environment, const std::string& operatorName, const std::exception& error,
                     const std::string& arguments) {
  const auto* torchError = dynamic_cast<const c10::Error*>(&error);
  const std::string detail = error.what();
  std::string message = reasonOf(torchError ? torchError->what_without_backtrace() : detail);
  if (!operatorName.empty()) message = operatorName + ": " + message;
  if (!arguments.empty()) message += ". Arguments: " + arguments;
  const Napi::Env napi(env);
  if (environment.errorClass.IsEmpty()) {
    napi_throw_error(env, "TORCH", message.c_str());
    return;
  }
  const auto instance = environment.errorClass.New(
      {Napi::String::New(napi, message), Napi::String::New(napi, operatorName), Napi::String::New(napi, detail)});
  napi_throw(env, instance);
}

}  // namespace gmml

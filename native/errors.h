#pragma once

#include "environment.h"

#include <exception>
#include <string>

namespace gmml {

// Leaves a TorchError pending in JavaScript: `operator: reason. Arguments: ...`, with the C++ text as a property.
void throwTorchError(napi_env env, Environment& environment, const std::string& operatorName, const std::exception& error,
                     const std::string& arguments = "");

std::string describeTensor(const at::Tensor& tensor);

// Registers `Function` so that no C++ exception leaves it.
template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return Function(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throwTorchError(info.Env(), environmentOf(info), "", error);
    return info.Env().Undefined();
  }
}

template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
void exportFunction(Napi::Env env, Napi::Object& exports, Environment& environment, const char* name) {
  exports.Set(name, Napi::Function::New<guarded<Function>>(env, name, &environment));
}

}  // namespace gmml

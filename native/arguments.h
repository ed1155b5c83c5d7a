#pragma once

#include "environment.h"
#include "errors.h"

namespace gmml {

// Reading the arguments of the addon's own functions (operators have their schemas).

inline const at::Tensor& tensorAt(const Napi::CallbackInfo& info, size_t index) {
  double handle;
  if (napi_get_value_double(info.Env(), info[index], &handle) != napi_ok) {
    throw ValueError("expected a Tensor, received " + describeValue(info.Env(), info[index]));
  }
  return environmentOf(info).tensors.get(handle);
}

inline std::string stringAt(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::String>(); }

inline bool boolAt(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Boolean>().Value(); }

inline double numberAt(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().DoubleValue(); }

// An array of handles; null where an element is null (an undefined tensor).
inline std::vector<at::Tensor> tensorsAt(const Napi::CallbackInfo& info, size_t index) {
  const auto array = info[index].As<Napi::Array>();
  std::vector<at::Tensor> tensors;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array[i];
    tensors.push_back(element.IsNumber() ? environmentOf(info).tensors.get(element.As<Napi::Number>().DoubleValue()) : at::Tensor());
  }
  return tensors;
}

inline Napi::Value toHandle(const Napi::CallbackInfo& info, at::Tensor tensor) {
  if (!tensor.defined()) return info.Env().Null();
  auto& environment = environmentOf(info);
  const Handle handle = environment.tensors.insert(std::move(tensor));
  reportMemory(info.Env(), environment);
  return Napi::Number::New(info.Env(), handle);
}

inline Napi::Value fromSizes(Napi::Env env, at::IntArrayRef sizes) {
  auto array = Napi::Array::New(env, sizes.size());
  for (uint32_t i = 0; i < sizes.size(); ++i) array.Set(i, static_cast<double>(sizes[i]));
  return array;
}

}  // namespace gmml

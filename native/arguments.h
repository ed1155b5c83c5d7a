#pragma once

#include "environment.h"
#include "errors.h"

#include <cmath>

namespace gmml {

// Reading the arguments of the addon's own functions (operators have their schemas).

[[noreturn]] inline void refuseAt(const Napi::CallbackInfo& info, size_t index, const char* what) {
  throw ValueError("argument " + std::to_string(index) + ": expected " + what + ", received " + describeValue(info.Env(), info[index]));
}

inline double numberAt(const Napi::CallbackInfo& info, size_t index) {
  double number;
  if (napi_get_value_double(info.Env(), info[index], &number) != napi_ok) refuseAt(info, index, "a number");
  return number;
}

inline bool boolAt(const Napi::CallbackInfo& info, size_t index) {
  bool value;
  if (napi_get_value_bool(info.Env(), info[index], &value) != napi_ok) refuseAt(info, index, "a boolean");
  return value;
}

inline std::string stringAt(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsString()) refuseAt(info, index, "a string");
  return info[index].As<Napi::String>();
}

inline Napi::Array arrayAt(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsArray()) refuseAt(info, index, "an array");
  return info[index].As<Napi::Array>();
}

inline const at::Tensor& tensorAt(const Napi::CallbackInfo& info, size_t index) {
  double handle;
  if (napi_get_value_double(info.Env(), info[index], &handle) != napi_ok || !mayBeHandle(handle)) refuseAt(info, index, "a Tensor");
  return environmentOf(info).tensors.get(handle);
}

// The handle of an object of another table than the tensors'.
inline Handle handleAt(const Napi::CallbackInfo& info, size_t index, const char* what) {
  const double handle = numberAt(info, index);
  if (!mayBeHandle(handle)) refuseAt(info, index, what);
  return handle;
}

// An array of handles; with `nullable` null stands for an undefined tensor.
inline std::vector<at::Tensor> tensorsAt(const Napi::CallbackInfo& info, size_t index, bool nullable = false) {
  const auto array = arrayAt(info, index);
  std::vector<at::Tensor> tensors;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array[i];
    double handle;
    if (nullable && element.IsNull()) {
      tensors.emplace_back();
    } else if (napi_get_value_double(info.Env(), element, &handle) == napi_ok && mayBeHandle(handle)) {
      tensors.push_back(environmentOf(info).tensors.get(handle));
    } else {
      throw ValueError("argument " + std::to_string(index) + ": expected an array of Tensors, received " +
                       describeValue(info.Env(), element) + " in it");
    }
  }
  return tensors;
}

inline std::vector<int64_t> sizesAt(const Napi::CallbackInfo& info, size_t index) {
  const auto array = arrayAt(info, index);
  std::vector<int64_t> sizes;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array[i];
    double size;
    const bool number = napi_get_value_double(info.Env(), element, &size) == napi_ok;
    if (!number || !(size >= 0 && size <= 9007199254740992.0) || size != std::floor(size)) {
      throw ValueError("expected a shape of non-negative integers, received " + describeValue(info.Env(), element) + " in it");
    }
    sizes.push_back(static_cast<int64_t>(size));
  }
  return sizes;
}

// Of a dense tensor. As a double: a product of sizes may be beyond every integer.
inline double byteLengthOf(const std::vector<int64_t>& sizes, at::ScalarType type) {
  double bytes = static_cast<double>(c10::elementSize(type));
  for (const auto size : sizes) bytes *= static_cast<double>(size);
  return bytes;
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

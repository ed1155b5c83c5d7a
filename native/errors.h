#pragma once

#include "environment.h"

#include <algorithm>
#include <exception>
#include <string>

namespace gmml {

// Leaves a TorchError pending in JavaScript: `operator: reason. Arguments: ...`, with the C++ text as a property. Where an exception of
// JavaScript is pending already (a getter that threw while an argument was read), that one stands. Throws nothing in C++.
void throwTorchError(napi_env env, Environment& environment, const std::string& operatorName, const std::exception& error,
                     const std::string& arguments = "") noexcept;

std::string describeTensor(const at::Tensor& tensor) noexcept;

// Every tensor among some values, also in arrays, with dtype, shape and device: `self float32 [2, 3] cpu, ...`.
template <typename NameOf>
std::string describeTensors(napi_env env, const Environment& environment, size_t count, const napi_value* values, NameOf nameOf) noexcept;

// The name of one of the addon's functions, as a template argument.
template <size_t Size>
struct Name {
  char text[Size];
  constexpr Name(const char (&name)[Size]) { std::copy_n(name, Size, text); }
};

// Runs `Function` so that a C++ exception becomes a TorchError.
template <Name name, Napi::Value (*Function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return Function(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    std::vector<napi_value> values;
    for (size_t i = 0; i < info.Length(); ++i) values.push_back(info[i]);
    auto& environment = environmentOf(info);
    const auto tensors = describeTensors(info.Env(), environment, values.size(), values.data(), [](size_t) { return std::string(); });
    throwTorchError(info.Env(), environment, name.text, error, tensors);
    return {};
  }
}

template <Name name, Napi::Value (*Function)(const Napi::CallbackInfo&)>
void exportFunction(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exports.Set(name.text, Napi::Function::New<guarded<name, Function>>(env, name.text, &environment));
}

template <typename NameOf>
std::string describeTensors(napi_env env, const Environment& environment, size_t count, const napi_value* values,
                            NameOf nameOf) noexcept {
  std::string text;
  const auto add = [&](const std::string& name, napi_value value) {
    double handle;
    if (napi_get_value_double(env, value, &handle) != napi_ok || !environment.tensors.isLive(handle)) return;
    text += (text.empty() ? "" : ", ") + name + (name.empty() ? "" : " ") + describeTensor(environment.tensors.get(handle));
  };
  for (size_t i = 0; i < count; ++i) {
    add(nameOf(i), values[i]);
    uint32_t length = 0;
    if (napi_get_array_length(env, values[i], &length) != napi_ok) continue;
    const auto before = text.size();
    for (uint32_t k = 0; k < length && k < 4; ++k) {
      napi_value element;
      if (napi_get_element(env, values[i], k, &element) != napi_ok) return text;
      add(nameOf(i) + "[" + std::to_string(k) + "]", element);
    }
    if (length > 4 && text.size() > before) text += ", ... (" + std::to_string(length) + " in all)";
  }
  return text;
}

}  // namespace gmml

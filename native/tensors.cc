// Lifetime and properties of tensors.
#include "arguments.h"
#include "exports.h"

#include <unordered_set>

namespace gmml {

namespace {

Napi::Value dispose(const Napi::CallbackInfo& info) {
  auto& environment = environmentOf(info);
  environment.tensors.dispose(numberAt(info, 0));
  reportMemory(info.Env(), environment);
  return info.Env().Undefined();
}

Napi::Value isLive(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), environmentOf(info).tensors.isLive(numberAt(info, 0)));
}

Napi::Value keep(const Napi::CallbackInfo& info) {
  auto& environment = environmentOf(info);
  environment.tensors.keep(numberAt(info, 0));
  reportMemory(info.Env(), environment);
  return info.Env().Undefined();
}

Napi::Value scopeBegin(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(environmentOf(info).tensors.beginScope()));
}

Napi::Value scopeEnd(const Napi::CallbackInfo& info) {
  auto& environment = environmentOf(info);
  const auto array = info[1].As<Napi::Array>();
  std::vector<Handle> survivors(array.Length());
  for (uint32_t i = 0; i < survivors.size(); ++i) survivors[i] = static_cast<Napi::Value>(array[i]).As<Napi::Number>().DoubleValue();
  const auto depth = environment.tensors.endScope(static_cast<size_t>(numberAt(info, 0)), survivors);
  reportMemory(info.Env(), environment);
  return Napi::Number::New(info.Env(), static_cast<double>(depth));
}

Napi::Value memory(const Napi::CallbackInfo& info) {
  const auto& tensors = environmentOf(info).tensors;
  std::unordered_set<const void*> seen;  // views share their storage
  std::unordered_map<std::string, double> bytes;
  tensors.forEach([&](const at::Tensor& tensor) {
    if (!tensor.has_storage()) return;
    const auto* storage = tensor.storage().unsafeGetStorageImpl();
    if (seen.insert(storage).second) bytes[tensor.device().str()] += static_cast<double>(storage->nbytes());
  });
  auto byDevice = Napi::Object::New(info.Env());
  for (const auto& [device, count] : bytes) byDevice.Set(device, count);
  auto result = Napi::Object::New(info.Env());
  result.Set("tensors", static_cast<double>(tensors.live()));
  result.Set("scopes", static_cast<double>(tensors.scopeDepth()));
  result.Set("bytes", byDevice);
  return result;
}

Napi::Value shape(const Napi::CallbackInfo& info) { return fromSizes(info.Env(), tensorAt(info, 0).sizes()); }

Napi::Value strides(const Napi::CallbackInfo& info) { return fromSizes(info.Env(), tensorAt(info, 0).strides()); }

Napi::Value dtype(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), dtypeName(tensorAt(info, 0).scalar_type())); }

Napi::Value device(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), tensorAt(info, 0).device().str()); }

Napi::Value isContiguous(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), tensorAt(info, 0).is_contiguous());
}

}  // namespace

void initTensors(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<dispose>(env, exports, environment, "dispose");
  exportFunction<isLive>(env, exports, environment, "isLive");
  exportFunction<keep>(env, exports, environment, "keep");
  exportFunction<scopeBegin>(env, exports, environment, "scopeBegin");
  exportFunction<scopeEnd>(env, exports, environment, "scopeEnd");
  exportFunction<memory>(env, exports, environment, "memory");
  exportFunction<shape>(env, exports, environment, "shape");
  exportFunction<strides>(env, exports, environment, "strides");
  exportFunction<dtype>(env, exports, environment, "dtype");
  exportFunction<device>(env, exports, environment, "device");
  exportFunction<isContiguous>(env, exports, environment, "isContiguous");
}

}  // namespace gmml

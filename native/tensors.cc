// Lifetime and properties of tensors.
#include "arguments.h"
#include "exports.h"

#include <string>
#include <unordered_map>
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
  const auto array = arrayAt(info, 1);
  std::vector<Handle> survivors;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array[i];
    if (!element.IsNumber()) refuseAt(info, 1, "an array of Tensors");
    survivors.push_back(element.As<Napi::Number>().DoubleValue());
  }
  const double given = numberAt(info, 0);
  if (!(given >= 1 && given <= static_cast<double>(environment.tensors.scopeDepth()))) throw HandleError("the scope has already ended");
  const auto depth = environment.tensors.endScope(static_cast<size_t>(given), survivors);
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

Napi::Value layout(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), layoutName(tensorAt(info, 0).layout())); }

Napi::Value isContiguous(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), tensorAt(info, 0).is_contiguous());
}

}  // namespace

void initTensors(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"dispose", dispose>(env, exports, environment);
  exportFunction<"isLive", isLive>(env, exports, environment);
  exportFunction<"keep", keep>(env, exports, environment);
  exportFunction<"scopeBegin", scopeBegin>(env, exports, environment);
  exportFunction<"scopeEnd", scopeEnd>(env, exports, environment);
  exportFunction<"memory", memory>(env, exports, environment);
  exportFunction<"shape", shape>(env, exports, environment);
  exportFunction<"strides", strides>(env, exports, environment);
  exportFunction<"dtype", dtype>(env, exports, environment);
  exportFunction<"device", device>(env, exports, environment);
  exportFunction<"layout", layout>(env, exports, environment);
  exportFunction<"isContiguous", isContiguous>(env, exports, environment);
}

}  // namespace gmml

// Random number generators.
#include "arguments.h"
#include "exports.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <cstring>
#include <mutex>

namespace gmml {

namespace {

Napi::Value manualSeed(const Napi::CallbackInfo& info) {
  bool lossless;
  at::manual_seed(info[0].As<Napi::BigInt>().Uint64Value(&lossless));
  return info.Env().Undefined();
}

at::Generator generatorOf(const std::string& device) { return at::globalContext().defaultGenerator(c10::Device(device)); }

Napi::Value generatorState(const Napi::CallbackInfo& info) {
  auto generator = generatorOf(stringAt(info, 0));
  const std::lock_guard<std::mutex> lock(generator.mutex());
  const at::Tensor state = generator.get_state();
  auto bytes = Napi::Uint8Array::New(info.Env(), state.nbytes());
  std::memcpy(bytes.Data(), state.const_data_ptr(), state.nbytes());
  return bytes;
}

Napi::Value setGeneratorState(const Napi::CallbackInfo& info) {
  auto generator = generatorOf(stringAt(info, 0));
  const auto bytes = info[1].As<Napi::Uint8Array>();
  auto state = at::empty({static_cast<int64_t>(bytes.ByteLength())}, at::TensorOptions().dtype(at::kByte));
  std::memcpy(state.mutable_data_ptr(), bytes.Data(), bytes.ByteLength());
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
  return info.Env().Undefined();
}

}  // namespace

void initRandom(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<manualSeed>(env, exports, environment, "manualSeed");
  exportFunction<generatorState>(env, exports, environment, "generatorState");
  exportFunction<setGeneratorState>(env, exports, environment, "setGeneratorState");
}

}  // namespace gmml

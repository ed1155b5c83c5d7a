// Random number generators.
#include "arguments.h"
#include "exports.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <mutex>

namespace gmml {

namespace {

Napi::Value manualSeed(const Napi::CallbackInfo& info) {
  uint64_t seed;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(info.Env(), info[0], &seed, &lossless) != napi_ok || !lossless) {
    refuseAt(info, 0, "a bigint from 0 to 2^64 - 1");
  }
  at::manual_seed(seed);
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
  if (!info[1].IsTypedArray()) refuseAt(info, 1, "a Uint8Array");
  const auto bytes = info[1].As<Napi::Uint8Array>();
  auto state = at::empty({static_cast<int64_t>(bytes.ByteLength())}, at::TensorOptions().dtype(at::kByte));
  std::memcpy(state.mutable_data_ptr(), bytes.Data(), bytes.ByteLength());
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
  return info.Env().Undefined();
}

}  // namespace

void initRandom(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"manualSeed", manualSeed>(env, exports, environment);
  exportFunction<"generatorState", generatorState>(env, exports, environment);
  exportFunction<"setGeneratorState", setGeneratorState>(env, exports, environment);
}

}  // namespace gmml

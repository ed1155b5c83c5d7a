// Random number generators.
#include "cuda.h"
#include "exports.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <mutex>

namespace gmml {

namespace {

uint64_t seedAt(const Napi::CallbackInfo& info, size_t index) {
  uint64_t seed;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(info.Env(), info[index], &seed, &lossless) != napi_ok || !lossless) {
    refuseAt(info, index, "a bigint from 0 to 2^64 - 1");
  }
  return seed;
}

Napi::Value manualSeed(const Napi::CallbackInfo& info) {
  at::manual_seed(seedAt(info, 0));
  return info.Env().Undefined();
}

// A generator of its own, by its handle, or a device's default one, by the device.
at::Generator generatorAt(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsString()) return environmentOf(info).generators.get(handleAt(info, index, "a Generator"));
  return at::globalContext().defaultGenerator(c10::Device(stringAt(info, index)));
}

Napi::Value makeGenerator(const Napi::CallbackInfo& info) {
  const c10::Device device(stringAt(info, 0));
  at::Generator generator;
  if (device.is_cpu()) {
    generator = at::make_generator<at::CPUGeneratorImpl>();
  } else if (device.is_cuda()) {
    generator = at::detail::getCUDAHooks().getNewGenerator(cudaDeviceAt(info, 0).index());
  } else {
    throw ValueError("there are generators for 'cpu' and 'cuda' only, received '" + device.str() + "'");
  }
  return Napi::Number::New(info.Env(), environmentOf(info).generators.insert(std::move(generator)));
}

Napi::Value disposeGenerator(const Napi::CallbackInfo& info) {
  auto& generators = environmentOf(info).generators;
  const double handle = handleAt(info, 0, "a Generator");
  if (generators.isLive(handle)) generators.dispose(handle);  // twice is harmless
  return info.Env().Undefined();
}

Napi::Value generatorIsLive(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), environmentOf(info).generators.isLive(numberAt(info, 0)));
}

Napi::Value seedGenerator(const Napi::CallbackInfo& info) {
  auto generator = generatorAt(info, 0);
  const uint64_t seed = seedAt(info, 1);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(seed);
  return info.Env().Undefined();
}

// A seed that nobody chose; gives it.
Napi::Value reseedGenerator(const Napi::CallbackInfo& info) {
  auto generator = generatorAt(info, 0);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return Napi::BigInt::New(info.Env(), generator.seed());
}

Napi::Value generatorSeed(const Napi::CallbackInfo& info) {
  auto generator = generatorAt(info, 0);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return Napi::BigInt::New(info.Env(), generator.current_seed());
}

Napi::Value generatorState(const Napi::CallbackInfo& info) {
  auto generator = generatorAt(info, 0);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  const at::Tensor state = generator.get_state();
  auto bytes = Napi::Uint8Array::New(info.Env(), state.nbytes());
  std::memcpy(bytes.Data(), state.const_data_ptr(), state.nbytes());
  return bytes;
}

Napi::Value setGeneratorState(const Napi::CallbackInfo& info) {
  auto generator = generatorAt(info, 0);
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
  exportFunction<"makeGenerator", makeGenerator>(env, exports, environment);
  exportFunction<"disposeGenerator", disposeGenerator>(env, exports, environment);
  exportFunction<"generatorIsLive", generatorIsLive>(env, exports, environment);
  exportFunction<"seedGenerator", seedGenerator>(env, exports, environment);
  exportFunction<"reseedGenerator", reseedGenerator>(env, exports, environment);
  exportFunction<"generatorSeed", generatorSeed>(env, exports, environment);
  exportFunction<"generatorState", generatorState>(env, exports, environment);
  exportFunction<"setGeneratorState", setGeneratorState>(env, exports, environment);
}

}  // namespace gmml

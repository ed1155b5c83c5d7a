// The GPUs: whether there are any, what they are, and which is the current one.
#include "cuda.h"

#include "exports.h"
#include "promised-work.h"

#include <ATen/Context.h>

#include <cstdlib>

#ifdef GMML_CUDA_HEADERS
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#endif

namespace gmml {

namespace {

// What the driver says where it gives no device.
std::string driverReason() {
#ifndef GMML_CUDA
  return "this libtorch is built without CUDA";
#elif defined(GMML_CUDA_HEADERS)
  try {
    c10::cuda::device_count_ensure_non_zero();
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    return text.substr(0, text.find('\n'));
  }
  return "No CUDA GPUs are available";
#else
  return "libtorch sees no GPU";
#endif
}

int deviceCount() { return at::hasCUDA() ? cudaGuard().deviceCount() : 0; }

Napi::Value cudaReason(const Napi::CallbackInfo& info) {
  const auto reason = cudaUnavailableReason();
  return reason.empty() ? info.Env().Null() : Napi::Value(Napi::String::New(info.Env(), reason));
}

Napi::Value cudaDeviceCount(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), deviceCount()); }

Napi::Value cudaCurrentDevice(const Napi::CallbackInfo& info) {
  requireCuda();
  return Napi::String::New(info.Env(), cudaGuard().getDevice().str());
}

// cudaSetDevice(device): gives the current device before.
Napi::Value cudaSetDevice(const Napi::CallbackInfo& info) {
  const auto device = cudaDeviceAt(info, 0);
  return Napi::String::New(info.Env(), cudaGuard().exchangeDevice(device).str());
}

Napi::Value cudaProperties(const Napi::CallbackInfo& info) {
  const auto device = cudaDeviceAt(info, 0);
#ifdef GMML_CUDA_HEADERS
  cudaDeviceProp found;
  C10_CUDA_CHECK(cudaGetDeviceProperties(&found, device.index()));
  int driver = 0, runtime = 0, clock = 0;
  C10_CUDA_CHECK(cudaDriverGetVersion(&driver));
  C10_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, device.index()));
  auto result = Napi::Object::New(info.Env());
  const auto set = [&](const char* name, double value) { result.Set(name, value); };
  result.Set("name", found.name);
  set("major", found.major);
  set("minor", found.minor);
  set("totalMemory", static_cast<double>(found.totalGlobalMem));
  set("multiprocessors", found.multiProcessorCount);
  set("maxThreadsPerMultiprocessor", found.maxThreadsPerMultiProcessor);
  set("warpSize", found.warpSize);
  set("sharedMemoryPerBlock", static_cast<double>(found.sharedMemPerBlock));
  set("sharedMemoryPerMultiprocessor", static_cast<double>(found.sharedMemPerMultiprocessor));
  set("registersPerMultiprocessor", found.regsPerMultiprocessor);
  set("l2CacheSize", found.l2CacheSize);
  set("clockRate", clock);
  set("driver", driver);
  set("runtime", runtime);
  return result;
#else
  throw ValueError("the properties of " + device.str() + " need CUDA's headers, which were not found when the addon was built");
#endif
}

Napi::Value synchronize(const Napi::CallbackInfo& info) {
  if (!c10::Device(stringAt(info, 0)).is_cuda()) return info.Env().Undefined();
  const auto device = cudaDeviceAt(info, 0);
  cudaGuard().synchronizeDevice(device.index());
  return info.Env().Undefined();
}

Napi::Value synchronizeAsync(const Napi::CallbackInfo& info) {
  const auto index = cudaDeviceAt(info, 0).index();
  return (new PromisedWait(info, "synchronizeAsync", [index] { cudaGuard().synchronizeDevice(index); }))->start();
}

}  // namespace

std::string cudaUnavailableReason() {
  if (deviceCount() > 0) return "";
  auto reason = driverReason();
  while (!reason.empty() && (reason.back() == '.' || reason.back() == ' ')) reason.pop_back();
#ifdef GMML_CUDA
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) reason += " (CUDA_VISIBLE_DEVICES is '" + std::string(visible) + "')";
#endif
  return reason;
}

void requireCuda() {
  const auto reason = cudaUnavailableReason();
  if (!reason.empty()) throw ValueError("CUDA is not available: " + reason);
}

c10::Device cudaDeviceAt(const Napi::CallbackInfo& info, size_t index) {
  const c10::Device device(stringAt(info, index));
  if (!device.is_cuda()) refuseAt(info, index, "a CUDA device");
  const int count = deviceCount();
  const int given = device.has_index() ? device.index() : count > 0 ? cudaGuard().getDevice().index() : 0;
  if (given < count) return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(given)};
  const auto reason = count > 0 ? "there are " + std::to_string(count) : cudaUnavailableReason();
  throw ValueError("no CUDA device " + std::to_string(given) + ": " + reason);
}

void initCuda(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"cudaUnavailableReason", cudaReason>(env, exports, environment);
  exportFunction<"cudaDeviceCount", cudaDeviceCount>(env, exports, environment);
  exportFunction<"cudaCurrentDevice", cudaCurrentDevice>(env, exports, environment);
  exportFunction<"cudaSetDevice", cudaSetDevice>(env, exports, environment);
  exportFunction<"cudaProperties", cudaProperties>(env, exports, environment);
  exportFunction<"synchronize", synchronize>(env, exports, environment);
  exportFunction<"synchronizeAsync", synchronizeAsync>(env, exports, environment);
}

}  // namespace gmml

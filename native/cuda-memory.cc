// The caching allocator of a GPU, through the interface that needs none of CUDA's headers but for its limit.
#include "cuda.h"
#include "exports.h"

#include <c10/core/CachingDeviceAllocator.h>

#ifdef GMML_CUDA_HEADERS
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace gmml {

namespace {

c10::DeviceAllocator& cudaAllocator() { return *c10::getDeviceAllocator(c10::DeviceType::CUDA); }

Napi::Object fromStat(Napi::Env env, const c10::CachingAllocator::Stat& stat) {
  auto result = Napi::Object::New(env);
  result.Set("current", static_cast<double>(stat.current));
  result.Set("peak", static_cast<double>(stat.peak));
  result.Set("allocated", static_cast<double>(stat.allocated));
  result.Set("freed", static_cast<double>(stat.freed));
  return result;
}

Napi::Object fromStats(Napi::Env env, const c10::CachingAllocator::StatArray& stats) {
  using c10::CachingAllocator::StatType;
  auto result = Napi::Object::New(env);
  result.Set("all", fromStat(env, stats[static_cast<size_t>(StatType::AGGREGATE)]));
  result.Set("smallPool", fromStat(env, stats[static_cast<size_t>(StatType::SMALL_POOL)]));
  result.Set("largePool", fromStat(env, stats[static_cast<size_t>(StatType::LARGE_POOL)]));
  return result;
}

Napi::Value cudaMemoryStats(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  const auto device = cudaDeviceAt(info, 0);
  const auto stats = cudaAllocator().getDeviceStats(device.index());
  auto result = Napi::Object::New(env);
  result.Set("allocation", fromStats(env, stats.allocation));
  result.Set("segment", fromStats(env, stats.segment));
  result.Set("active", fromStats(env, stats.active));
  result.Set("inactiveSplit", fromStats(env, stats.inactive_split));
  result.Set("allocatedBytes", fromStats(env, stats.allocated_bytes));
  result.Set("reservedBytes", fromStats(env, stats.reserved_bytes));
  result.Set("activeBytes", fromStats(env, stats.active_bytes));
  result.Set("inactiveSplitBytes", fromStats(env, stats.inactive_split_bytes));
  result.Set("requestedBytes", fromStats(env, stats.requested_bytes));
  result.Set("oversizeAllocations", fromStat(env, stats.oversize_allocations));
  result.Set("oversizeSegments", fromStat(env, stats.oversize_segments));
  result.Set("numAllocRetries", static_cast<double>(stats.num_alloc_retries));
  result.Set("numOoms", static_cast<double>(stats.num_ooms));
  result.Set("numSyncAllStreams", static_cast<double>(stats.num_sync_all_streams));
  result.Set("numDeviceAlloc", static_cast<double>(stats.num_device_alloc));
  result.Set("numDeviceFree", static_cast<double>(stats.num_device_free));
  result.Set("maxSplitSize", static_cast<double>(stats.max_split_size));
  return result;
}

Napi::Value cudaResetPeakStats(const Napi::CallbackInfo& info) {
  const auto device = cudaDeviceAt(info, 0);
  cudaAllocator().resetPeakStats(device.index());
  return info.Env().Undefined();
}

Napi::Value cudaMemoryInfo(const Napi::CallbackInfo& info) {
  const auto device = cudaDeviceAt(info, 0);
  const auto [free, total] = cudaAllocator().getMemoryInfo(device.index());
  auto result = Napi::Object::New(info.Env());
  result.Set("free", static_cast<double>(free));
  result.Set("total", static_cast<double>(total));
  return result;
}

Napi::Value cudaSetMemoryFraction(const Napi::CallbackInfo& info) {
  const double fraction = numberAt(info, 0);
  if (!(fraction > 0 && fraction <= 1)) refuseAt(info, 0, "a part above 0, up to 1");
  const auto device = cudaDeviceAt(info, 1);
#ifdef GMML_CUDA_HEADERS
  c10::cuda::CUDACachingAllocator::setMemoryFraction(fraction, device.index());
  return info.Env().Undefined();
#else
  throw ValueError("a limit for " + device.str() + " needs CUDA's headers, which were not found when the addon was built");
#endif
}

Napi::Value cudaEmptyCache(const Napi::CallbackInfo& info) {
  requireCuda();
  cudaAllocator().emptyCache();
  return info.Env().Undefined();
}

}  // namespace

void initCudaMemory(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"cudaMemoryStats", cudaMemoryStats>(env, exports, environment);
  exportFunction<"cudaResetPeakStats", cudaResetPeakStats>(env, exports, environment);
  exportFunction<"cudaMemoryInfo", cudaMemoryInfo>(env, exports, environment);
  exportFunction<"cudaSetMemoryFraction", cudaSetMemoryFraction>(env, exports, environment);
  exportFunction<"cudaEmptyCache", cudaEmptyCache>(env, exports, environment);
}

}  // namespace gmml

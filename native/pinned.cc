// Memory of JavaScript that the GPU copies from by itself: registered with CUDA, in place.
#include "pinned.h"

#include "cuda.h"
#include "exports.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#ifdef GMML_CUDA_HEADERS
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>
#endif

namespace gmml {

PinnedMemory::~PinnedMemory() {
  try {
    wait();
  } catch (const std::exception&) {  // a device that has failed copies nothing any more
  }
#ifdef GMML_CUDA_HEADERS
  C10_CUDA_CHECK_WARN(cudaHostUnregister(data_));
#endif
}

void PinnedMemory::wait() {
  for (const auto& copy : copies_) copy.synchronize();
  copies_.clear();
}

void PinnedMemory::copied(const c10::Stream& stream) {
  std::erase_if(copies_, [](const c10::Event& copy) { return copy.query(); });
  copies_.emplace_back(c10::DeviceType::CUDA).record(stream);
}

namespace {

// pinMemory(bytes: Uint8Array): registers the memory that the array lies in, which is referenced until it is unpinned.
Napi::Value pinMemory(const Napi::CallbackInfo& info) {
  const auto value = info[0];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) refuseAt(info, 0, "a Uint8Array");
  requireCuda();
#ifdef GMML_CUDA_HEADERS
  // The pointer straight from Node-API: the array may lie in a SharedArrayBuffer, which Napi::ArrayBuffer is not.
  void* data = nullptr;
  size_t length = 0;
  napi_get_typedarray_info(info.Env(), value, nullptr, &length, &data, nullptr, nullptr);
  if (length == 0) refuseAt(info, 0, "at least one byte");
  auto reference = Napi::Persistent(value.As<Napi::Object>());
  // Portable: for every GPU of the process.
  C10_CUDA_CHECK(cudaHostRegister(data, length, cudaHostRegisterPortable));
  auto memory = std::make_shared<PinnedMemory>(data, length, std::move(reference));
  return Napi::Number::New(info.Env(), environmentOf(info).pinned.insert(std::move(memory)));
#else
  throw ValueError("pinned memory needs CUDA's headers, which were not found when the addon was built");
#endif
}

// Waits for copies that are under way.
Napi::Value unpinMemory(const Napi::CallbackInfo& info) {
  auto& pinned = environmentOf(info).pinned;
  const double handle = handleAt(info, 0, "pinned memory");
  if (pinned.isLive(handle)) pinned.dispose(handle);  // twice is harmless
  return info.Env().Undefined();
}

// fromPinned(memory, offset, dtype, sizes, device): a new tensor on a GPU, whose copy is put on the current stream and not waited for.
Napi::Value fromPinned(const Napi::CallbackInfo& info) {
  const auto memory = environmentOf(info).pinned.get(handleAt(info, 0, "pinned memory"));
  const double offset = numberAt(info, 1);
  const auto type = dtypeFromName(stringAt(info, 2));
  const auto sizes = sizesAt(info, 3);
  const auto device = cudaDeviceAt(info, 4);
  const double bytes = byteLengthOf(sizes, type), length = static_cast<double>(memory->length());
  if (!(offset >= 0 && offset <= length) || offset != std::floor(offset) || bytes > length - offset) {
    throw ValueError("expected " + c10::str(bytes) + " bytes from " + c10::str(offset) + " on inside the pinned memory, which has " +
                     std::to_string(memory->length()));
  }
  const auto options = at::TensorOptions().dtype(type);
  auto tensor = at::empty(sizes, options.device(device));
  if (bytes > 0) {
    const auto from = at::from_blob(memory->data() + static_cast<size_t>(offset), sizes, options);
    tensor.copy_(from, true);
    memory->copied(cudaGuard().getStream(device));
  }
  return toHandle(info, std::move(tensor));
}

// Whether the copies that were started from this memory are done: it may be written again.
Napi::Value pinnedIsIdle(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), environmentOf(info).pinned.get(handleAt(info, 0, "pinned memory"))->isIdle());
}

}  // namespace

void initPinned(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"pinMemory", pinMemory>(env, exports, environment);
  exportFunction<"unpinMemory", unpinMemory>(env, exports, environment);
  exportFunction<"fromPinned", fromPinned>(env, exports, environment);
  exportFunction<"pinnedIsIdle", pinnedIsIdle>(env, exports, environment);
}

}  // namespace gmml

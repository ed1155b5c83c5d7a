// Data in and out. Each direction is one copy: JavaScript's memory and a tensor's never have the same owner.
#include "arguments.h"
#include "exports.h"
#include "promised-work.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>

namespace gmml {

namespace {

Napi::Value fromBytes(const Napi::CallbackInfo& info) {
  if (!info[0].IsTypedArray()) refuseAt(info, 0, "a typed array");
  // The pointer straight from Node-API: the array may lie in a SharedArrayBuffer, which Napi::ArrayBuffer is not.
  void* data = nullptr;
  napi_get_typedarray_info(info.Env(), info[0], nullptr, nullptr, &data, nullptr, nullptr);
  const size_t bytes = info[0].As<Napi::TypedArray>().ByteLength();
  const auto type = dtypeFromName(stringAt(info, 1));
  const auto sizes = sizesAt(info, 2);
  const double needed = byteLengthOf(sizes, type);
  if (needed != static_cast<double>(bytes)) {
    throw ValueError("expected " + c10::str(needed) + " bytes for this shape and dtype, received " + std::to_string(bytes));
  }
  auto tensor = at::empty(sizes, at::TensorOptions().dtype(type));
  if (bytes && type == at::kBool) {
    // Any byte is legal in JavaScript; in C++ a bool that is neither 0 nor 1 is undefined behaviour.
    const auto* from = static_cast<const uint8_t*>(data);
    std::transform(from, from + bytes, tensor.mutable_data_ptr<bool>(), [](uint8_t byte) { return byte != 0; });
  } else if (bytes) {
    std::memcpy(tensor.mutable_data_ptr(), data, bytes);
  }
  return toHandle(info, std::move(tensor));
}

Napi::Value byteLength(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorAt(info, 0);
  return Napi::Number::New(info.Env(), static_cast<double>(tensor.numel()) * static_cast<double>(tensor.element_size()));
}

Napi::Value elementSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tensorAt(info, 0).element_size()));
}

Napi::ArrayBuffer bufferAt(const Napi::CallbackInfo& info, size_t index, const at::Tensor& tensor) {
  if (!info[index].IsArrayBuffer()) refuseAt(info, index, "an ArrayBuffer");
  auto buffer = info[index].As<Napi::ArrayBuffer>();
  if (static_cast<double>(buffer.ByteLength()) != static_cast<double>(tensor.numel()) * static_cast<double>(tensor.element_size())) {
    throw ValueError("expected a buffer as long as the tensor, received one of " + std::to_string(buffer.ByteLength()) + " bytes");
  }
  return buffer;
}

// Row-major, whatever the layout, strides and device: what `copy_` sees through costs no copy of its own.
void copyInto(void* data, const at::Tensor& tensor) {
  if (tensor.numel() == 0) return;
  auto plain = tensor.detach();
  if (plain.layout() != at::kStrided) plain = plain.to_dense();
  at::from_blob(data, plain.sizes(), at::TensorOptions().dtype(plain.scalar_type())).copy_(plain);
}

Napi::Value toBytes(const Napi::CallbackInfo& info) {
  const auto tensor = tensorAt(info, 0);
  copyInto(bufferAt(info, 1, tensor).Data(), tensor);
  return info.Env().Undefined();
}

// Waits for the device on a libuv worker, so that the event loop goes on.
class Read : public PromisedWork {
 public:
  // A copy on the device, in the order of its stream: what happens to the tensor afterwards is not seen.
  Read(const Napi::CallbackInfo& info, const at::Tensor& tensor, Napi::ArrayBuffer buffer)
      : PromisedWork(info, "toBytesAsync"),
        tensor_(tensor.detach().clone()),
        stream_(c10::impl::VirtualGuardImpl(tensor.device().type()).getStream(tensor.device())),
        buffer_(Napi::Persistent(buffer)),
        data_(buffer.Data()) {}

 private:
  void work() override {
    const c10::StreamGuard guard(stream_);  // a thread's own stream would not wait for the copy
    copyInto(data_, tensor_);
  }
  std::string arguments() const override { return describeTensor(tensor_); }

  at::Tensor tensor_;
  c10::Stream stream_;
  Napi::Reference<Napi::ArrayBuffer> buffer_;
  void* data_;
};

Napi::Value toBytesAsync(const Napi::CallbackInfo& info) {
  const auto tensor = tensorAt(info, 0);
  auto buffer = bufferAt(info, 1, tensor);
  if (tensor.is_cpu()) {
    // Nothing to wait for, and a worker would race with what is done to the tensor next.
    copyInto(buffer.Data(), tensor);
    const auto deferred = Napi::Promise::Deferred::New(info.Env());
    deferred.Resolve(info.Env().Undefined());
    return deferred.Promise();
  }
  return (new Read(info, tensor, buffer))->start();
}

// Which memory a tensor lies in: an identity that holds as long as a tensor of this memory lives, and its length in bytes.
Napi::Value storage(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorAt(info, 0);
  if (tensor.layout() != at::kStrided || tensor.is_quantized() || tensor.is_meta() || !tensor.has_storage()) {
    throw ValueError("expected a dense tensor with memory of its own");
  }
  auto pair = Napi::Array::New(info.Env(), 2);
  // The object and not its data: an empty storage has no data. User-space addresses are below 2^53.
  const auto* implementation = tensor.storage().unsafeGetStorageImpl();
  pair[0u] = Napi::Number::New(info.Env(), static_cast<double>(reinterpret_cast<uintptr_t>(implementation)));
  pair[1u] = Napi::Number::New(info.Env(), static_cast<double>(tensor.storage().nbytes()));
  return pair;
}

Napi::Value item(const Napi::CallbackInfo& info) { return Napi::Value(info.Env(), fromScalar(info.Env(), tensorAt(info, 0).item())); }

}  // namespace

void initStorage(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"fromBytes", fromBytes>(env, exports, environment);
  exportFunction<"storage", storage>(env, exports, environment);
  exportFunction<"elementSize", elementSize>(env, exports, environment);
  exportFunction<"byteLength", byteLength>(env, exports, environment);
  exportFunction<"toBytes", toBytes>(env, exports, environment);
  exportFunction<"toBytesAsync", toBytesAsync>(env, exports, environment);
  exportFunction<"item", item>(env, exports, environment);
}

}  // namespace gmml

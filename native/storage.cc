// Data in and out. Each direction is one copy: JavaScript's memory and a tensor's never have the same owner.
#include "arguments.h"
#include "exports.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <cstring>

namespace gmml {

namespace {

std::vector<int64_t> sizesAt(const Napi::CallbackInfo& info, size_t index) {
  const auto array = info[index].As<Napi::Array>();
  std::vector<int64_t> sizes(array.Length());
  for (uint32_t i = 0; i < sizes.size(); ++i) {
    const double size = static_cast<Napi::Value>(array[i]).As<Napi::Number>().DoubleValue();
    if (!(size >= 0) || size != std::floor(size) || size > 9007199254740992.0) {
      throw ValueError("expected a shape of non-negative integers, received " + std::to_string(size));
    }
    sizes[i] = static_cast<int64_t>(size);
  }
  return sizes;
}

Napi::Value fromBytes(const Napi::CallbackInfo& info) {
  if (!info[0].IsTypedArray()) throw ValueError("expected a typed array, received " + describeValue(info.Env(), info[0]));
  // The pointer straight from Node-API: the array may lie in a SharedArrayBuffer, which Napi::ArrayBuffer is not.
  void* data = nullptr;
  napi_get_typedarray_info(info.Env(), info[0], nullptr, nullptr, &data, nullptr, nullptr);
  const size_t bytes = info[0].As<Napi::TypedArray>().ByteLength();
  const auto type = dtypeFromName(stringAt(info, 1));
  const auto sizes = sizesAt(info, 2);
  double needed = static_cast<double>(c10::elementSize(type));
  for (const auto size : sizes) needed *= static_cast<double>(size);
  if (needed != static_cast<double>(bytes)) {
    throw ValueError("expected " + std::to_string(static_cast<int64_t>(needed)) + " bytes for this shape and dtype, received " +
                     std::to_string(bytes));
  }
  auto tensor = at::empty(sizes, at::TensorOptions().dtype(type));
  if (bytes) std::memcpy(tensor.mutable_data_ptr(), data, bytes);
  return toHandle(info, std::move(tensor));
}

at::Tensor onCpu(const at::Tensor& tensor) {
  auto plain = tensor.detach();
  if (plain.is_conj()) plain = plain.resolve_conj();
  if (plain.is_neg()) plain = plain.resolve_neg();
  if (plain.layout() != at::kStrided) plain = plain.to_dense();
  return plain.cpu().contiguous();
}

Napi::Value copyOut(Napi::Env env, const at::Tensor& tensor) {
  auto buffer = Napi::ArrayBuffer::New(env, tensor.nbytes());
  if (tensor.nbytes()) std::memcpy(buffer.Data(), tensor.const_data_ptr(), tensor.nbytes());
  return buffer;
}

Napi::Value toBytes(const Napi::CallbackInfo& info) { return copyOut(info.Env(), onCpu(tensorAt(info, 0))); }

// Waits for the device on a libuv worker, so that the event loop goes on.
class Read : public Napi::AsyncWorker {
 public:
  Read(const Napi::CallbackInfo& info, at::Tensor tensor)
      : AsyncWorker(info.Env(), "gmml:read"), environment_(environmentOf(info)), deferred_(info.Env()), tensor_(std::move(tensor)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  // Not an override of Napi's exception handling: a libtorch error must reach JavaScript as a TorchError.
  void Execute() override {
    try {
      tensor_ = onCpu(tensor_);
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override { deferred_.Resolve(copyOut(Env(), tensor_)); }

  void OnError(const Napi::Error& error) override {
    const Napi::HandleScope scope(Env());
    throwTorchError(Env(), environment_, "", std::runtime_error(error.Message()));
    deferred_.Reject(Env().GetAndClearPendingException().Value());
  }

 private:
  Environment& environment_;
  Napi::Promise::Deferred deferred_;
  at::Tensor tensor_;
};

Napi::Value toBytesAsync(const Napi::CallbackInfo& info) {
  auto* read = new Read(info, tensorAt(info, 0).detach());
  const auto promise = read->promise();
  read->Queue();
  return promise;
}

Napi::Value item(const Napi::CallbackInfo& info) { return Napi::Value(info.Env(), fromScalar(info.Env(), tensorAt(info, 0).item())); }

}  // namespace

void initStorage(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<fromBytes>(env, exports, environment, "fromBytes");
  exportFunction<toBytes>(env, exports, environment, "toBytes");
  exportFunction<toBytesAsync>(env, exports, environment, "toBytesAsync");
  exportFunction<item>(env, exports, environment, "item");
}

}  // namespace gmml

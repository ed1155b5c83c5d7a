// Every operator on the simulated GPU: the CPU's kernel, on the same memory.
#include "device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <set>

using at::Tensor;
using simulated::Device;

namespace {

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);
const c10::Device kDevice(c10::DeviceType::CUDA, 0);

// Kernels of the real GPU that wait for it, since the size of their result is a matter of values.
const std::set<std::string> waiting = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
                                       "aten::bincount", "aten::repeat_interleave.Tensor", "aten::equal", "aten::is_nonzero", "aten::histc"};

Tensor onDevice(c10::Storage storage, const Tensor& like) {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), kKeys, like.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.unsafeGetTensorImpl()->is_wrapped_number()) tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

// The same memory as a tensor of the CPU. Its storage can grow, as results do that are given empty.
Tensor onHost(const Tensor& tensor) {
  const auto& storage = tensor.storage();
  c10::DataPtr data(storage.mutable_data(), c10::Device(c10::DeviceType::CPU));
  c10::Storage shared(c10::make_intrusive<c10::StorageImpl>(
    c10::StorageImpl::use_byte_size_t(), storage.nbytes(), std::move(data), c10::GetCPUAllocator(), true));
  auto host = at::detail::make_tensor<c10::TensorImpl>(std::move(shared), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  host.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return host;
}

// Memory that the CPU's kernel has made, from now on the device's.
c10::Storage adopt(const c10::Storage& host) {
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), host.nbytes(), Device::get().adopt(host),
                                                            c10::GetAllocator(c10::DeviceType::CUDA), true));
}

// One call: what is on the device goes to the kernel as the CPU's, and what comes back as the device's.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op), name_(c10::toString(op.operator_name())) {}

  void run(torch::jit::Stack* stack) {
    const auto& schema = op_.schema();
    const size_t first = stack->size() - schema.arguments().size();
    const std::vector<c10::IValue> given(stack->begin() + static_cast<int64_t>(first), stack->end());
    for (size_t i = 0; i < given.size(); ++i) {
      const auto* alias = schema.arguments()[i].alias_info();
      (*stack)[first + i] = toHost(given[i], alias && alias->isWrite());
    }
    if (waiting.count(name_)) Device::get().hostWaits(name_);
    Device::get().launch(reads_, writes_, name_);
    {
      const at::AutoDispatchBelowADInplaceOrView below;
      const c10::impl::ExcludeDispatchKeyGuard noAutocast(c10::autocast_dispatch_keyset);
      op_.callBoxed(stack);
    }
    for (const auto& [device, host] : written_) takeBack(device, host);
    for (auto& [device, host] : generators_) device.set_state(host.get_state());
    const size_t results = schema.returns().size();
    const size_t start = stack->size() - results;
    for (size_t i = 0; i < results; ++i) {
      const auto* alias = schema.returns()[i].alias_info();
      auto& value = (*stack)[start + i];
      value = alias && alias->isWrite() ? given[argumentOf(alias)] : toDevice(value);
    }
    Device::get().launch({}, made_, name_);
  }

 private:
  size_t argumentOf(const c10::AliasInfo* alias) const {
    const auto& arguments = op_.schema().arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
      const auto* own = arguments[i].alias_info();
      if (own && own->beforeSets() == alias->beforeSets()) return i;
    }
    TORCH_CHECK(false, name_, ": a result is no argument");
  }

  Tensor toHost(const Tensor& tensor, bool write) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      // As on a real GPU: of the host's tensors single numbers are taken along.
      TORCH_CHECK(tensor.dim() == 0 && !write, "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and ",
                  tensor.device().str(), " (", name_, ")");
      return tensor;
    }
    for (const auto& [device, host] : seen_) {
      if (device.is_same(tensor)) return host;
    }
    auto host = onHost(tensor);
    seen_.emplace_back(tensor, host);
    (write ? writes_ : reads_).push_back(tensor.storage().data());
    if (write) written_.emplace_back(tensor, host);
    return host;
  }

  c10::IValue toHost(const c10::IValue& value, bool write) {
    if (value.isTensor()) return toHost(value.toTensor(), write);
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) list.push_back(toHost(tensor, write));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& tensor : value.toOptionalTensorList()) list.push_back(tensor ? std::optional(toHost(*tensor, write)) : std::nullopt);
      return list;
    }
    if (value.isDevice() && value.toDevice().is_cuda()) return c10::Device(c10::DeviceType::CPU);
    if (value.isGenerator() && value.toGenerator().device().is_cuda()) return toHost(value.toGenerator());
    return value;
  }

  // One of the CPU that goes on from its state; the default one is the CPU's.
  c10::IValue toHost(at::Generator generator) {
    if (generator == at::globalContext().defaultGenerator(kDevice)) return {};
    auto host = at::make_generator<at::CPUGeneratorImpl>();
    host.set_state(generator.get_state());
    generators_.emplace_back(std::move(generator), host);
    return host;
  }

  // A result that had to grow lies in new memory.
  void takeBack(const Tensor& device, const Tensor& host) {
    auto* implementation = device.unsafeGetTensorImpl();
    if (host.storage().data() != device.storage().data()) implementation->set_storage_keep_dtype(adopted(host.storage()));
    if (host.sizes() != device.sizes() || host.strides() != device.strides()) {
      implementation->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
    }
  }

  c10::Storage adopted(const c10::Storage& host) {
    for (const auto& [from, to] : adopted_) {
      if (from.is_alias_of(host)) return to;
    }
    auto storage = adopt(host);
    adopted_.emplace_back(host, storage);
    made_.push_back(storage.data());
    return storage;
  }

  Tensor toDevice(const Tensor& host) {
    if (!host.defined()) return host;
    for (const auto& [device, known] : seen_) {
      if (known.storage().is_alias_of(host.storage())) return onDevice(device.storage(), host);
    }
    return onDevice(adopted(host.storage()), host);
  }

  c10::IValue toDevice(const c10::IValue& value) {
    if (value.isTensor()) return toDevice(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) list.push_back(toDevice(tensor));
    return list;
  }

  const c10::OperatorHandle& op_;
  std::string name_;
  std::vector<std::pair<Tensor, Tensor>> seen_, written_;  // on the device, on the host
  std::vector<std::pair<c10::Storage, c10::Storage>> adopted_;
  std::vector<std::pair<at::Generator, at::Generator>> generators_;
  std::vector<const void*> reads_, writes_, made_;
};

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) { Call(op).run(stack); }

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
             std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!pinned.value_or(false), "Only dense CPU tensors can be pinned");
  return at::detail::empty_generic(size, c10::GetAllocator(c10::DeviceType::CUDA), kKeys, c10::dtype_or_default(dtype), format);
}

Tensor emptyStrided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                    std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, c10::GetAllocator(c10::DeviceType::CUDA), kKeys, c10::dtype_or_default(dtype));
}

const Tensor& resize(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  const auto wanted = at::detail::empty_generic(size, c10::GetAllocator(c10::DeviceType::CUDA), kKeys, self.scalar_type(), format);
  auto* implementation = self.unsafeGetTensorImpl();
  if (self.storage().nbytes() < wanted.storage().nbytes()) implementation->set_storage_keep_dtype(wanted.storage());
  implementation->set_sizes_and_strides(wanted.sizes(), wanted.strides());
  return self;
}

Tensor& copy(Tensor& self, const Tensor& from, bool nonBlocking) {
  const bool toDevice = self.is_cuda() && !from.is_cuda(), toHost = !self.is_cuda();
  auto target = self.is_cuda() ? onHost(self) : self;
  const auto source = from.is_cuda() ? onHost(from) : from;
  const auto work = [target, source] {
    Tensor to = target;
    const at::AutoDispatchBelowADInplaceOrView below;
    to.copy_(source);
  };
  auto& device = Device::get();
  if (toDevice || toHost) device.countCopy(toDevice);
  if (toDevice && nonBlocking && device.isPinned(from.const_data_ptr())) {
    // Holds both, as the allocators of memory do that is in use.
    device.defer(self.storage().data(), [work, self] { work(); });
    return self;
  }
  std::vector<const void*> reads, writes;
  if (from.is_cuda()) reads.push_back(from.storage().data());
  if (self.is_cuda()) writes.push_back(self.storage().data());
  device.launch(reads, writes, "aten::copy_");
  work();
  // From the host's ordinary memory the copy has been taken when the call returns; to it, all work before has to be done.
  if (toHost) device.hostWaits("aten::copy_");
  return self;
}

at::Scalar localScalar(const Tensor& self) {
  Device::get().launch({self.storage().data()}, {}, "aten::_local_scalar_dense");
  Device::get().hostWaits("aten::_local_scalar_dense");
  return at::native::_local_scalar_dense_cpu(onHost(self));
}

// The CPU has no kernel of this name.
Tensor depthwise(const Tensor& self, const Tensor& weight, at::IntArrayRef, const std::optional<Tensor>& bias, at::IntArrayRef stride,
                 at::IntArrayRef padding, at::IntArrayRef dilation) {
  Device::get().launch({self.storage().data(), weight.storage().data()}, {}, "aten::_conv_depthwise2d");
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto host = at::conv2d(onHost(self), onHost(weight), bias && bias->defined() ? std::optional(onHost(*bias)) : std::nullopt, stride, padding,
                               dilation, self.size(1));
  auto result = onDevice(adopt(host.storage()), host);
  Device::get().launch({}, {result.storage().data()}, "aten::_conv_depthwise2d");
  return result;
}

void recordStream(Tensor& self, c10::Stream stream) { Device::get().recordUse(self.storage().data(), static_cast<size_t>(stream.id())); }

std::vector<int64_t> counts() {
  const auto counts = Device::get().counts();
  return {counts.toDevice, counts.toHost, counts.waits, counts.kernels};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", emptyStrided);
  m.impl("as_strided", [](const Tensor& self, at::IntArrayRef size, at::IntArrayRef stride, std::optional<int64_t> offset) {
    return at::native::as_strided_tensorimpl(self, size, stride, offset);
  });
  m.impl("view", [](const Tensor& self, at::IntArrayRef size) { return at::native::view(self, size); });
  m.impl("_reshape_alias", [](const Tensor& self, at::IntArrayRef size, at::IntArrayRef stride) {
    return at::native::_reshape_alias(self, size, stride);
  });
  m.impl("unfold", [](const Tensor& self, int64_t dimension, int64_t size, int64_t step) {
    return at::native::unfold(self, dimension, size, step);
  });
  m.impl("_conv_depthwise2d", depthwise);
  m.impl("resize_", resize);
  m.impl("copy_", copy);
  m.impl("_local_scalar_dense", localScalar);
  m.impl("record_stream", recordStream);
}

TORCH_LIBRARY(gmml_simulated, m) {
  m.def("counts() -> int[]", counts);
  m.def("reset() -> ()", [] { Device::get().reset(); });
  m.def("forbid_waiting(bool forbidden) -> ()", [](bool forbidden) { Device::get().forbidWaiting(forbidden); });
  m.def("problems() -> str[]", [] { return Device::get().problems(); });
}

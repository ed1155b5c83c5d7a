// What libtorch asks a GPU's runtime: its devices, streams, events, allocators and generators.
#include "device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Registry.h>

#include <cstring>

using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;
using simulated::Device;
using simulated::Event;

namespace {

const c10::Device kDevice(DeviceType::CUDA, 0);

struct Allocator : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override { return Device::get().allocate(bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
};

struct PinnedAllocator : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override { return Device::get().allocatePinned(bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
};

Allocator allocator;
PinnedAllocator pinnedAllocator;
[[maybe_unused]] const bool registered = (c10::SetAllocator(DeviceType::CUDA, &allocator, 1), true);

// Only a seed: kernels draw from the CPU's generator, so that a computation gives the same numbers on both devices.
struct Generator : at::CPUGeneratorImpl {
  Generator() {
    device_ = kDevice;
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::CUDA);
  }
  static DeviceType device_type() { return DeviceType::CUDA; }
};

struct Hooks : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  std::string showConfig() const override { return "  - simulated CUDA\n"; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  c10::Device getDeviceFromPtr(void*) const override { return kDevice; }
  bool isPinnedPtr(const void* data) const override { return Device::get().isPinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinnedAllocator; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &allocator; }
  void deviceSynchronize(DeviceIndex) const override { Device::get().synchronizeDevice(); }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    static const auto* generator = new at::Generator(at::make_generator<Generator>());
    return *generator;
  }
  at::Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<Generator>(); }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static size_t number(const Stream& stream) { return static_cast<size_t>(stream.id()); }
  static Stream streamOf(size_t number) { return Stream(Stream::UNSAFE, kDevice, static_cast<c10::StreamId>(number)); }
  static Event& eventOf(void* event) { return *static_cast<Event*>(event); }

  DeviceType type() const override { return DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  DeviceIndex deviceCount() const noexcept override { return 1; }
  Stream getStream(c10::Device) const override { return streamOf(simulated::currentStream); }
  Stream getDefaultStream(c10::Device) const override { return streamOf(0); }
  Stream getStreamFromGlobalPool(c10::Device, bool) const override { return streamOf(Device::get().newStream()); }
  Stream getNewStream(c10::Device, int) const override { return streamOf(Device::get().newStream()); }
  Stream exchangeStream(Stream stream) const override { return streamOf(std::exchange(simulated::currentStream, number(stream))); }
  void destroyEvent(void* event, DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  void record(void** event, const Stream& stream, DeviceIndex, c10::EventFlag) const override {
    if (!*event) *event = new Event();
    Device::get().record(eventOf(*event), number(stream));
  }
  void block(void* event, const Stream& stream) const override {
    if (event) Device::get().block(eventOf(event), number(stream));
  }
  bool queryEvent(void* event) const override {
    if (event) Device::get().synchronize(eventOf(event));
    return true;
  }
  bool queryStream(const Stream& stream) const override {
    Device::get().synchronizeStream(number(stream));
    return true;
  }
  void synchronizeStream(const Stream& stream) const override { Device::get().synchronizeStream(number(stream)); }
  void synchronizeEvent(void* event) const override {
    if (event) Device::get().synchronize(eventOf(event));
  }
  void synchronizeDevice(DeviceIndex) const override { Device::get().synchronizeDevice(); }
  void recordDataPtrOnStream(const c10::DataPtr& data, const Stream& stream) const override {
    Device::get().recordUse(data.get(), number(stream));
  }
  double elapsedTime(void*, void*, DeviceIndex) const override { return 0; }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace

namespace at {

// The name that libtorch asks for.
using CUDAHooks = ::Hooks;
REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at

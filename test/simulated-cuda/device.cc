// The memory, the streams and the host of the simulated GPU.
#include "device.h"

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstring>

namespace simulated {

namespace {

const c10::Device kDevice(c10::DeviceType::CUDA, 0);

// What keeps a piece of memory alive: its own allocation, or a storage of the CPU.
struct Owner {
  const void* data;
  c10::DataPtr own;
  c10::Storage adopted;
};

struct PinnedOwner {
  c10::DataPtr own;
};

void advance(Clock& clock, const Clock& by) {
  for (size_t i = 0; i < kStreams; ++i) clock[i] = std::max(clock[i], by[i]);
}

}  // namespace

Device& Device::get() {
  static auto* device = new Device();  // never destroyed: libtorch's threads may outlive every static object
  return *device;
}

c10::DataPtr Device::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto own = c10::GetCPUAllocator()->allocate(std::max<size_t>(bytes, 1));
  void* data = own.get();
  std::memset(data, 0xff, bytes);  // not a number, for whoever reads what was never written
  uses_[data] = Use{currentStream};
  return {data, new Owner{data, std::move(own), {}}, &release, kDevice};
}

c10::DataPtr Device::adopt(const c10::Storage& storage) {
  const std::lock_guard lock(mutex_);
  void* data = storage.mutable_data();
  if (data) uses_[data] = Use{currentStream};
  return {data, new Owner{data, {}, storage}, &release, kDevice};
}

void Device::release(void* context) {
  auto* owner = static_cast<Owner*>(context);
  auto& device = get();
  {
    const std::lock_guard lock(device.mutex_);
    if (const auto found = device.uses_.find(owner->data); found != device.uses_.end()) {
      const auto& use = found->second;
      const size_t home = use.allocatedOn;
      auto known = device.clocks_[home];
      advance(known, device.host_);
      // The next allocation of the home stream may be this memory: all other streams have to be done with it, or the allocator told.
      for (size_t s = 0; s < kStreams; ++s) {
        const uint64_t time = std::max(use.read[s], use.writer == s ? use.written : 0);
        if (s != home && time > known[s] && !use.recorded[s]) {
          device.problems_.push_back("memory of stream " + std::to_string(home) + " (" + use.last + ") was freed while stream " +
                                     std::to_string(s) + " uses it");
        }
      }
      device.uses_.erase(found);
    }
  }
  delete owner;
}

c10::DataPtr Device::allocatePinned(size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto own = c10::GetCPUAllocator()->allocate(std::max<size_t>(bytes, 1));
  void* data = own.get();
  pinned_.emplace_back(static_cast<const char*>(data), bytes);
  return {data, new PinnedOwner{std::move(own)}, [](void* context) {
            auto* owner = static_cast<PinnedOwner*>(context);
            auto& device = get();
            const std::lock_guard lock(device.mutex_);
            std::erase_if(device.pinned_, [&](const auto& block) { return block.first == owner->own.get(); });
            delete owner;
          }, c10::Device(c10::DeviceType::CPU)};
}

bool Device::isPinned(const void* data) {
  const std::lock_guard lock(mutex_);
  const auto* byte = static_cast<const char*>(data);
  return std::any_of(pinned_.begin(), pinned_.end(), [&](const auto& block) { return byte >= block.first && byte < block.first + block.second; });
}

void Device::flush(size_t stream) {
  while (!pending_[stream].empty()) {
    const auto work = std::move(pending_[stream]);
    pending_[stream].clear();
    for (const auto& piece : work) piece();
  }
}

void Device::begin(size_t stream) {
  flush(stream);
  advance(clocks_[stream], host_);
  ++clocks_[stream][stream];
}

void Device::use(const void* data, size_t stream, bool write, const std::string& name) {
  const auto found = uses_.find(data);
  if (found == uses_.end()) return;
  auto& use = found->second;
  const auto& clock = clocks_[stream];
  const auto complain = [&](const char* what, size_t other) {
    problems_.push_back(name + " on stream " + std::to_string(stream) + what + std::to_string(other) + " (" + use.last + "), which it does not wait for");
  };
  if (use.written > clock[use.writer]) complain(write ? " writes over what is written on stream " : " reads what is written on stream ", use.writer);
  if (write) {
    for (size_t s = 0; s < kStreams; ++s) {
      if (s != stream && use.read[s] > clock[s]) complain(" writes over what is read on stream ", s);
    }
    use.writer = stream;
    use.written = clock[stream];
    use.last = name;
  } else {
    use.read[stream] = clock[stream];
  }
}

void Device::launch(const std::vector<const void*>& reads, const std::vector<const void*>& writes, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const size_t stream = currentStream;
  begin(stream);
  ++counts_.kernels;
  for (const void* data : reads) use(data, stream, false, name);
  for (const void* data : writes) use(data, stream, true, name);
}

void Device::defer(const void* to, std::function<void()> copy) {
  const std::lock_guard lock(mutex_);
  const size_t stream = currentStream;
  advance(clocks_[stream], host_);
  ++clocks_[stream][stream];
  use(to, stream, true, "copy");
  pending_[stream].push_back(std::move(copy));
}

void Device::countCopy(bool toDevice) {
  const std::lock_guard lock(mutex_);
  ++(toDevice ? counts_.toDevice : counts_.toHost);
}

void Device::seen(const Clock& clock) { advance(host_, clock); }

void Device::hostWaits(const std::string& name) {
  const std::lock_guard lock(mutex_);
  TORCH_CHECK(!waitingForbidden_, name, " waits for the device, which was forbidden");
  ++counts_.waits;
  flush(currentStream);
  seen(clocks_[currentStream]);
}

void Device::record(Event& event, size_t stream) {
  const std::lock_guard lock(mutex_);
  advance(clocks_[stream], host_);
  event.clock = clocks_[stream];
  event.stream = stream;
}

void Device::block(const Event& event, size_t stream) {
  const std::lock_guard lock(mutex_);
  advance(clocks_[stream], event.clock);
  const size_t from = event.stream;
  if (from != stream && !pending_[from].empty()) pending_[stream].push_back([this, from] { flush(from); });
}

void Device::synchronize(const Event& event) {
  const std::lock_guard lock(mutex_);
  flush(event.stream);
  seen(event.clock);
}

void Device::synchronizeStream(size_t stream) {
  const std::lock_guard lock(mutex_);
  flush(stream);
  seen(clocks_[stream]);
}

void Device::synchronizeDevice() {
  for (size_t stream = 0; stream < kStreams; ++stream) synchronizeStream(stream);
}

void Device::recordUse(const void* data, size_t stream) {
  const std::lock_guard lock(mutex_);
  if (const auto found = uses_.find(data); found != uses_.end()) found->second.recorded[stream] = true;
}

size_t Device::newStream() {
  const std::lock_guard lock(mutex_);
  return 1 + nextStream_++ % (kStreams - 1);
}

Counts Device::counts() {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void Device::reset() {
  const std::lock_guard lock(mutex_);
  counts_ = {};
  problems_.clear();
}

void Device::forbidWaiting(bool forbidden) {
  const std::lock_guard lock(mutex_);
  waitingForbidden_ = forbidden;
}

std::vector<std::string> Device::problems() {
  const std::lock_guard lock(mutex_);
  return problems_;
}

}  // namespace simulated

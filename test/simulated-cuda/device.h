// A GPU without a GPU: the device `cuda:0` of a libtorch that was built without CUDA. Its memory is the processor's and each kernel is the
// CPU's, run at once; but tensors lie on a device of their own, as strictly as on a real one: operands on two devices are an error, copies to
// and from it are counted, copies that nobody waits for come late, and work of two streams on the same memory that nothing orders is found.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace simulated {

constexpr size_t kStreams = 33;  // the default one, and those of the pool

// For each stream how much of its work is known to be done.
using Clock = std::array<uint64_t, kStreams>;

struct Counts {
  int64_t toDevice = 0;  // copies from the host
  int64_t toHost = 0;    // copies to the host
  int64_t waits = 0;     // times that the host waited for the device inside an operator
  int64_t kernels = 0;
};

struct Event {
  Clock clock{};
  size_t stream = 0;
};

// Everything of the device, behind one lock: libtorch's own threads work on it in backward.
class Device {
 public:
  static Device& get();

  c10::DataPtr allocate(size_t bytes);
  // Memory that a kernel of the CPU has allocated becomes the device's.
  c10::DataPtr adopt(const c10::Storage& storage);
  c10::DataPtr allocatePinned(size_t bytes);
  bool isPinned(const void* data);

  // The current stream of this thread does a piece of work, by now, with these pieces of memory.
  void launch(const std::vector<const void*>& reads, const std::vector<const void*>& writes, const std::string& name);
  // A copy from pinned memory that is not waited for: done when something asks for the stream's work.
  void defer(const void* to, std::function<void()> copy);
  // The host waits for the current stream inside an operator.
  void hostWaits(const std::string& name);
  void countCopy(bool toDevice);

  void record(Event& event, size_t stream);
  void block(const Event& event, size_t stream);
  void synchronize(const Event& event);
  void synchronizeStream(size_t stream);
  void synchronizeDevice();
  void recordUse(const void* data, size_t stream);
  size_t newStream();

  Counts counts();
  void reset();
  // Whether waiting inside an operator is an error.
  void forbidWaiting(bool forbidden);
  std::vector<std::string> problems();

 private:
  // What the streams have done with a piece of memory.
  struct Use {
    size_t allocatedOn = 0;
    size_t writer = 0;
    uint64_t written = 0;                   // the writer's time; 0 = never
    Clock read{};                           // by stream, the time of the last reading
    std::array<bool, kStreams> recorded{};  // whether the allocator was told that the stream uses it
    std::string last;                       // the operator that wrote it
  };

  // All with the lock held.
  void flush(size_t stream);
  void begin(size_t stream);
  void use(const void* data, size_t stream, bool write, const std::string& name);
  void seen(const Clock& clock);
  static void release(void* context);

  std::recursive_mutex mutex_;
  std::unordered_map<const void*, Use> uses_;
  std::vector<std::pair<const char*, size_t>> pinned_;
  std::array<Clock, kStreams> clocks_{};  // what has happened before the next piece of work of each stream
  std::array<std::vector<std::function<void()>>, kStreams> pending_;
  Clock host_{};  // what the host has seen done
  size_t nextStream_ = 0;
  Counts counts_;
  bool waitingForbidden_ = false;
  std::vector<std::string> problems_;
};

// The stream that this thread gives work to.
inline thread_local size_t currentStream = 0;

}  // namespace simulated

// CUDA graphs: what a callback asks of a GPU, recorded once and launched again as a whole.
#include "graph.h"

#include "cuda.h"
#include "exports.h"

#ifdef GMML_CUDA_HEADERS
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace gmml {

#ifdef GMML_CUDA_HEADERS

// A graph with a stream of its own. Warm-up and capture run on that one stream, so that what libraries allocate for a stream once, cuBLAS'
// workspace for instance, is there before the capture and lies outside the graph's memory. A stream that waits for nobody is also what
// CUDA demands of a capture.
class CapturedGraph : public at::cuda::CUDAGraph {
 public:
  explicit CapturedGraph(c10::DeviceIndex device) : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)) {}

  // Makes the graph's stream the current one; it goes on from what the current one has been asked to do.
  void enter() {
    if (entered_) throw ValueError("the graph is being warmed up or captured already");
    previousDevice_ = c10::cuda::current_device();
    c10::cuda::set_device(stream_.device_index());
    previous_ = c10::cuda::getCurrentCUDAStream(stream_.device_index());
    waitFor(stream_, *previous_);
    c10::cuda::setCurrentCUDAStream(stream_);
    entered_ = true;
  }

  void leave() {
    if (!entered_) throw ValueError("the graph is not being warmed up");
    entered_ = false;
    c10::cuda::setCurrentCUDAStream(*previous_);
    waitFor(*previous_, stream_);
    c10::cuda::set_device(previousDevice_);
  }

  void begin(c10::MempoolId_t memory) {
    if (captured_) throw ValueError("the graph holds a capture already: make another one");
    enter();
    try {
      // Nothing may be under way, and as much memory as possible is to be had: a graph's own cannot be used by others.
      c10::cuda::device_synchronize();
      c10::cuda::CUDACachingAllocator::emptyCache();
      capturing_ = true;
      // Not `Global`: that would forbid other threads what they may do meanwhile (waiting for an event, allocating), and backward runs
      // on a thread of libtorch's.
      capture_begin(memory, cudaStreamCaptureModeThreadLocal);
    } catch (...) {
      abandon();
      throw;
    }
  }

  void end() {
    if (!capturing_) throw ValueError("the graph is not being captured");
    try {
      capture_end();
    } catch (...) {
      abandon();
      throw;
    }
    capturing_ = false;
    captured_ = true;
    leave();
  }

  // Ends a capture that failed, and puts everything back so that the process goes on as if there had been none.
  void abandon() noexcept {
    if (!capturing_) {
      if (entered_) swallow([&] { leave(); });
      return;
    }
    capturing_ = false;
    swallow([&] {
      c10::cuda::setCurrentCUDAStream(stream_);  // where the callback left another one
      capture_end();
    });
    cleanUp(*this);
    swallow([&] { reset(); });
    C10_CUDA_CLEAR_ERROR();
    swallow([&] { leave(); });
    C10_CUDA_CLEAR_ERROR();
  }

  void launch() {
    if (!captured_) throw ValueError("expected a captured graph, received one without a capture");
    if (entered_) throw ValueError("the graph is being warmed up");
    replay();
  }

  c10::MempoolId_t memory() {
    if (!captured_) throw ValueError("expected a captured graph to share memory with, received one without a capture");
    return pool();
  }

  bool isBusy() const { return entered_; }

  // False where the graph could not be taken apart: its destructor would try once more and end the process.
  bool release() noexcept {
    if (capturing_) abandon();
    bool released = false;
    swallow([&] {
      reset();
      released = true;
    });
    return released;
  }

 private:
  static void waitFor(const c10::cuda::CUDAStream& waiting, const c10::cuda::CUDAStream& other) {
    at::cuda::CUDAEvent event;
    event.record(other);
    event.block(waiting);
  }

  template <typename Action>
  static void swallow(Action action) noexcept {
    try {
      action();
    } catch (...) {
    }
  }

  // What reset() forgets after a capture that failed, by libtorch's version: before 2.14 the allocators go on to serve the capture, by a
  // pointer to a graph that may be gone; in older ones the generator also believes that it goes on, and refuses every random number.
  // Templates, so that members which a version lacks are no errors.
  template <typename Self>
  static void cleanUp(Self& self) noexcept {
    if constexpr (!requires { self.capturing_to_pool_; }) {
      swallow([&] {
        c10::cuda::CUDACachingAllocator::endAllocateToPool(self.capture_dev_, self.mempool_id_);  // throws if it had ended
        c10::cuda::CUDACachingAllocator::releasePool(self.capture_dev_, self.mempool_id_);
        endHostMemory(at::getHostAllocator(at::kCUDA), self.mempool_id_);
      });
    }
    for (auto& [state, increment] : self.captured_generator_states_) {
      if constexpr (requires { state->capturing_; }) state->capturing_ = false;
    }
  }

  template <typename Allocator>
  static void endHostMemory(Allocator* allocator, c10::MempoolId_t memory) {
    if constexpr (requires { allocator->end_allocate_to_pool(memory); }) {
      allocator->end_allocate_to_pool(memory);
      allocator->release_pool(memory);
    }
  }

  c10::cuda::CUDAStream stream_;
  std::optional<c10::cuda::CUDAStream> previous_;
  c10::DeviceIndex previousDevice_ = 0;
  bool entered_ = false, capturing_ = false, captured_ = false;
};

#else

// Without CUDA's headers there is never one.
class CapturedGraph {
 public:
  void enter() {}
  void leave() {}
  void end() {}
  void abandon() {}
  void launch() {}
  bool isBusy() const { return false; }
};

#endif

namespace {

// Shared, so that it outlives a callback that disposes of it.
std::shared_ptr<CapturedGraph> graphAt(const Napi::CallbackInfo& info, size_t index) {
  return environmentOf(info).graphs.get(handleAt(info, index, "a graph"));
}

Napi::Value makeGraph(const Napi::CallbackInfo& info) {
  [[maybe_unused]] const auto device = cudaDeviceAt(info, 0);
#ifdef GMML_CUDA_HEADERS
  const auto release = [](CapturedGraph* graph) {
    if (graph->release()) delete graph;
  };
  std::shared_ptr<CapturedGraph> graph(new CapturedGraph(device.index()), release);
  return Napi::Number::New(info.Env(), environmentOf(info).graphs.insert(std::move(graph)));
#else
  throw ValueError("CUDA graphs need an addon that was built with CUDA's headers (gmml inspect says more)");
#endif
}

Napi::Value enterGraph(const Napi::CallbackInfo& info) {
  graphAt(info, 0)->enter();
  return info.Env().Undefined();
}

Napi::Value leaveGraph(const Napi::CallbackInfo& info) {
  graphAt(info, 0)->leave();
  return info.Env().Undefined();
}

// beginCapture(graph, other | null): into memory that the other graph has already, where one is given.
Napi::Value beginCapture(const Napi::CallbackInfo& info) {
  const auto graph = graphAt(info, 0);
#ifdef GMML_CUDA_HEADERS
  graph->begin(info[1].IsNull() ? c10::MempoolId_t{0, 0} : graphAt(info, 1)->memory());
#endif
  return info.Env().Undefined();
}

Napi::Value endCapture(const Napi::CallbackInfo& info) {
  graphAt(info, 0)->end();
  return info.Env().Undefined();
}

// After an error while the graph was entered.
Napi::Value abandonGraph(const Napi::CallbackInfo& info) {
  graphAt(info, 0)->abandon();
  return info.Env().Undefined();
}

Napi::Value replayGraph(const Napi::CallbackInfo& info) {
  graphAt(info, 0)->launch();
  return info.Env().Undefined();
}

Napi::Value disposeGraph(const Napi::CallbackInfo& info) {
  auto& graphs = environmentOf(info).graphs;
  const double handle = handleAt(info, 0, "a graph");
  if (!graphs.isLive(handle)) return info.Env().Undefined();  // twice is harmless
  if (graphs.get(handle)->isBusy()) throw ValueError("the graph is being warmed up or captured: dispose of it afterwards");
  graphs.dispose(handle);
  return info.Env().Undefined();
}

}  // namespace

void initGraph(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"makeGraph", makeGraph>(env, exports, environment);
  exportFunction<"enterGraph", enterGraph>(env, exports, environment);
  exportFunction<"leaveGraph", leaveGraph>(env, exports, environment);
  exportFunction<"beginCapture", beginCapture>(env, exports, environment);
  exportFunction<"endCapture", endCapture>(env, exports, environment);
  exportFunction<"abandonGraph", abandonGraph>(env, exports, environment);
  exportFunction<"replayGraph", replayGraph>(env, exports, environment);
  exportFunction<"disposeGraph", disposeGraph>(env, exports, environment);
}

}  // namespace gmml

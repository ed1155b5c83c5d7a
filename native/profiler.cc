// Recording what libtorch does, by its own profiler (Kineto), and names for the tools of the GPU's vendor (NVTX).
#include "profiler.h"

#include "cuda.h"
#include "exports.h"
#include "promised-work.h"

#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/csrc/profiler/stubs/base.h>

#include <atomic>

namespace gmml {

namespace {

using torch::profiler::impl::ActivityType;

// Kineto records one trace at a time for the whole process.
std::atomic<bool> recording{false};

// startProfiler(cpu, cuda, shapes)
Napi::Value startProfiler(const Napi::CallbackInfo& info) {
  std::set<ActivityType> activities;
  if (boolAt(info, 0)) activities.insert(ActivityType::CPU);
  if (boolAt(info, 1)) {
    requireCuda();
    activities.insert(ActivityType::CUDA);
  }
  const bool shapes = boolAt(info, 2);
  if (activities.empty()) throw ValueError("expected an activity to record, received none");
  if (recording.exchange(true)) throw ValueError("a profiler is recording already: one at a time in a process");
  try {
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO, shapes);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
  } catch (...) {
    recording = false;
    throw;
  }
  environmentOf(info).profiling.active = true;
  return info.Env().Undefined();
}

// Ends the recording of this thread; null if there is none.
std::unique_ptr<torch::autograd::profiler::ProfilerResult> endRecording(Profiling& profiling) {
  if (!profiling.active) return nullptr;
  profiling.active = false;
  auto result = torch::autograd::profiler::disableProfiler();
  recording = false;
  return result;
}

// Writing a trace takes as long as its size says: on a libuv worker.
class SaveTrace : public PromisedWork {
 public:
  SaveTrace(const Napi::CallbackInfo& info, std::unique_ptr<torch::autograd::profiler::ProfilerResult> trace, std::string path)
      : PromisedWork(info, "stopProfiler"), trace_(std::move(trace)), path_(std::move(path)) {}

 private:
  void work() override {
    trace_->save(path_);
    trace_.reset();
  }

  std::unique_ptr<torch::autograd::profiler::ProfilerResult> trace_;
  std::string path_;
};

// stopProfiler(path): writes a trace in Chrome's format. Without a path what was recorded is dropped.
Napi::Value stopProfiler(const Napi::CallbackInfo& info) {
  const bool save = !info[0].IsNull();
  const std::string path = save ? stringAt(info, 0) : "";
  auto trace = endRecording(environmentOf(info).profiling);
  if (!trace) throw ValueError("no profiler is recording in this thread");
  const auto promised = [&]() -> PromisedWork* {
    if (save) return new SaveTrace(info, std::move(trace), path);
    return new PromisedWait(info, "stopProfiler", [] {});
  };
  return promised()->start();
}

// enterRegion(name): a named part of the trace. Regions nest, so JavaScript leaves them in the opposite order.
Napi::Value enterRegion(const Napi::CallbackInfo& info) {
  auto& regions = environmentOf(info).profiling.regions;
  const auto name = stringAt(info, 0);
  auto region = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
  if (region->isActive()) region->before(name);
  regions.push_back(std::move(region));
  return info.Env().Undefined();
}

Napi::Value leaveRegion(const Napi::CallbackInfo& info) {
  auto& regions = environmentOf(info).profiling.regions;
  if (regions.empty()) throw ValueError("no region to leave");
  regions.pop_back();
  return info.Env().Undefined();
}

// Nothing happens without CUDA: NVTX is for whoever looks at a GPU.
const torch::profiler::impl::ProfilerStubs* nvtx() {
  const auto* stubs = torch::profiler::impl::cudaStubs();
  return stubs && stubs->enabled() ? stubs : nullptr;
}

Napi::Value nvtxPush(const Napi::CallbackInfo& info) {
  const auto name = stringAt(info, 0);
  if (const auto* stubs = nvtx()) stubs->rangePush(name.c_str());
  return info.Env().Undefined();
}

Napi::Value nvtxPop(const Napi::CallbackInfo& info) {
  if (const auto* stubs = nvtx()) stubs->rangePop();
  return info.Env().Undefined();
}

Napi::Value nvtxMark(const Napi::CallbackInfo& info) {
  const auto name = stringAt(info, 0);
  if (const auto* stubs = nvtx()) stubs->mark(name.c_str());
  return info.Env().Undefined();
}

}  // namespace

Profiling::~Profiling() {
  while (!regions.empty()) regions.pop_back();
  try {
    endRecording(*this);
  } catch (const std::exception&) {
  }
}

void initProfiler(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"startProfiler", startProfiler>(env, exports, environment);
  exportFunction<"stopProfiler", stopProfiler>(env, exports, environment);
  exportFunction<"enterRegion", enterRegion>(env, exports, environment);
  exportFunction<"leaveRegion", leaveRegion>(env, exports, environment);
  exportFunction<"nvtxPush", nvtxPush>(env, exports, environment);
  exportFunction<"nvtxPop", nvtxPop>(env, exports, environment);
  exportFunction<"nvtxMark", nvtxMark>(env, exports, environment);
}

}  // namespace gmml

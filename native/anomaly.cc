// Anomaly mode: nodes of the graph remember the JavaScript call that made them. JavaScript leaves its stack here as text before each call
// of an operator; libtorch picks it up when it makes nodes, and gives it back, from whatever thread, for the node whose backward failed.
#include "anomaly.h"

#include "arguments.h"
#include "exports.h"

#include <dlfcn.h>
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>

#include <map>
#include <mutex>

namespace gmml {

namespace {

using torch::autograd::AnomalyMetadata;
using torch::autograd::AnomalyMode;
using torch::autograd::Edge;
using torch::autograd::Engine;
using torch::autograd::variable_list;
using NodePtr = decltype(Edge::function);

struct CallSite {
  std::string stack;
  const AnomalyRegion* owner;
};

struct Failure {
  std::string node;
  std::shared_ptr<const CallSite> site;
};

thread_local std::shared_ptr<const CallSite> currentSite;

std::mutex anomalyMutex;                        // of the two below
std::vector<Failure> failures;                  // until their thread asks
std::map<const AnomalyRegion*, bool> watchers;  // the threads with anomaly mode on, and whether they look for NaN

class ForwardCall final : public AnomalyMetadata {
 public:
  void store_stack() override { site_ = currentSite; }

  void print_stack(const std::string& node) override {
    if (!site_) return;
    const std::lock_guard<std::mutex> lock(anomalyMutex);
    failures.push_back({node, site_});
  }

  // A node that backward makes, for a second derivative, belongs to the call whose gradient is being computed.
  void assign_parent(const NodePtr& parent) override {
    if (!parent) return;
    const auto* metadata = dynamic_cast<ForwardCall*>(parent->metadata());
    if (metadata && metadata->site_) site_ = metadata->site_;
  }

 private:
  std::shared_ptr<const CallSite> site_;
};

// libtorch asks its engine for what a node remembers. Everything else is left to the engine that does the work, and its threads.
class RememberingEngine final : public Engine {
 public:
  RememberingEngine() = default;

  std::unique_ptr<AnomalyMetadata> make_anomaly_metadata() override { return std::make_unique<ForwardCall>(); }

  variable_list execute(const torch::autograd::edge_list& roots, const variable_list& inputs, bool keepGraph, bool createGraph,
                        bool accumulate, const torch::autograd::edge_list& outputs) override {
    return get_base_engine().execute(roots, inputs, keepGraph, createGraph, accumulate, outputs);
  }

  c10::intrusive_ptr<at::ivalue::Future> execute_with_graph_task(const std::shared_ptr<torch::autograd::GraphTask>& task, NodePtr root,
                                                                 torch::autograd::InputBuffer&& buffer) override {
    return get_base_engine().execute_with_graph_task(task, std::move(root), std::move(buffer));
  }
};

Engine& rememberingEngine() {
  static auto* engine = new RememberingEngine();  // outlives every thread that may ask for it
  return *engine;
}

// Once, at the first use. The engine's code must stay where it is when the last thread that has loaded the addon ends.
void install() {
  static const bool installed = [] {
    Dl_info library;
    if (!dladdr(reinterpret_cast<void*>(&rememberingEngine), &library)) return false;
    if (!dlopen(library.dli_fname, RTLD_NOW | RTLD_NODELETE)) return false;
    torch::autograd::set_default_engine_stub(rememberingEngine);
    return true;
  }();
  if (!installed) throw ValueError("anomaly mode is not available: the addon cannot find its own file");
}

// The mode is libtorch's for all threads: on as long as one wants it.
void update(const AnomalyRegion* region, AnomalyRegion::State state) {
  const std::lock_guard<std::mutex> lock(anomalyMutex);
  if (state == AnomalyRegion::State::Off) {
    watchers.erase(region);
    std::erase_if(failures, [&](const Failure& failure) { return failure.site->owner == region; });
  } else {
    watchers[region] = state == AnomalyRegion::State::CheckNan;
  }
  bool checkNan = false;
  for (const auto& [_, check] : watchers) checkNan |= check;
  AnomalyMode::set_enabled(!watchers.empty(), checkNan);
}

std::vector<Failure> takeFailures(const AnomalyRegion* owner) {
  const std::lock_guard<std::mutex> lock(anomalyMutex);
  std::vector<Failure> taken;
  std::erase_if(failures, [&](Failure& failure) {
    if (failure.site->owner != owner) return false;
    taken.push_back(std::move(failure));
    return true;
  });
  return taken;
}

// setAnomaly(state): 0 off, 1 on, 2 on and looking for NaN. Gives the state before.
Napi::Value setAnomaly(const Napi::CallbackInfo& info) {
  const double state = numberAt(info, 0);
  if (state != 0 && state != 1 && state != 2) refuseAt(info, 0, "0, 1 or 2");
  auto& region = environmentOf(info).anomaly;
  const auto before = region.state();
  if (state != 0) install();
  region.set(static_cast<AnomalyRegion::State>(static_cast<int>(state)));
  if (state == 0) currentSite.reset();
  return Napi::Number::New(info.Env(), static_cast<int>(before));
}

Napi::Value setCallSite(const Napi::CallbackInfo& info) {
  currentSite = std::make_shared<const CallSite>(CallSite{stringAt(info, 0), &environmentOf(info).anomaly});
  return info.Env().Undefined();
}

// The node whose backward failed last in a pass of this thread, and the call that made it; null if none did.
Napi::Value takeAnomaly(const Napi::CallbackInfo& info) {
  const auto taken = takeFailures(&environmentOf(info).anomaly);
  if (taken.empty()) return info.Env().Null();
  auto result = Napi::Object::New(info.Env());
  result.Set("node", taken.back().node);
  result.Set("stack", taken.back().site->stack);
  return result;
}

}  // namespace

void AnomalyRegion::set(State state) {
  if (state == state_) return;
  state_ = state;
  update(this, state);
}

void initAnomaly(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"setAnomaly", setAnomaly>(env, exports, environment);
  exportFunction<"setCallSite", setCallSite>(env, exports, environment);
  exportFunction<"takeAnomaly", takeAnomaly>(env, exports, environment);
}

}  // namespace gmml

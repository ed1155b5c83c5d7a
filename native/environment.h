#pragma once

#include "anomaly.h"
#include "checkpoint.h"
#include "graph.h"
#include "handles.h"
#include "operators.h"
#include "pinned.h"
#include "profiler.h"

#include <c10/core/InferenceMode.h>
#include <napi.h>

#include <memory>
#include <vector>

namespace gmml {

// All state of the addon in one JavaScript thread. Nothing is kept elsewhere, so any number of worker threads can load it.
struct Environment {
  TensorTable tensors;
  GeneratorTable generators{"generator"};
  GraphTable graphs{"graph"};
  StreamTable streams;
  EventTable events{"event"};
  PinnedTable pinned{"pinned memory"};
  std::vector<std::unique_ptr<CompiledOperator>> operators;
  torch::jit::Stack stack;  // kept for its capacity; empty between calls
  Napi::FunctionReference errorClass, outOfMemoryClass;
  AnomalyRegion anomaly;
  Checkpoints checkpoints;
  Profiling profiling;
  std::vector<std::unique_ptr<c10::InferenceMode>> inferenceModes;  // those that JavaScript is in, the innermost last
};

inline Environment& environmentOf(const Napi::CallbackInfo& info) { return *static_cast<Environment*>(info.Data()); }

// Tells V8 of tensor memory in steps: a call for each tensor would make it collect far too often.
inline void reportMemory(napi_env env, Environment& environment) {
  constexpr int64_t step = 16 << 20;
  const int64_t bytes = environment.tensors.unreportedBytes();
  if (bytes < step && bytes > -step) return;
  int64_t total;
  napi_adjust_external_memory(env, environment.tensors.takeUnreportedBytes(), &total);
}

}  // namespace gmml

#include "arguments.h"
#include "environment.h"
#include "errors.h"
#include "exports.h"

namespace gmml {

namespace {

// setErrorClasses(TorchError, OutOfMemoryError): what errors from this addon are made of, by (message, operator, detail, memory).
Napi::Value setErrorClasses(const Napi::CallbackInfo& info) {
  for (size_t i = 0; i < 2; ++i) {
    if (!info[i].IsFunction()) refuseAt(info, i, "a class");
  }
  auto& environment = environmentOf(info);
  environment.errorClass = Napi::Persistent(info[0].As<Napi::Function>());
  environment.outOfMemoryClass = Napi::Persistent(info[1].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment();
  env.SetInstanceData(environment);  // freed with the JavaScript thread
  exportFunction<"setErrorClasses", setErrorClasses>(env, exports, *environment);
  initOperators(env, exports, *environment);
  initTensors(env, exports, *environment);
  initStorage(env, exports, *environment);
  initAutograd(env, exports, *environment);
  initAnomaly(env, exports, *environment);
  initCheckpoint(env, exports, *environment);
  initRandom(env, exports, *environment);
  initGraph(env, exports, *environment);
  initImages(env, exports, *environment);
  initCuda(env, exports, *environment);
  initCudaMemory(env, exports, *environment);
  initStreams(env, exports, *environment);
  initPinned(env, exports, *environment);
  initNumerics(env, exports, *environment);
  initProfiler(env, exports, *environment);
  initSignals(env, exports, *environment);
  initSystem(env, exports, *environment);
  return exports;
}

}  // namespace

}  // namespace gmml

static Napi::Object initAddon(Napi::Env env, Napi::Object exports) { return gmml::init(env, exports); }

NODE_API_MODULE(gmml, initAddon)

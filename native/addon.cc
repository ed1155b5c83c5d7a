#include "environment.h"
#include "errors.h"
#include "exports.h"

namespace gmml {

namespace {

// The class that errors from this addon are made of: new TorchError(message, operator, detail).
Napi::Value setErrorClass(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) throw ValueError("expected a class, received " + describeValue(info.Env(), info[0]));
  environmentOf(info).errorClass = Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment();
  env.SetInstanceData(environment);  // freed with the JavaScript thread
  exportFunction<"setErrorClass", setErrorClass>(env, exports, *environment);
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
  initStreams(env, exports, *environment);
  initPinned(env, exports, *environment);
  initSystem(env, exports, *environment);
  return exports;
}

}  // namespace

}  // namespace gmml

static Napi::Object initAddon(Napi::Env env, Napi::Object exports) { return gmml::init(env, exports); }

NODE_API_MODULE(gmml, initAddon)

#pragma once

#include <napi.h>

namespace gmml {

struct Environment;

// Each adds one file's functions to the addon's exports.
void initOperators(Napi::Env env, Napi::Object& exports, Environment& environment);
void initTensors(Napi::Env env, Napi::Object& exports, Environment& environment);
void initStorage(Napi::Env env, Napi::Object& exports, Environment& environment);
void initAutograd(Napi::Env env, Napi::Object& exports, Environment& environment);
void initAnomaly(Napi::Env env, Napi::Object& exports, Environment& environment);
void initCheckpoint(Napi::Env env, Napi::Object& exports, Environment& environment);
void initRandom(Napi::Env env, Napi::Object& exports, Environment& environment);
void initGraph(Napi::Env env, Napi::Object& exports, Environment& environment);
void initImages(Napi::Env env, Napi::Object& exports, Environment& environment);
void initCuda(Napi::Env env, Napi::Object& exports, Environment& environment);
void initCudaMemory(Napi::Env env, Napi::Object& exports, Environment& environment);
void initStreams(Napi::Env env, Napi::Object& exports, Environment& environment);
void initPinned(Napi::Env env, Napi::Object& exports, Environment& environment);
void initNumerics(Napi::Env env, Napi::Object& exports, Environment& environment);
void initProfiler(Napi::Env env, Napi::Object& exports, Environment& environment);
void initSignals(Napi::Env env, Napi::Object& exports, Environment& environment);
void initSystem(Napi::Env env, Napi::Object& exports, Environment& environment);

}  // namespace gmml

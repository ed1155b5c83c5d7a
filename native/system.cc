// Threads, and what this addon was built of.
#include "arguments.h"
#include "exports.h"
#include "jpeg.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/version.h>

#include <cmath>
#include <cstdlib>

namespace gmml {

namespace {

Napi::Value setNumThreads(const Napi::CallbackInfo& info) {
  const double count = numberAt(info, 0);
  if (!(count >= 1 && count <= 4096) || count != std::floor(count)) refuseAt(info, 0, "1 to 4096 threads");
  at::set_num_threads(static_cast<int>(count));
  return info.Env().Undefined();
}

Napi::Value numThreads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), at::get_num_threads()); }

// Does not come back, and waits for no thread.
Napi::Value exitAtOnce(const Napi::CallbackInfo& info) {
  const double code = numberAt(info, 0);
  if (!(code >= 0 && code <= 255) || code != std::floor(code)) refuseAt(info, 0, "an exit code of 0 to 255");
  std::_Exit(static_cast<int>(code));
}

Napi::Value buildInfo(const Napi::CallbackInfo& info) {
  auto result = Napi::Object::New(info.Env());
  result.Set("torch", TORCH_VERSION);
  result.Set("napi", static_cast<double>(NAPI_VERSION));
  result.Set("compiler", "g++ " __VERSION__);
  // Of the libtorch that this was built for: at::hasCUDA() is false where only the GPU is missing.
#ifdef GMML_CUDA
  result.Set("cuda", true);
#else
  result.Set("cuda", false);
#endif
  result.Set("jpeg", jpegVersion() ? Napi::Value(Napi::String::New(info.Env(), jpegVersion())) : info.Env().Null());
  result.Set("configuration", at::show_config());
  return result;
}

}  // namespace

void initSystem(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"setNumThreads", setNumThreads>(env, exports, environment);
  exportFunction<"numThreads", numThreads>(env, exports, environment);
  exportFunction<"exitAtOnce", exitAtOnce>(env, exports, environment);
  exportFunction<"buildInfo", buildInfo>(env, exports, environment);
}

}  // namespace gmml

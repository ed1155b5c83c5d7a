// Switches of libtorch that decide how exactly, how reproducibly and with which kernels it computes. They are the whole process's.
#include "arguments.h"
#include "exports.h"

#include <ATen/Context.h>

namespace gmml {

namespace {

// numerics(): every switch by its name.
Napi::Value numerics(const Napi::CallbackInfo& info) {
  const auto& context = at::globalContext();
  constexpr const char* precisions[] = {"highest", "high", "medium"};
  auto result = Napi::Object::New(info.Env());
  result.Set("matmulPrecision", precisions[static_cast<int>(context.float32MatmulPrecision())]);
  result.Set("matmulTF32", context.allowTF32CuBLAS());
  result.Set("cudnnTF32", context.allowTF32CuDNN());
  result.Set("cudnnBenchmark", context.benchmarkCuDNN());
  result.Set("deterministic", context.deterministicAlgorithms());
  result.Set("deterministicWarnOnly", context.deterministicAlgorithmsWarnOnly());
  result.Set("flash", context.userEnabledFlashSDP());
  result.Set("efficient", context.userEnabledMemEfficientSDP());
  result.Set("math", context.userEnabledMathSDP());
  result.Set("cudnn", context.userEnabledCuDNNSDP());
  return result;
}

Napi::Value setMatmulPrecision(const Napi::CallbackInfo& info) {
  const auto precision = stringAt(info, 0);
  if (precision != "highest" && precision != "high" && precision != "medium") refuseAt(info, 0, "'highest', 'high' or 'medium'");
  at::globalContext().setFloat32MatmulPrecision(precision);
  return info.Env().Undefined();
}

Napi::Value setDeterministic(const Napi::CallbackInfo& info) {
  const bool enabled = boolAt(info, 0), warnOnly = boolAt(info, 1);
  at::globalContext().setDeterministicAlgorithms(enabled, warnOnly);
  return info.Env().Undefined();
}

// One of the switches that are on or off.
Napi::Value setNumeric(const Napi::CallbackInfo& info) {
  constexpr std::pair<const char*, void (at::Context::*)(bool)> switches[] = {
      {"matmulTF32", &at::Context::setAllowTF32CuBLAS}, {"cudnnTF32", &at::Context::setAllowTF32CuDNN},
      {"cudnnBenchmark", &at::Context::setBenchmarkCuDNN}, {"flash", &at::Context::setSDPUseFlash},
      {"efficient", &at::Context::setSDPUseMemEfficient}, {"math", &at::Context::setSDPUseMath},
      {"cudnn", &at::Context::setSDPUseCuDNN}};
  const auto name = stringAt(info, 0);
  const bool enabled = boolAt(info, 1);
  for (const auto& [known, set] : switches) {
    if (name != known) continue;
    (at::globalContext().*set)(enabled);
    return info.Env().Undefined();
  }
  refuseAt(info, 0, "the name of a switch");
}

}  // namespace

void initNumerics(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"numerics", numerics>(env, exports, environment);
  exportFunction<"setMatmulPrecision", setMatmulPrecision>(env, exports, environment);
  exportFunction<"setDeterministic", setDeterministic>(env, exports, environment);
  exportFunction<"setNumeric", setNumeric>(env, exports, environment);
}

}  // namespace gmml

#include "nvrtc.h"

#ifdef GMML_CUDA_HEADERS

#include <ATen/DynamicLibrary.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda.h>

#include <map>
#include <mutex>

namespace gmml {

namespace {

// NVRTC's functions, declared here since nvrtc.h is not among the headers that every CUDA build of libtorch comes with.
struct Program;
using NvrtcResult = int;

// The library of libtorch that is linked with NVRTC and the driver; symbols of both are found through it, in the versions that libtorch
// itself uses. The addon is not linked with them: it has to load on a machine without a driver.
class Libraries {
 public:
  static Libraries& get() {
    static Libraries libraries;
    return libraries;
  }

 private:
  at::DynamicLibrary library_{"libcaffe2_nvrtc.so", nullptr, true};

  template <typename F>
  F* find(const char* name) {
    return reinterpret_cast<F*>(library_.sym(name));
  }

 public:
  NvrtcResult (*const create)(Program**, const char*, const char*, int, const char* const*, const char* const*) =
      find<NvrtcResult(Program**, const char*, const char*, int, const char* const*, const char* const*)>("nvrtcCreateProgram");
  NvrtcResult (*const compile)(Program*, int, const char* const*) = find<NvrtcResult(Program*, int, const char* const*)>("nvrtcCompileProgram");
  NvrtcResult (*const destroy)(Program**) = find<NvrtcResult(Program**)>("nvrtcDestroyProgram");
  NvrtcResult (*const logSize)(Program*, size_t*) = find<NvrtcResult(Program*, size_t*)>("nvrtcGetProgramLogSize");
  NvrtcResult (*const log)(Program*, char*) = find<NvrtcResult(Program*, char*)>("nvrtcGetProgramLog");
  NvrtcResult (*const binarySize)(Program*, size_t*) = find<NvrtcResult(Program*, size_t*)>("nvrtcGetCUBINSize");
  NvrtcResult (*const binary)(Program*, char*) = find<NvrtcResult(Program*, char*)>("nvrtcGetCUBIN");
  NvrtcResult (*const textSize)(Program*, size_t*) = find<NvrtcResult(Program*, size_t*)>("nvrtcGetPTXSize");
  NvrtcResult (*const text)(Program*, char*) = find<NvrtcResult(Program*, char*)>("nvrtcGetPTX");
  NvrtcResult (*const countArchitectures)(int*) = find<NvrtcResult(int*)>("nvrtcGetNumSupportedArchs");
  NvrtcResult (*const architectures)(int*) = find<NvrtcResult(int*)>("nvrtcGetSupportedArchs");
  const char* (*const reason)(NvrtcResult) = find<const char*(NvrtcResult)>("nvrtcGetErrorString");

  decltype(&cuCtxGetCurrent) const currentContext = find<decltype(cuCtxGetCurrent)>("cuCtxGetCurrent");
  decltype(&cuModuleLoadData) const loadModule = find<decltype(cuModuleLoadData)>("cuModuleLoadData");
  decltype(&cuModuleGetFunction) const getFunction = find<decltype(cuModuleGetFunction)>("cuModuleGetFunction");
  decltype(&cuLaunchKernel) const launch = find<decltype(cuLaunchKernel)>("cuLaunchKernel");
  decltype(&cuGetErrorString) const driverReason = find<decltype(cuGetErrorString)>("cuGetErrorString");

  void check(NvrtcResult result, const char* what) const { TORCH_CHECK(result == 0, what, ": ", reason(result)); }

  void check(CUresult result, const char* what) const {
    if (result == CUDA_SUCCESS) return;
    const char* text = nullptr;
    driverReason(result, &text);
    TORCH_CHECK(false, what, ": ", text ? text : "unknown error");
  }
};

// Machine code for the device; for one that is newer than NVRTC, PTX of the newest kind that it knows, which the driver compiles.
std::vector<char> compileKernel(const char* source, const Kernel& kernel, int architecture) {
  auto& nvrtc = Libraries::get();
  int count = 0;
  nvrtc.check(nvrtc.countArchitectures(&count), "nvrtcGetNumSupportedArchs");
  std::vector<int> known(count);
  nvrtc.check(nvrtc.architectures(known.data()), "nvrtcGetSupportedArchs");
  int target = 0;
  for (const int one : known) {
    if (one <= architecture) target = std::max(target, one);
  }
  TORCH_CHECK(target > 0, "NVRTC cannot compile for a device of compute capability ", architecture / 10, ".", architecture % 10);
  const bool exact = target == architecture;
  std::vector<std::string> options{"--std=c++17", (exact ? "--gpu-architecture=sm_" : "--gpu-architecture=compute_") + std::to_string(target),
                                   "-DKERNEL_" + kernel.name};
  for (const auto& [name, value] : kernel.defines) options.push_back("-D" + name + "=" + value);
  std::vector<const char*> texts;
  for (const auto& option : options) texts.push_back(option.c_str());

  Program* program = nullptr;
  nvrtc.check(nvrtc.create(&program, source, (kernel.name + ".cu").c_str(), 0, nullptr, nullptr), "nvrtcCreateProgram");
  const struct Destroyer {
    Program* program;
    ~Destroyer() { Libraries::get().destroy(&program); }
  } destroyer{program};
  if (const auto result = nvrtc.compile(program, static_cast<int>(texts.size()), texts.data())) {
    size_t size = 0;
    std::string log;
    if (nvrtc.logSize(program, &size) == 0) log.resize(size);
    nvrtc.log(program, log.data());
    TORCH_CHECK(false, "NVRTC could not compile ", kernel.name, " (", nvrtc.reason(result), "): ", log.c_str());
  }
  size_t size = 0;
  nvrtc.check((exact ? nvrtc.binarySize : nvrtc.textSize)(program, &size), "the size of a compiled kernel");
  std::vector<char> code(size);
  nvrtc.check((exact ? nvrtc.binary : nvrtc.text)(program, code.data()), "a compiled kernel");
  return code;
}

// Compiled kernels of all devices. They stay for the life of the process: a stream may still be running them when everything else ends.
CUfunction functionOf(int device, const char* source, const Kernel& kernel) {
  static auto& functions = *new std::map<std::string, CUfunction>();
  static std::mutex mutex;
  std::string key = std::to_string(device) + " " + kernel.name;
  for (const auto& [name, value] : kernel.defines) key += " " + name + "=" + value;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& function = functions[key];
  if (function) return function;
  const auto* properties = at::cuda::getDeviceProperties(device);
  const auto code = compileKernel(source, kernel, properties->major * 10 + properties->minor);
  auto& driver = Libraries::get();
  CUmodule module;
  driver.check(driver.loadModule(&module, code.data()), "loading a compiled kernel");
  driver.check(driver.getFunction(&function, module, kernel.name.c_str()), "finding a compiled kernel");
  return function;
}

}  // namespace

int multiprocessors(const at::Tensor& tensor) { return at::cuda::getDeviceProperties(tensor.get_device())->multiProcessorCount; }

void launchKernel(const at::Tensor& tensor, const char* source, const Kernel& kernel, const Grid& grid, void** arguments) {
  const c10::cuda::CUDAGuard guard(tensor.device());
  auto& driver = Libraries::get();
  // The driver's functions want a context, which a thread that has called none of the runtime's does not have yet.
  CUcontext context = nullptr;
  driver.check(driver.currentContext(&context), "cuCtxGetCurrent");
  if (!context) c10::cuda::set_device(tensor.get_device(), true);
  const auto function = functionOf(tensor.get_device(), source, kernel);
  const auto [x, y] = grid.blocks;
  const auto [tx, ty, tz] = grid.threads;
  const auto stream = at::cuda::getCurrentCUDAStream(tensor.get_device());
  driver.check(driver.launch(function, x, y, 1, tx, ty, tz, 0, stream.stream(), arguments, nullptr), kernel.name.c_str());
}

}  // namespace gmml

#else

namespace gmml {

int multiprocessors(const at::Tensor&) { return 1; }

void launchKernel(const at::Tensor&, const char*, const Kernel& kernel, const Grid&, void**) {
  TORCH_CHECK(false, kernel.name, " on cuda needs an addon that was built with CUDA's headers");
}

}  // namespace gmml

#endif

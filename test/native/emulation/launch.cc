// In place of native/nvrtc.cc: kernels are compiled for the host by the C++ compiler, and run as soon as they are launched. The operators
// of native/fused.cc are registered once more, as gmml_emulated::*, with the kernels for CUDA working on tensors of the CPU. Compiled
// with -Dgmml=gmml_emulated.
#include "../../../native/fused.cc"
#include "../../../native/fused_cuda.cc"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <dlfcn.h>
#include <fstream>
#include <map>

namespace gmml {

namespace {

using Run = void(unsigned, unsigned, unsigned, unsigned, unsigned, void**);

Run* functionOf(const char* source, const Kernel& kernel) {
  static std::map<std::string, Run*> functions;
  std::string options = " -DKERNEL_" + kernel.name;
  for (const auto& [name, value] : kernel.defines) options += " -D" + name + "=" + value;
  auto& function = functions[options];
  if (function) return function;
  const std::string folder = std::getenv("GMML_EMULATION_FOLDER"), file = folder + "/kernel" + std::to_string(functions.size());
  std::ofstream(file + ".cc") << "#include \"device.h\"\n" << source << R"(
inline float read(bf16 value) { return readBrain(value); }
inline float read(fp16 value) { return readHalf(value); }
inline void write(bf16& to, float value) { writeBrain(to, value); }
inline void write(fp16& to, float value) { writeHalf(to, value); }
extern "C" void run(unsigned blocksX, unsigned blocksY, unsigned x, unsigned y, unsigned z, void** arguments) {
  gridDim = {blocksX, blocksY, 1};
  emulation::kernelArguments = arguments;
  emulation::body = [](void** values) { emulation::call()" << kernel.name << R"(, values); };
  for (unsigned j = 0; j < blocksY; ++j) for (unsigned i = 0; i < blocksX; ++i) emulation::runBlock({i, j, 0}, {x, y, z});
}
)";
  std::ofstream(folder + "/options", std::ios::app) << options.substr(1) << "\n";
  const std::string command = std::string(std::getenv("GMML_EMULATION_COMPILER")) + " -std=c++20 -O1 -w -shared -fPIC -I" +
                              std::getenv("GMML_EMULATION_INCLUDE") + options + " " + file + ".cc -o " + file + ".so";
  TORCH_CHECK(std::system(command.c_str()) == 0, "this does not compile: ", command);
  void* library = dlopen((file + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
  TORCH_CHECK(library, dlerror());
  return function = reinterpret_cast<Run*>(dlsym(library, "run"));
}

}  // namespace

int multiprocessors(const at::Tensor&) { return 2; }

void launchKernel(const at::Tensor&, const char* source, const Kernel& kernel, const Grid& grid, void** arguments) {
  const auto [blocksX, blocksY] = grid.blocks;
  const auto [x, y, z] = grid.threads;
  functionOf(source, kernel)(blocksX, blocksY, x, y, z, arguments);
}

namespace fused {

const Kernels& kernelsOf(const at::Tensor&) { return cudaKernels; }

}  // namespace fused

}  // namespace gmml

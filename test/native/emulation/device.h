#pragma once

// CUDA's language on the host, for the kernels of native/fused_kernels.h: one fibre for each thread of a block, blocks one after the other.
// A fibre waits at barriers and in warp operations until the others have come there too; where some never come the program ends, so a
// barrier that not all threads reach is found.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define GMML_EMULATION 1
#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct Index3 {
  unsigned x, y, z;
};

static Index3 threadIdx, blockIdx, gridDim;

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStack = 256 << 10, kMostThreads = 1024;

struct Fibre {
  ucontext_t context;
  char* stack;
  Index3 index;
  bool done;
};

static Fibre fibres[kMostThreads];
static ucontext_t scheduler;
static size_t current;
static void (*body)(void**);
static void** kernelArguments;

// A place where `size` threads meet. `round` counts the meetings.
struct Barrier {
  unsigned size = 0, arrived = 0, round = 0;
};

static Barrier blockBarrier;
static Barrier warpBarriers[kMostThreads / kWarp];
static float exchanged[kMostThreads];
static bool progress;

inline void yield() { swapcontext(&fibres[current].context, &scheduler); }

inline void meet(Barrier& barrier) {
  const auto round = barrier.round;
  progress = true;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.round;
    return;
  }
  while (barrier.round == round) yield();
}

inline void runFibre() {
  body(kernelArguments);
  fibres[current].done = true;
  progress = true;
  swapcontext(&fibres[current].context, &scheduler);
}

inline void runBlock(Index3 block, Index3 threads) {
  const size_t count = threads.x * threads.y * threads.z;
  blockIdx = block;
  blockBarrier = {static_cast<unsigned>(count)};
  if (count > kMostThreads || count % kWarp) abort();
  for (auto& barrier : warpBarriers) barrier = {kWarp};
  for (size_t i = 0; i < count; ++i) {
    auto& fibre = fibres[i];
    if (!fibre.stack) fibre.stack = static_cast<char*>(malloc(kStack));
    fibre.index = {static_cast<unsigned>(i % threads.x), static_cast<unsigned>(i / threads.x % threads.y),
                   static_cast<unsigned>(i / (threads.x * threads.y))};
    fibre.done = false;
    getcontext(&fibre.context);
    fibre.context.uc_stack = {fibre.stack, 0, kStack};
    fibre.context.uc_link = &scheduler;
    makecontext(&fibre.context, runFibre, 0);
  }
  for (bool running = true; running;) {
    running = progress = false;
    for (current = 0; current < count; ++current) {
      if (fibres[current].done) continue;
      running = true;
      threadIdx = fibres[current].index;
      swapcontext(&scheduler, &fibres[current].context);
    }
    if (running && !progress) {
      fprintf(stderr, "not all threads of a block reached a barrier\n");
      abort();
    }
  }
}

// The kernel's parameters, each from the address that it was given at, as cuLaunchKernel reads them.
template <typename... Parameters>
void call(void (*kernel)(Parameters...), void** arguments) {
  // The elements of a braced list are evaluated in their order.
  struct Call {
    Call(void (*which)(Parameters...), Parameters... values) { which(values...); }
  };
  Call{kernel, *static_cast<Parameters*>(*arguments++)...};
}

}  // namespace emulation

inline void __syncthreads() { emulation::meet(emulation::blockBarrier); }

inline float __shfl_xor_sync(unsigned mask, float value, int distance) {
  if (mask != 0xffffffffu) abort();  // only whole warps are used
  const auto thread = emulation::current;
  auto& barrier = emulation::warpBarriers[thread / emulation::kWarp];
  emulation::exchanged[thread] = value;
  emulation::meet(barrier);
  const float result = emulation::exchanged[thread ^ distance];
  emulation::meet(barrier);  // before anyone writes again
  return result;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }

struct bf16;
struct fp16;
inline float read(bf16 value);
inline float read(fp16 value);
inline void write(bf16& to, float value);
inline void write(fp16& to, float value);

// In place of the conversions of the device, which are instructions of its own. `Bits` is bf16 or fp16.
template <typename Bits>
float readBrain(Bits value) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(value.bits) << 16);
}
template <typename Bits>
void writeBrain(Bits& to, float value) {
  const auto bits = __builtin_bit_cast(uint32_t, value);
  to.bits = value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
template <typename Bits>
float readHalf(Bits value) {
  return static_cast<float>(__builtin_bit_cast(_Float16, value.bits));
}
template <typename Bits>
void writeHalf(Bits& to, float value) {
  to.bits = __builtin_bit_cast(uint16_t, static_cast<_Float16>(value));
}

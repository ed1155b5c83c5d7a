R"CUDA(
// CUDA C++ of the fused operators: text, not code of this program. It is compiled for the device that is there when it is first used
// (nvrtc.cc), with the widths and types of that use as macros, so that loops have known bounds and rows stay in registers.
// test/native/emulation compiles the same text for the host. KERNEL_<name> chooses which kernel a compilation has.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

struct bf16 { u16 bits; };
struct fp16 { u16 bits; };

__device__ inline float read(float value) { return value; }
__device__ inline float read(u8 value) { return value ? 1.0f : 0.0f; }
__device__ inline void write(float& to, float value) { to = value; }

#ifndef GMML_EMULATION  // no header is included: on many machines with a driver there are none
__device__ inline float read(bf16 value) { return __uint_as_float((u32)value.bits << 16); }
__device__ inline float read(fp16 value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}
__device__ inline void write(fp16& to, float value) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(value)); }
__device__ inline void write(bf16& to, float value) {
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
#else
  const u32 bits = __float_as_uint(value);
  to.bits = value != value ? 0x7fc0 : (u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
#endif
}
#endif

// Neighbouring elements that one thread moves at once, by loads and stores of up to 16 bytes.
template <typename Type, int N> struct alignas(sizeof(Type) * N) Pack { Type at[N]; };

template <typename Type, int N> __device__ inline void load(const Type* from, float (&to)[N]) {
  const Pack<Type, N> pack = *reinterpret_cast<const Pack<Type, N>*>(from);
#pragma unroll
  for (int k = 0; k < N; ++k) to[k] = read(pack.at[k]);
}

// Leaves in `values` what was stored, which is less exact than it was where Type has 16 bits.
template <typename Type, int N> __device__ inline void store(Type* to, float (&values)[N]) {
  Pack<Type, N> pack;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    write(pack.at[k], values[k]);
    values[k] = read(pack.at[k]);
  }
  *reinterpret_cast<Pack<Type, N>*>(to) = pack;
}

__device__ inline float warpSum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

#if defined(KERNEL_add_layer_norm) || defined(KERNEL_add_layer_norm_backward)
// A row of WIDTH elements is the work of WARPS warps, VEC neighbouring elements of a thread at a time; a block has ROWS rows in work.
// Threads of a block: (32, WARPS, ROWS). S: the sum, B: the branch and its factors, W: weight and bias, Y: the normalised rows.
#define LANES (32 * WARPS)
#define STEPS ((WIDTH + LANES * VEC - 1) / (LANES * VEC))
#define COLUMN(step) ((((step) * WARPS + (int)threadIdx.y) * 32 + (int)threadIdx.x) * VEC)
#define EACH_STEP(step) _Pragma("unroll") for (int step = 0; step < STEPS; ++step)
#define EACH(k) _Pragma("unroll") for (int k = 0; k < VEC; ++k)

// The sum over a row, in all its threads. All threads of the block must come here.
__device__ inline float rowSum(float value) {
  value = warpSum(value);
#if WARPS > 1
  __shared__ float parts[ROWS][WARPS];
  __syncthreads();  // the parts of the sum before have been read
  if (threadIdx.x == 0) parts[threadIdx.z][threadIdx.y] = value;
  __syncthreads();
  value = 0.0f;
#pragma unroll
  for (int warp = 0; warp < WARPS; ++warp) value += parts[threadIdx.z][warp];
#endif
  return value;
}
#endif

#ifdef KERNEL_add_layer_norm
extern "C" __global__ void __launch_bounds__(LANES * ROWS)
add_layer_norm(const S* x, const B* branch, const B* scale, i64 rows, i64 rowsPerSample, const W* weight, const W* bias, float eps, S* sum,
               Y* normalised, float* means, float* rstds) {
  // The bounds are the same for all threads of a block, as rowSum() demands.
  for (i64 first = (i64)blockIdx.x * ROWS; first < rows; first += (i64)gridDim.x * ROWS) {
    const i64 row = first + threadIdx.z;
    const bool live = row < rows;
    const float factor = live && scale ? read(scale[row / rowsPerSample]) : 1.0f;
    float values[STEPS][VEC];
    float total = 0.0f;
    EACH_STEP(step) {
      const int column = COLUMN(step);
      EACH(k) values[step][k] = 0.0f;
      if (!live || column >= WIDTH) continue;
      float added[VEC];
      load(x + row * WIDTH + column, values[step]);
      load(branch + row * WIDTH + column, added);
      EACH(k) values[step][k] += factor * added[k];
      store(sum + row * WIDTH + column, values[step]);
      EACH(k) total += values[step][k];
    }
    const float mean = rowSum(total) / WIDTH;
    float squares = 0.0f;
    EACH_STEP(step) {
      if (COLUMN(step) >= WIDTH) continue;
      EACH(k) squares += (values[step][k] - mean) * (values[step][k] - mean);
    }
    const float rstd = rsqrtf(rowSum(squares) / WIDTH + eps);
    if (!live) continue;
    if (threadIdx.x == 0 && threadIdx.y == 0) {
      means[row] = mean;
      rstds[row] = rstd;
    }
    EACH_STEP(step) {
      const int column = COLUMN(step);
      if (column >= WIDTH) continue;
      float scales[VEC], shifts[VEC];
      load(weight + column, scales);
      load(bias + column, shifts);
      EACH(k) values[step][k] = (values[step][k] - mean) * rstd * scales[k] + shifts[k];
      store(normalised + row * WIDTH + column, values[step]);
    }
  }
}
#endif

#ifdef KERNEL_add_layer_norm_backward
// ofSum and ofBranch may be null. `partial` is [blocks, 2, WIDTH]: what each block has of the gradients of weight and bias.
extern "C" __global__ void __launch_bounds__(LANES * ROWS)
add_layer_norm_backward(const S* ofSum, const Y* ofNormalised, const S* sum, const float* means, const float* rstds, const W* weight,
                        const B* scale, i64 rows, i64 rowsPerSample, S* ofX, B* ofBranch, float* partial) {
  float ofWeight[STEPS][VEC], ofBias[STEPS][VEC];
  EACH_STEP(step) EACH(k) ofWeight[step][k] = ofBias[step][k] = 0.0f;
  for (i64 first = (i64)blockIdx.x * ROWS; first < rows; first += (i64)gridDim.x * ROWS) {
    const i64 row = first + threadIdx.z;
    const bool live = row < rows;
    const float mean = live ? means[row] : 0.0f, rstd = live ? rstds[row] : 0.0f;
    float standard[STEPS][VEC], gradient[STEPS][VEC];
    float product = 0.0f, total = 0.0f;
    EACH_STEP(step) {
      const int column = COLUMN(step);
      EACH(k) standard[step][k] = gradient[step][k] = 0.0f;
      if (!live || column >= WIDTH) continue;
      float scales[VEC];
      load(sum + row * WIDTH + column, standard[step]);
      load(ofNormalised + row * WIDTH + column, gradient[step]);
      load(weight + column, scales);
      EACH(k) {
        standard[step][k] = (standard[step][k] - mean) * rstd;
        ofWeight[step][k] += gradient[step][k] * standard[step][k];
        ofBias[step][k] += gradient[step][k];
        gradient[step][k] *= scales[k];
        product += gradient[step][k] * standard[step][k];
        total += gradient[step][k];
      }
    }
    product = rowSum(product) / WIDTH;
    total = rowSum(total) / WIDTH;
    if (!live) continue;
    const float factor = scale ? read(scale[row / rowsPerSample]) : 1.0f;
    EACH_STEP(step) {
      const int column = COLUMN(step);
      if (column >= WIDTH) continue;
      float result[VEC];
      EACH(k) result[k] = 0.0f;
      if (ofSum) load(ofSum + row * WIDTH + column, result);
      EACH(k) result[k] += rstd * (gradient[step][k] - total - standard[step][k] * product);
      store(ofX + row * WIDTH + column, result);
      if (!ofBranch) continue;
      EACH(k) result[k] *= factor;
      store(ofBranch + row * WIDTH + column, result);
    }
  }
  // Rows of a block in the order of their places, so that the sum is the same in every run.
#if ROWS > 1
  __shared__ float parts[ROWS][WIDTH];
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    __syncthreads();
    EACH_STEP(step) EACH(k) {
      if (COLUMN(step) < WIDTH) parts[threadIdx.z][COLUMN(step) + k] = which ? ofBias[step][k] : ofWeight[step][k];
    }
    __syncthreads();
    const int thread = (threadIdx.z * WARPS + threadIdx.y) * 32 + threadIdx.x;
    for (int column = thread; column < WIDTH; column += LANES * ROWS) {
      float total = 0.0f;
#pragma unroll
      for (int place = 0; place < ROWS; ++place) total += parts[place][column];
      partial[((i64)blockIdx.x * 2 + which) * WIDTH + column] = total;
    }
  }
#else
  EACH_STEP(step) EACH(k) {
    if (COLUMN(step) >= WIDTH) continue;
    partial[(i64)blockIdx.x * 2 * WIDTH + COLUMN(step) + k] = ofWeight[step][k];
    partial[((i64)blockIdx.x * 2 + 1) * WIDTH + COLUMN(step) + k] = ofBias[step][k];
  }
#endif
}
#endif

#if defined(KERNEL_bias_gelu) || defined(KERNEL_bias_gelu_backward)
// Threads of a block: (32, 8), 32 * VEC columns and 8 rows at a time. Blocks: (columns, strips of rows). T: the rows, W: the bias.
#define EACH(k) _Pragma("unroll") for (int k = 0; k < VEC; ++k)
#endif

#ifdef KERNEL_bias_gelu
extern "C" __global__ void __launch_bounds__(256) bias_gelu(const T* x, const W* bias, i64 rows, T* result) {
  const int column = (blockIdx.x * 32 + threadIdx.x) * VEC;
  if (column >= WIDTH) return;
  float shifts[VEC];
  load(bias + column, shifts);
  for (i64 row = (i64)blockIdx.y * 8 + threadIdx.y; row < rows; row += (i64)gridDim.y * 8) {
    float values[VEC];
    load(x + row * WIDTH + column, values);
    EACH(k) {
      values[k] += shifts[k];
      values[k] *= normcdff(values[k]);
    }
    store(result + row * WIDTH + column, values);
  }
}
#endif

#ifdef KERNEL_bias_gelu_backward
// `partial` is [strips, WIDTH]: what each strip has of the bias's gradient.
extern "C" __global__ void __launch_bounds__(256)
bias_gelu_backward(const T* gradient, const T* x, const W* bias, i64 rows, T* ofX, float* partial) {
  __shared__ float parts[8][32 * VEC];
  const int column = (blockIdx.x * 32 + threadIdx.x) * VEC;
  float shifts[VEC], ofBias[VEC];
  EACH(k) ofBias[k] = 0.0f;
  if (column < WIDTH) {
    load(bias + column, shifts);
    for (i64 row = (i64)blockIdx.y * 8 + threadIdx.y; row < rows; row += (i64)gridDim.y * 8) {
      float values[VEC], result[VEC];
      load(x + row * WIDTH + column, values);
      load(gradient + row * WIDTH + column, result);
      EACH(k) {
        const float value = values[k] + shifts[k];
        result[k] *= normcdff(value) + value * 0.3989422804f * expf(-0.5f * value * value);
        ofBias[k] += result[k];
      }
      store(ofX + row * WIDTH + column, result);
    }
  }
  EACH(k) parts[threadIdx.y][threadIdx.x * VEC + k] = ofBias[k];
  __syncthreads();
  for (int i = threadIdx.y * 32 + threadIdx.x; i < 32 * VEC; i += 256) {
    if (blockIdx.x * 32 * VEC + i >= WIDTH) continue;
    float total = 0.0f;
#pragma unroll
    for (int y = 0; y < 8; ++y) total += parts[y][i];
    partial[(i64)blockIdx.y * WIDTH + blockIdx.x * 32 * VEC + i] = total;
  }
}
#endif

#ifdef KERNEL_sum_partials
// Sums [count, width] over its rows, always in the same order: the first `split` columns into `first`, the others into `second`.
// Threads of a block: (32, 8). W: the results.
extern "C" __global__ void __launch_bounds__(256) sum_partials(const float* partial, int count, int width, int split, W* first, W* second) {
  __shared__ float parts[8][32];
  const int column = blockIdx.x * 32 + threadIdx.x;
  float total = 0.0f;
  if (column < width) {
    for (int i = threadIdx.y; i < count; i += 8) total += partial[(i64)i * width + column];
  }
  parts[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y > 0 || column >= width) return;
  total = 0.0f;
#pragma unroll
  for (int y = 0; y < 8; ++y) total += parts[y][threadIdx.x];
  write(column < split ? first[column] : second[column - split], total);
}
#endif

#if defined(KERNEL_masked_l1) || defined(KERNEL_masked_l1_backward)
// T: predicted pixels [B, ROWS * COLUMNS, CHANNELS, PATCH, PATCH], of which a thread takes VEC of a line at a time; C: the clean image
// [B, CHANNELS, ROWS * PATCH, COLUMNS * PATCH]; M: the mask, one channel of it, where MASKED is 1. INDEX can count all elements.
#define EACH(k) _Pragma("unroll") for (int k = 0; k < VEC; ++k)

struct Place {
  INDEX clean, mask;
  bool firstChannel;
};

__device__ inline Place placeOf(INDEX element) {
  const INDEX column = element % PATCH, line = element / PATCH % PATCH, channel = element / (PATCH * PATCH) % CHANNELS;
  const INDEX patch = element / (PATCH * PATCH * CHANNELS);
  const INDEX x = patch % COLUMNS * PATCH + column, y = patch / COLUMNS % ROWS * PATCH + line, image = patch / (ROWS * COLUMNS);
  const INDEX height = ROWS * PATCH, width = COLUMNS * PATCH;
  return {((image * CHANNELS + channel) * height + y) * width + x, (image * height + y) * width + x, channel == 0};
}

__device__ inline void loadWeights(const M* mask, INDEX at, float (&weights)[VEC]) {
#if MASKED
  load(mask + at, weights);
#else
  EACH(k) weights[k] = 1.0f;
#endif
}
#endif

#if defined(KERNEL_masked_l1) || defined(KERNEL_masked_l1_finish)
// Sums of both values over a block of 256 threads, in its first thread.
__device__ inline void blockSums(float& first, float& second) {
  __shared__ float parts[2][8];
  first = warpSum(first);
  second = warpSum(second);
  if (threadIdx.x % 32 == 0) {
    parts[0][threadIdx.x / 32] = first;
    parts[1][threadIdx.x / 32] = second;
  }
  __syncthreads();
  first = second = 0.0f;
#pragma unroll
  for (int warp = 0; warp < 8; ++warp) {
    first += parts[0][warp];
    second += parts[1][warp];
  }
}
#endif

#ifdef KERNEL_masked_l1
// `partial` is [blocks, 2]: weighted distances, and weights of one channel.
extern "C" __global__ void __launch_bounds__(256) masked_l1(const T* prediction, const C* clean, const M* mask, INDEX groups, float* partial) {
  float distance = 0.0f, weight = 0.0f;
  for (INDEX group = (INDEX)blockIdx.x * 256 + threadIdx.x; group < groups; group += (INDEX)gridDim.x * 256) {
    const Place place = placeOf(group * VEC);
    float values[VEC], wanted[VEC], weights[VEC];
    load(prediction + group * VEC, values);
    load(clean + place.clean, wanted);
    loadWeights(mask, place.mask, weights);
    EACH(k) {
      distance += weights[k] * fabsf(values[k] - wanted[k]);
      if (place.firstChannel) weight += weights[k];
    }
  }
  blockSums(distance, weight);
  if (threadIdx.x > 0) return;
  partial[2 * blockIdx.x] = distance;
  partial[2 * blockIdx.x + 1] = weight;
}
#endif

#ifdef KERNEL_masked_l1_finish
// One block. The mean over at least `least` elements, and what a gradient is multiplied by.
extern "C" __global__ void __launch_bounds__(256) masked_l1_finish(const float* partial, int blocks, int channels, float least, float* loss, float* scale) {
  float distance = 0.0f, weight = 0.0f;
  for (int i = threadIdx.x; i < blocks; i += 256) {
    distance += partial[2 * i];
    weight += partial[2 * i + 1];
  }
  blockSums(distance, weight);
  if (threadIdx.x > 0) return;
  const float elements = weight * channels < least ? least : weight * channels;
  *loss = distance / elements;
  *scale = 1.0f / elements;
}
#endif

#ifdef KERNEL_masked_l1_backward
extern "C" __global__ void __launch_bounds__(256)
masked_l1_backward(const float* gradient, const float* scale, const T* prediction, const C* clean, const M* mask, INDEX groups, T* result) {
  const float factor = *gradient * *scale;
  for (INDEX group = (INDEX)blockIdx.x * 256 + threadIdx.x; group < groups; group += (INDEX)gridDim.x * 256) {
    const Place place = placeOf(group * VEC);
    float values[VEC], wanted[VEC], weights[VEC];
    load(prediction + group * VEC, values);
    load(clean + place.clean, wanted);
    loadWeights(mask, place.mask, weights);
    EACH(k) values[k] = factor * weights[k] * (float)((values[k] > wanted[k]) - (values[k] < wanted[k]));
    store(result + group * VEC, values);
  }
}
#endif
)CUDA"

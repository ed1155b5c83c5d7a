#pragma once

// What the fused operators on the CPU share. Loops are plain, over rows that stay in the first cache, so that the compiler turns them into
// vector instructions; where it can, it does so once for each generation of processors, and the right one is taken when the addon loads.
#include "fused.h"

#include <ATen/TensorIterator.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <vector>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define GMML_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GMML_EACH_PROCESSOR
#endif

namespace gmml::fused {

// Sums are made in so many parts, side by side: as one chain of additions they could not be vectorised.
constexpr int64_t kParts = 32;
// Rows that one thread takes at a time. The number decides the order of sums over rows, so it does not depend on the threads.
constexpr int64_t kRows = 64, kMostChunks = 128;

inline float widen(at::BFloat16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.x) << 16); }
inline float widen(at::Half value) { return static_cast<float>(value); }
inline float widen(float value) { return value; }
inline double widen(double value) { return value; }

inline void narrow(at::BFloat16& to, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  to.x = value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline void narrow(at::Half& to, float value) { to = static_cast<at::Half>(value); }
inline void narrow(float& to, float value) { to = value; }
inline void narrow(double& to, double value) { to = value; }

template <typename T, typename A>
GMML_EACH_PROCESSOR void widenRow(const T* __restrict from, A* __restrict to, int64_t size) {
  for (int64_t i = 0; i < size; ++i) to[i] = widen(from[i]);
}

template <typename T, typename A>
GMML_EACH_PROCESSOR void narrowRow(const A* __restrict from, T* __restrict to, int64_t size) {
  for (int64_t i = 0; i < size; ++i) narrow(to[i], from[i]);
}

// Rows of a tensor as numbers of type A: float, or double for a double tensor.
template <typename A>
class Rows {
 public:
  Rows(const at::Tensor& tensor, int64_t size) : data_(tensor.data_ptr()), type_(tensor.scalar_type()), size_(size) {}

  // The row itself where it is of type A, else its numbers in `space`.
  const A* read(int64_t row, A* space) const {
    return visit(row, [&](auto* from) -> const A* {
      if constexpr (std::is_same_v<decltype(from), A*>) return from;
      widenRow(from, space, size_);
      return space;
    });
  }

  // Where to write the row: `space`, if store() has to convert it.
  A* target(int64_t row, A* space) const {
    return visit(row, [&](auto* to) -> A* {
      if constexpr (std::is_same_v<decltype(to), A*>) return to;
      return space;
    });
  }

  void store(int64_t row, const A* values) const {
    visit(row, [&](auto* to) -> A* {
      if constexpr (!std::is_same_v<decltype(to), A*>) narrowRow(values, to, size_);
      return nullptr;
    });
  }

 private:
  template <typename F>
  auto visit(int64_t row, F body) const {
    if constexpr (std::is_same_v<A, double>) {
      return body(static_cast<double*>(data_) + row * size_);
    } else {
      if (type_ == at::kBFloat16) return body(static_cast<at::BFloat16*>(data_) + row * size_);
      if (type_ == at::kHalf) return body(static_cast<at::Half*>(data_) + row * size_);
      return body(static_cast<float*>(data_) + row * size_);
    }
  }

  void* data_;
  at::ScalarType type_;
  int64_t size_;
};

// The vector as numbers of type A.
template <typename A>
std::vector<A> vectorOf(const at::Tensor& tensor) {
  std::vector<A> result(tensor.numel());
  const auto* row = Rows<A>(tensor, tensor.numel()).read(0, result.data());
  if (row != result.data()) std::copy_n(row, result.size(), result.data());
  return result;
}

// The type of a tensor's elements, and that in which they are computed with.
template <typename F>
auto inDtype(at::ScalarType dtype, F body) {
  switch (dtype) {
    case at::kDouble: return body(double(), double());
    case at::kBFloat16: return body(at::BFloat16(), float());
    case at::kHalf: return body(at::Half(), float());
    default: return body(float(), float());
  }
}

// The number of chunks that `count` things are cut into.
inline int64_t chunksOf(int64_t count, int64_t atOnce = kRows) { return std::min((count + atOnce - 1) / atOnce, kMostChunks); }

// Runs body(chunk, first, last) for every chunk, on libtorch's own threads. at::parallel_for would need this file to be compiled with
// OpenMP, and the process to have one OpenMP only; a tensor iterator does the same inside libtorch.
template <typename F>
void eachChunk(int64_t count, int64_t chunks, F body) {
  if (chunks == 0) return;
  const auto run = [&](int64_t chunk) { body(chunk, chunk * count / chunks, (chunk + 1) * count / chunks); };
  if (chunks == 1) return run(0);
  auto numbers = at::arange(chunks, at::kLong);
  auto iterator = at::TensorIteratorConfig().check_all_same_dtype(false).resize_outputs(false).add_output(numbers).build();
  const auto loop = [&](char** data, const int64_t* strides, int64_t columns, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < columns; ++i) run(*reinterpret_cast<int64_t*>(data[0] + i * strides[0] + row * strides[1]));
    }
  };
  iterator.for_each(loop, 1);
}

template <typename A>
GMML_EACH_PROCESSOR void addRows(const A* x, const A* branch, A scale, A* sum, int64_t size) {
  for (int64_t i = 0; i < size; ++i) sum[i] = x[i] + scale * branch[i];
}

// The sum of the chunks' rows, in their order.
template <typename A>
at::Tensor sumChunks(const std::vector<A>& parts, int64_t stride, int64_t offset, int64_t size, at::ScalarType dtype) {
  std::vector<A> sum(size);
  for (size_t at = offset; at < parts.size(); at += stride) addRows(sum.data(), parts.data() + at, A(1), sum.data(), size);
  auto result = at::empty({size}, at::TensorOptions(dtype));
  const Rows<A> rows(result, size);
  auto* target = rows.target(0, sum.data());
  if (target != sum.data()) std::copy(sum.begin(), sum.end(), target);
  rows.store(0, sum.data());
  return result;
}

}  // namespace gmml::fused

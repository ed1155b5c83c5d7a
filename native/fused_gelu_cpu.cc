// Bias + GELU on the CPU.
#include "fused_rows.h"

#include <ATen/ops/empty_like.h>

#include <cmath>

namespace gmml::fused {

namespace {

// e^(-x^2 / 2) for x^2 / 2 up to 87, where float32 ends: 2^n by the exponent's bits, and a polynomial for the rest.
inline float bell(float x) {
  const float y = -0.5f * x * x;
  const float least = y < -87.0f ? -87.0f : y;
  const float shifted = least * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer is in the last bits
  const float whole = shifted - 12582912.0f;
  const float rest = (least - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float power = 1.0f / 720;
  power = power * rest + 1.0f / 120;
  power = power * rest + 1.0f / 24;
  power = power * rest + 1.0f / 6;
  power = power * rest + 0.5f;
  power = power * rest + 1.0f;
  power = power * rest + 1.0f;
  const float two = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u);
  return y < -87.0f ? 0.0f : two * power;
}

inline double bell(double x) { return std::exp(-0.5 * x * x); }

// The normal distribution's share below x, from its bell. Mills' ratio (1 - share) / density is smooth, so a quotient of polynomials,
// fitted up to 15 with a relative error below 7e-9, gives the far tail as exactly as the rest.
inline float shareBelow(float x, float bell) {
  const float distance = x < 0 ? -x : x;
  const float t = distance > 15.0f ? 15.0f : distance;
  const float above = (((0.0104105208806f * t + 0.102474310902f) * t + 0.461145343011f) * t + 1.10112679747f) * t + 1.25331414511f;
  const float below =
      ((((0.0104104092911f * t + 0.102480424357f) * t + 0.471411763097f) * t + 1.20555492595f) * t + 1.67645707544f) * t + 1.0f;
  const float tail = bell * 0.3989422804f * above / below;
  return x < 0 ? tail : 1.0f - tail;
}

inline double shareBelow(double x, double) { return 0.5 * std::erfc(-x * 0.70710678118654752440); }

template <typename T, typename A>
GMML_EACH_PROCESSOR void geluRow(const T* __restrict x, const A* __restrict bias, T* __restrict result, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const A value = widen(x[i]) + bias[i];
    narrow(result[i], value * shareBelow(value, bell(value)));
  }
}

template <typename T, typename A>
GMML_EACH_PROCESSOR void geluGradient(const T* __restrict gradient, const T* __restrict x, const A* __restrict bias,
                                      T* __restrict result, A* __restrict ofBias, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const A value = widen(x[i]) + bias[i], density = bell(value);
    const A slope = widen(gradient[i]) * (shareBelow(value, density) + value * density * A(0.39894228040143267794));
    narrow(result[i], slope);
    ofBias[i] += slope;
  }
}

}  // namespace

at::Tensor biasGeluCpu(const at::Tensor& x, const at::Tensor& bias) {
  const auto size = x.size(-1);
  auto result = at::empty_like(x);
  inDtype(x.scalar_type(), [&](auto element, auto type) {
    using T = decltype(element);
    const auto biases = vectorOf<decltype(type)>(bias);
    const auto* from = x.const_data_ptr<T>();
    auto* to = result.mutable_data_ptr<T>();
    eachChunk(x.numel() / size, chunksOf(x.numel() / size), [&](int64_t, int64_t first, int64_t last) {
      for (auto row = first; row < last; ++row) geluRow(from + row * size, biases.data(), to + row * size, size);
    });
    return 0;
  });
  return result;
}

std::tuple<at::Tensor, at::Tensor> biasGeluBackwardCpu(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& bias) {
  const auto size = x.size(-1), rows = x.numel() / size;
  auto ofX = at::empty_like(x);
  at::Tensor ofBias;
  inDtype(x.scalar_type(), [&](auto element, auto type) {
    using T = decltype(element);
    using A = decltype(type);
    const auto biases = vectorOf<A>(bias);
    const auto *from = x.const_data_ptr<T>(), *gradients = gradient.const_data_ptr<T>();
    auto* to = ofX.mutable_data_ptr<T>();
    std::vector<A> parts(size * chunksOf(rows));
    eachChunk(rows, chunksOf(rows), [&](int64_t chunk, int64_t first, int64_t last) {
      auto* part = parts.data() + size * chunk;
      for (auto row = first; row < last; ++row) geluGradient(gradients + row * size, from + row * size, biases.data(), to + row * size, part, size);
    });
    ofBias = sumChunks(parts, size, 0, size, bias.scalar_type());
    return 0;
  });
  return {ofX, ofBias};
}

}  // namespace gmml::fused

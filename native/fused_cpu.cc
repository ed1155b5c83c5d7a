// Residual + layer norm on the CPU.
#include "fused_rows.h"

#include <ATen/ops/empty_like.h>

#include <cmath>

namespace gmml::fused {

namespace {

// By halves: a chain of additions would take longer than all that is done to a short row.
template <typename A>
inline A total(A (&parts)[kParts]) {
  for (int64_t half = kParts / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  return parts[0];
}

template <typename A>
GMML_EACH_PROCESSOR A meanOf(const A* row, int64_t size) {
  A parts[kParts] = {}, rest = 0;
  int64_t i = 0;
  for (; i + kParts <= size; i += kParts) {
    for (int64_t k = 0; k < kParts; ++k) parts[k] += row[i + k];
  }
  for (; i < size; ++i) rest += row[i];
  return (total(parts) + rest) / size;
}

template <typename A>
GMML_EACH_PROCESSOR A varianceOf(const A* row, A mean, int64_t size) {
  A parts[kParts] = {}, rest = 0;
  int64_t i = 0;
  for (; i + kParts <= size; i += kParts) {
    for (int64_t k = 0; k < kParts; ++k) parts[k] += (row[i + k] - mean) * (row[i + k] - mean);
  }
  for (; i < size; ++i) rest += (row[i] - mean) * (row[i] - mean);
  return (total(parts) + rest) / size;
}

template <typename A>
GMML_EACH_PROCESSOR void normaliseRow(const A* __restrict row, A mean, A rstd, const A* __restrict weight, const A* __restrict bias,
                                      A* __restrict result, int64_t size) {
  for (int64_t i = 0; i < size; ++i) result[i] = (row[i] - mean) * rstd * weight[i] + bias[i];
}

// at::kFloat or at::kDouble, as a type.
template <typename F>
auto inPrecision(at::ScalarType dtype, F body) {
  return dtype == at::kDouble ? body(double()) : body(float());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> addLayerNormCpu(
    const at::Tensor& x, const at::Tensor& branch, const OptionalTensor& scale, const at::Tensor& weight, const at::Tensor& bias, double eps,
    at::ScalarType dtype) {
  const auto size = x.size(-1), rows = x.numel() / size;
  const auto precise = sumDtype(x.scalar_type());
  auto moments = x.sizes().vec();
  moments.back() = 1;
  auto sum = at::empty_like(x), normalised = at::empty(x.sizes(), x.options().dtype(dtype));
  auto mean = at::empty(moments, x.options().dtype(precise)), rstd = at::empty_like(mean);
  inPrecision(precise, [&](auto type) {
    using A = decltype(type);
    const Rows<A> xs(x, size), branches(branch, size), sums(sum, size), results(normalised, size);
    const auto weights = vectorOf<A>(weight), biases = vectorOf<A>(bias);
    const auto scales = scale ? vectorOf<A>(*scale) : std::vector<A>();
    const auto perSample = scale ? std::max<int64_t>(rows / scale->numel(), 1) : 1;
    auto *means = mean.mutable_data_ptr<A>(), *rstds = rstd.mutable_data_ptr<A>();
    eachChunk(rows, chunksOf(rows), [&](int64_t, int64_t first, int64_t last) {
      std::vector<A> space(3 * size);
      for (auto row = first; row < last; ++row) {
        auto* added = sums.target(row, space.data());
        addRows(xs.read(row, space.data() + size), branches.read(row, space.data() + 2 * size), scale ? scales[row / perSample] : A(1),
                added, size);
        sums.store(row, added);
        const auto* values = sums.read(row, space.data());  // as they were stored
        means[row] = meanOf(values, size);
        rstds[row] = 1 / std::sqrt(varianceOf(values, means[row], size) + static_cast<A>(eps));
        auto* result = results.target(row, space.data() + size);
        normaliseRow(values, means[row], rstds[row], weights.data(), biases.data(), result, size);
        results.store(row, result);
      }
    });
    return 0;
  });
  return {sum, normalised, mean, rstd};
}

template <typename A>
struct RowSums {
  A product, gradient;
};

// Sums over a row of w dy x and w dy, x standardised; and what the row adds to the gradients of weight and bias.
template <typename A>
GMML_EACH_PROCESSOR RowSums<A> normaliseSums(const A* __restrict row, const A* __restrict gradient, A mean, A rstd,
                                             const A* __restrict weight, A* __restrict ofWeight, A* __restrict ofBias, int64_t size) {
  A products[kParts] = {}, gradients[kParts] = {};
  for (int64_t i = 0; i < size; ++i) {
    ofWeight[i] += gradient[i] * ((row[i] - mean) * rstd);
    ofBias[i] += gradient[i];
  }
  const auto add = [=](int64_t i, A& product, A& sum) {
    const A weighted = gradient[i] * weight[i];
    product += weighted * ((row[i] - mean) * rstd);
    sum += weighted;
  };
  int64_t i = 0;
  for (; i + kParts <= size; i += kParts) {
    for (int64_t k = 0; k < kParts; ++k) add(i + k, products[k], gradients[k]);
  }
  for (; i < size; ++i) add(i, products[0], gradients[0]);
  return {total(products), total(gradients)};
}

template <typename A>
GMML_EACH_PROCESSOR void normaliseGradient(const A* __restrict row, const A* __restrict gradient, A mean, A rstd,
                                           const A* __restrict weight, RowSums<A> means, const A* __restrict ofSum, A* __restrict result,
                                           int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const A standard = (row[i] - mean) * rstd;
    result[i] = rstd * (gradient[i] * weight[i] - means.gradient - standard * means.product);
  }
  if (!ofSum) return;
  for (int64_t i = 0; i < size; ++i) result[i] += ofSum[i];
}

template <typename A>
GMML_EACH_PROCESSOR void scaleRow(const A* __restrict row, A scale, A* __restrict result, int64_t size) {
  for (int64_t i = 0; i < size; ++i) result[i] = scale * row[i];
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> addLayerNormBackwardCpu(
    const OptionalTensor& ofSum, const at::Tensor& ofNormalised, const at::Tensor& sum, const at::Tensor& mean, const at::Tensor& rstd,
    const OptionalTensor& scale, const at::Tensor& weight, at::ScalarType branchDtype) {
  const auto size = sum.size(-1), rows = sum.numel() / size;
  auto ofX = at::empty_like(sum);
  at::Tensor ofBranch, ofWeight, ofBias;
  if (scale || branchDtype != sum.scalar_type()) ofBranch = at::empty(sum.sizes(), sum.options().dtype(branchDtype));
  inPrecision(mean.scalar_type(), [&](auto type) {
    using A = decltype(type);
    const Rows<A> sums(sum, size), gradients(ofNormalised, size), ofXs(ofX, size);
    const auto weights = vectorOf<A>(weight);
    const auto scales = scale ? vectorOf<A>(*scale) : std::vector<A>();
    const auto perSample = scale ? std::max<int64_t>(rows / scale->numel(), 1) : 1;
    const auto *means = mean.const_data_ptr<A>(), *rstds = rstd.const_data_ptr<A>();
    std::vector<A> parts(2 * size * chunksOf(rows));
    eachChunk(rows, chunksOf(rows), [&](int64_t chunk, int64_t first, int64_t last) {
      std::vector<A> space(4 * size);
      auto* part = parts.data() + 2 * size * chunk;
      for (auto row = first; row < last; ++row) {
        const auto* values = sums.read(row, space.data());
        const auto* gradient = gradients.read(row, space.data() + size);
        const auto totals = normaliseSums(values, gradient, means[row], rstds[row], weights.data(), part, part + size, size);
        const auto* direct = ofSum ? Rows<A>(*ofSum, size).read(row, space.data() + 2 * size) : nullptr;
        auto* result = ofXs.target(row, space.data() + 3 * size);
        normaliseGradient(values, gradient, means[row], rstds[row], weights.data(), {totals.product / size, totals.gradient / size}, direct,
                          result, size);
        ofXs.store(row, result);
        if (!ofBranch.defined()) continue;
        const Rows<A> ofBranches(ofBranch, size);
        auto* scaled = ofBranches.target(row, space.data() + 2 * size);
        scaleRow(result, scale ? scales[row / perSample] : A(1), scaled, size);
        ofBranches.store(row, scaled);
      }
    });
    ofWeight = sumChunks(parts, 2 * size, 0, size, weight.scalar_type());
    ofBias = sumChunks(parts, 2 * size, size, size, weight.scalar_type());
    return 0;
  });
  return {ofX, ofBranch, ofWeight, ofBias};
}

}  // namespace

const Kernels cpuKernels{addLayerNormCpu, addLayerNormBackwardCpu, biasGeluCpu, biasGeluBackwardCpu, maskedL1Cpu, maskedL1BackwardCpu};

const Kernels& kernelsOf(const at::Tensor& tensor) { return tensor.is_cuda() ? cudaKernels : cpuKernels; }

}  // namespace gmml::fused

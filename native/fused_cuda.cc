// The fused operators on CUDA: the shapes of the work. The kernels are in fused_kernels.h.
#include "fused.h"
#include "nvrtc.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

namespace gmml::fused {

namespace {

const char* const kSource =
#include "fused_kernels.h"
    ;

// A row is at most so many warps' work, of at most so many elements of a thread: more would not stay in registers.
constexpr int64_t kMostWarps = 8, kMostElements = 16;
constexpr int64_t kMostWidth = 32 * kMostWarps * kMostElements;
// Blocks for each multiprocessor: enough to keep it busy, and few enough that sums of what each has are short.
constexpr int64_t kBlocks = 4;

std::string typeOf(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16: return "bf16";
    case at::kHalf: return "fp16";
    case at::kBool: return "u8";
    default: return "float";
  }
}

// Whether `count` neighbouring elements of every tensor can be moved at once: the caching allocator's memory is aligned, views may not be.
bool isAligned(std::initializer_list<const at::Tensor*> tensors, int64_t count) {
  for (const auto* tensor : tensors) {
    if (!tensor->defined()) continue;
    const auto bytes = std::min<int64_t>(count * tensor->element_size(), 32);
    if (reinterpret_cast<uintptr_t>(tensor->const_data_ptr()) % bytes) return false;
  }
  return true;
}

// The most elements at once that the alignment allows, `width` is a multiple of, and leave no thread of `lanes` without work.
int64_t elementsAtOnce(int64_t width, int64_t lanes, std::initializer_list<const at::Tensor*> tensors) {
  int64_t fallback = 1;
  for (const int64_t count : {8, 4, 2}) {
    if (width % count || !isAligned(tensors, count)) continue;
    if (width % (lanes * count) == 0) return count;
    fallback = std::max(fallback, width >= lanes * count ? count : 1);
  }
  return fallback;
}

// The address of the first element, or null for a tensor that is not there.
struct Address {
  void* data;
  Address(const at::Tensor& tensor) : data(tensor.defined() ? const_cast<void*>(tensor.const_data_ptr()) : nullptr) {}
  Address(const OptionalTensor& tensor) : data(tensor ? const_cast<void*>(tensor->const_data_ptr()) : nullptr) {}
};

template <typename T>
T argumentOf(const T& value) { return value; }
void* argumentOf(const at::Tensor& tensor) { return Address(tensor).data; }
void* argumentOf(const OptionalTensor& tensor) { return Address(tensor).data; }

// The arguments' types have to be those of the kernel: a tensor is a pointer, int64_t an i64, int an int, float a float.
template <typename... Arguments>
void launch(const at::Tensor& on, const Kernel& kernel, const Grid& grid, const Arguments&... arguments) {
  auto values = std::make_tuple(argumentOf(arguments)...);
  std::apply([&](auto&... value) {
    void* addresses[] = {&value...};
    launchKernel(on, kSource, kernel, grid, addresses);
  }, values);
}

unsigned blocksFor(const at::Tensor& tensor, int64_t work, int64_t atOnce) {
  return static_cast<unsigned>(std::clamp<int64_t>((work + atOnce - 1) / atOnce, 1, kBlocks * multiprocessors(tensor)));
}

// Both halves of [count, 2 width], or all of [count, width] where `second` is not there.
void sumPartials(const at::Tensor& partial, const at::Tensor& first, const at::Tensor& second = {}) {
  const auto count = static_cast<int>(partial.size(0)), width = static_cast<int>(partial.numel() / partial.size(0));
  launch(partial, {"sum_partials", {{"W", typeOf(first.scalar_type())}}}, {{static_cast<unsigned>((width + 31) / 32), 1}, {32, 8, 1}},
         partial, count, width, second.defined() ? width / 2 : width, first, second);
}

struct RowPlan {
  int64_t warps = 1, atOnce = 1, rows = 1;
  std::vector<std::pair<std::string, std::string>> defines;

  RowPlan(int64_t width, std::initializer_list<const at::Tensor*> tensors) {
    TORCH_CHECK_VALUE(width <= kMostWidth, "expected rows of at most ", kMostWidth, " elements on cuda, received ", width);
    while (32 * warps * kMostElements < width) warps *= 2;
    atOnce = elementsAtOnce(width, 32 * warps, tensors);
    rows = std::max<int64_t>(1, 4 / warps);
    defines = {{"WIDTH", std::to_string(width)}, {"WARPS", std::to_string(warps)}, {"ROWS", std::to_string(rows)},
               {"VEC", std::to_string(atOnce)}};
  }

  Grid grid(const at::Tensor& tensor, int64_t count) const {
    return {{blocksFor(tensor, count, rows), 1}, {32, static_cast<unsigned>(warps), static_cast<unsigned>(rows)}};
  }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> addLayerNormCuda(
    const at::Tensor& x, const at::Tensor& branch, const OptionalTensor& scale, const at::Tensor& weight, const at::Tensor& bias, double eps,
    at::ScalarType dtype) {
  const int64_t width = x.size(-1), rows = x.numel() / width, perSample = scale ? std::max<int64_t>(rows / scale->numel(), 1) : 1;
  auto moments = x.sizes().vec();
  moments.back() = 1;
  auto sum = at::empty_like(x), normalised = at::empty(x.sizes(), x.options().dtype(dtype));
  auto mean = at::empty(moments, x.options().dtype(at::kFloat)), rstd = at::empty_like(mean);
  if (rows == 0) return {sum, normalised, mean, rstd};
  const RowPlan plan(width, {&x, &branch, &weight, &bias, &sum, &normalised});
  Kernel kernel{"add_layer_norm", plan.defines};
  for (const auto& [name, type] : {std::pair("S", x.scalar_type()), {"B", branch.scalar_type()}, {"W", weight.scalar_type()}, {"Y", dtype}}) {
    kernel.defines.emplace_back(name, typeOf(type));
  }
  launch(x, kernel, plan.grid(x, rows), x, branch, scale, rows, perSample, weight, bias, static_cast<float>(eps), sum, normalised, mean, rstd);
  return {sum, normalised, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> addLayerNormBackwardCuda(
    const OptionalTensor& ofSum, const at::Tensor& ofNormalised, const at::Tensor& sum, const at::Tensor& mean, const at::Tensor& rstd,
    const OptionalTensor& scale, const at::Tensor& weight, at::ScalarType branchDtype) {
  const int64_t width = sum.size(-1), rows = sum.numel() / width, perSample = scale ? std::max<int64_t>(rows / scale->numel(), 1) : 1;
  auto ofX = at::empty_like(sum);
  at::Tensor ofBranch;
  if (scale || branchDtype != sum.scalar_type()) ofBranch = at::empty(sum.sizes(), sum.options().dtype(branchDtype));
  if (rows == 0) return {ofX, ofBranch, at::zeros_like(weight), at::zeros_like(weight)};
  auto ofWeight = at::empty_like(weight), ofBias = at::empty_like(weight);
  const auto direct = ofSum.value_or(at::Tensor());
  const RowPlan plan(width, {&direct, &ofNormalised, &sum, &weight, &ofX, &ofBranch});
  Kernel kernel{"add_layer_norm_backward", plan.defines};
  for (const auto& [name, type] : {std::pair("S", sum.scalar_type()), {"B", branchDtype}, {"W", weight.scalar_type()},
                                   {"Y", ofNormalised.scalar_type()}}) {
    kernel.defines.emplace_back(name, typeOf(type));
  }
  const auto grid = plan.grid(sum, rows);
  const auto partial = at::empty({grid.blocks[0], 2 * width}, sum.options().dtype(at::kFloat));
  launch(sum, kernel, grid, direct, ofNormalised, sum, mean, rstd, weight, scale, rows, perSample, ofX, ofBranch, partial);
  sumPartials(partial, ofWeight, ofBias);
  return {ofX, ofBranch, ofWeight, ofBias};
}

struct ColumnPlan {
  Kernel kernel;
  Grid grid;

  ColumnPlan(const char* name, const at::Tensor& x, const at::Tensor& bias, std::initializer_list<const at::Tensor*> tensors) {
    const int64_t width = x.size(-1), rows = x.numel() / width, atOnce = elementsAtOnce(width, 32, tensors);
    const auto tiles = (width + 32 * atOnce - 1) / (32 * atOnce);
    kernel = {name, {{"WIDTH", std::to_string(width)}, {"VEC", std::to_string(atOnce)}, {"T", typeOf(x.scalar_type())},
                     {"W", typeOf(bias.scalar_type())}}};
    const auto strips = std::max<int64_t>(blocksFor(x, rows * tiles, 8) / tiles, 1);
    grid = {{static_cast<unsigned>(tiles), static_cast<unsigned>(strips)}, {32, 8, 1}};
  }
};

at::Tensor biasGeluCuda(const at::Tensor& x, const at::Tensor& bias) {
  auto result = at::empty_like(x);
  if (x.numel() == 0) return result;
  const ColumnPlan plan("bias_gelu", x, bias, {&x, &bias, &result});
  launch(x, plan.kernel, plan.grid, x, bias, x.numel() / x.size(-1), result);
  return result;
}

std::tuple<at::Tensor, at::Tensor> biasGeluBackwardCuda(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& bias) {
  auto ofX = at::empty_like(x);
  if (x.numel() == 0) return {ofX, at::zeros_like(bias)};
  auto ofBias = at::empty_like(bias);
  const ColumnPlan plan("bias_gelu_backward", x, bias, {&gradient, &x, &bias, &ofX});
  const auto partial = at::empty({plan.grid.blocks[1], x.size(-1)}, x.options().dtype(at::kFloat));
  launch(x, plan.kernel, plan.grid, gradient, x, bias, x.numel() / x.size(-1), ofX, partial);
  sumPartials(partial, ofBias);
  return {ofX, ofBias};
}

// Where the elements of a prediction are looked for in the images.
struct PatchPlan {
  Kernel kernel;
  Grid grid;
  int64_t groups;
  bool wide;  // whether 32 bits cannot count the elements

  PatchPlan(const char* name, const at::Tensor& prediction, const at::Tensor& clean, const OptionalTensor& mask, int64_t patchSize,
            const at::Tensor& result = {}) {
    const auto weights = mask.value_or(at::Tensor());
    const auto atOnce = elementsAtOnce(patchSize, 1, {&prediction, &clean, &weights, &result});
    groups = prediction.numel() / atOnce;
    wide = prediction.numel() >= (int64_t(1) << 31);
    grid = {{blocksFor(prediction, groups, 256), 1}, {256, 1, 1}};
    kernel = {name, {{"PATCH", std::to_string(patchSize)}, {"CHANNELS", std::to_string(clean.size(1))},
                     {"ROWS", std::to_string(clean.size(2) / patchSize)}, {"COLUMNS", std::to_string(clean.size(3) / patchSize)},
                     {"VEC", std::to_string(atOnce)}, {"T", typeOf(prediction.scalar_type())}, {"C", typeOf(clean.scalar_type())},
                     {"M", mask ? typeOf(mask->scalar_type()) : "u8"}, {"MASKED", mask ? "1" : "0"}, {"INDEX", wide ? "i64" : "u32"}}};
  }

  // Calls body with the number of groups, in the type that the kernel counts with.
  template <typename F>
  void withGroups(F body) const {
    if (wide) body(groups);
    else body(static_cast<uint32_t>(groups));
  }
};

std::tuple<at::Tensor, at::Tensor> maskedL1Cuda(const at::Tensor& prediction, const at::Tensor& clean, const OptionalTensor& mask,
                                                int64_t patchSize) {
  const auto options = prediction.options().dtype(at::kFloat);
  auto loss = at::empty({}, options), scale = at::empty({}, options);
  const float least = mask ? 1.0f : 0.0f;
  const auto channels = static_cast<int>(clean.size(1));
  auto partial = at::zeros({1, 2}, options);
  if (prediction.numel() > 0) {
    const PatchPlan plan("masked_l1", prediction, clean, mask, patchSize);
    partial = at::empty({plan.grid.blocks[0], 2}, options);
    plan.withGroups([&](auto groups) { launch(prediction, plan.kernel, plan.grid, prediction, clean, mask, groups, partial); });
  }
  launch(partial, {"masked_l1_finish", {}}, {{1, 1}, {256, 1, 1}}, partial, static_cast<int>(partial.size(0)), channels, least, loss, scale);
  return {loss, scale};
}

at::Tensor maskedL1BackwardCuda(const at::Tensor& gradient, const at::Tensor& scale, const at::Tensor& prediction, const at::Tensor& clean,
                                const OptionalTensor& mask, int64_t patchSize) {
  auto result = at::empty_like(prediction);
  if (prediction.numel() == 0) return result;
  const PatchPlan plan("masked_l1_backward", prediction, clean, mask, patchSize, result);
  plan.withGroups([&](auto groups) {
    launch(prediction, plan.kernel, plan.grid, gradient, scale, prediction, clean, mask, groups, result);
  });
  return result;
}

}  // namespace

const Kernels cudaKernels{addLayerNormCuda, addLayerNormBackwardCuda, biasGeluCuda, biasGeluBackwardCuda, maskedL1Cuda, maskedL1BackwardCuda};

}  // namespace gmml::fused

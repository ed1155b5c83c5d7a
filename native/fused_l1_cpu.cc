// The masked L1 of predicted patches on the CPU.
#include "fused_rows.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>

#include <cmath>

namespace gmml::fused {

namespace {

// Rows of patches that one thread takes at a time.
constexpr int64_t kStrips = 8;

// Where the parts of predicted patches lie in images. A line is what one row of pixels of a patch has in one channel.
struct Patches {
  int64_t channels, height, width, patch;

  Patches(const at::Tensor& clean, int64_t patchSize)
      : channels(clean.size(1)), height(clean.size(2)), width(clean.size(3)), patch(patchSize) {}

  // body(place in the prediction, place in the clean image, place in the mask, channel) for the lines of some rows of patches.
  template <typename F>
  void eachLine(int64_t first, int64_t last, F body) const {
    const auto down = height / patch, across = width / patch;
    for (auto strip = first; strip < last; ++strip) {
      const auto image = strip / down, y = strip % down * patch;
      for (int64_t column = 0; column < across; ++column) {
        auto place = (strip * across + column) * channels * patch * patch;
        for (int64_t channel = 0; channel < channels; ++channel) {
          for (int64_t line = 0; line < patch; ++line, place += patch) {
            body(place, ((image * channels + channel) * height + y + line) * width + column * patch,
                 (image * height + y + line) * width + column * patch, channel);
          }
        }
      }
    }
  }
};

// Calls body with the element types of prediction and clean image, the type of sums, and a function that gives the weight of a pixel.
template <typename F>
void eachMask(const at::Tensor& prediction, const at::Tensor& clean, const OptionalTensor& mask, F body) {
  inDtype(prediction.scalar_type(), [&](auto predicted, auto type) {
    using A = decltype(type);
    const auto withClean = [&](auto cleanElement) {
      if (!mask) {
        body(predicted, cleanElement, type, [](int64_t) { return A(1); });
      } else if (mask->scalar_type() == at::kBool) {
        const auto* data = mask->const_data_ptr<bool>();
        body(predicted, cleanElement, type, [data](int64_t at) { return data[at] ? A(1) : A(0); });
      } else {
        const auto* data = mask->const_data_ptr<A>();
        body(predicted, cleanElement, type, [data](int64_t at) { return data[at]; });
      }
    };
    if constexpr (std::is_same_v<A, double>) {
      withClean(double());
    } else {
      inDtype(clean.scalar_type(), [&](auto cleanElement, auto precise) {
        if constexpr (std::is_same_v<decltype(precise), float>) withClean(cleanElement);
        return 0;
      });
    }
    return 0;
  });
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> maskedL1Cpu(const at::Tensor& prediction, const at::Tensor& clean, const OptionalTensor& mask,
                                               int64_t patchSize) {
  const Patches patches(clean, patchSize);
  const auto strips = clean.size(0) * (patches.height / patchSize);
  std::vector<double> distances(chunksOf(strips, kStrips)), weights(distances.size());
  eachMask(prediction, clean, mask, [&](auto predicted, auto cleanElement, auto type, auto weightOf) {
    using A = decltype(type);
    const auto* values = prediction.const_data_ptr<decltype(predicted)>();
    const auto* wanted = clean.const_data_ptr<decltype(cleanElement)>();
    eachChunk(strips, distances.size(), [&](int64_t chunk, int64_t first, int64_t last) {
      double distance = 0, weight = 0;
      patches.eachLine(first, last, [&](int64_t place, int64_t pixel, int64_t masked, int64_t channel) {
        A sum = 0, weightSum = 0;
        for (int64_t i = 0; i < patchSize; ++i) {
          const A own = weightOf(masked + i);
          sum += own * std::abs(A(widen(values[place + i])) - A(widen(wanted[pixel + i])));
          weightSum += own;
        }
        distance += sum;
        if (channel == 0) weight += weightSum;
      });
      distances[chunk] = distance;
      weights[chunk] = weight;
    });
  });
  double distance = 0, weight = 0;
  for (size_t i = 0; i < distances.size(); ++i) {
    distance += distances[i];
    weight += weights[i];
  }
  const double elements = std::max(weight * patches.channels, mask ? 1.0 : 0.0);
  const auto options = at::TensorOptions(sumDtype(prediction.scalar_type()));
  return {at::full({}, distance / elements, options), at::full({}, 1 / elements, options)};
}

at::Tensor maskedL1BackwardCpu(const at::Tensor& gradient, const at::Tensor& scale, const at::Tensor& prediction, const at::Tensor& clean,
                               const OptionalTensor& mask, int64_t patchSize) {
  const Patches patches(clean, patchSize);
  const auto strips = clean.size(0) * (patches.height / patchSize);
  auto result = at::empty_like(prediction);
  eachMask(prediction, clean, mask, [&](auto predicted, auto cleanElement, auto type, auto weightOf) {
    using A = decltype(type);
    const auto* values = prediction.const_data_ptr<decltype(predicted)>();
    const auto* wanted = clean.const_data_ptr<decltype(cleanElement)>();
    auto* to = result.mutable_data_ptr<decltype(predicted)>();
    const A factor = *gradient.const_data_ptr<A>() * *scale.const_data_ptr<A>();
    eachChunk(strips, chunksOf(strips, kStrips), [&](int64_t, int64_t first, int64_t last) {
      patches.eachLine(first, last, [&](int64_t place, int64_t pixel, int64_t masked, int64_t) {
        for (int64_t i = 0; i < patchSize; ++i) {
          const A value = widen(values[place + i]), target = widen(wanted[pixel + i]);
          narrow(to[place + i], factor * weightOf(masked + i) * A((value > target) - (value < target)));
        }
      });
    });
  });
  return result;
}

}  // namespace gmml::fused

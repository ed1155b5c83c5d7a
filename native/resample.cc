#include "resample.h"

#include <algorithm>
#include <cmath>

namespace gmml {

namespace {

// Weights are integers, so that every compiler's and every processor's results are equal: 14 bits behind the point leave room for 1.2.
constexpr int kBits = 14;
constexpr int kHalf = 1 << (kBits - 1);

uint8_t toByte(int sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

double cubic(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// What one pixel of the result is made of: neighbours along a side, and their weights.
struct Taps {
  int first;
  std::vector<int16_t> weights;
};

// For each pixel of a side of the result. Pixels beyond the area count for nothing, as if the image ended there.
std::vector<Taps> tapsOf(double start, double length, int pixels, int size) {
  const double scale = length / size, stretch = std::max(scale, 1.0), reach = 2 * stretch;
  const int low = std::max(0, static_cast<int>(std::floor(start))), high = std::min(pixels, static_cast<int>(std::ceil(start + length)));
  std::vector<Taps> all(size);
  std::vector<double> exact;
  for (int i = 0; i < size; ++i) {
    const double centre = start + (i + 0.5) * scale;
    const int first = std::clamp(static_cast<int>(std::floor(centre - reach + 0.5)), low, high - 1);
    const int last = std::clamp(static_cast<int>(std::floor(centre + reach + 0.5)), first + 1, high);
    exact.clear();
    double sum = 0;
    for (int at = first; at < last; ++at) sum += exact.emplace_back(cubic((at + 0.5 - centre) / stretch));
    all[i].first = first;
    for (const double weight : exact) all[i].weights.push_back(static_cast<int16_t>(std::lround(weight / sum * (1 << kBits))));
  }
  return all;
}

}  // namespace

std::vector<uint8_t> resample(const Pixels& pixels, const Area& area, Extent size) {
  const auto& box = pixels.box;
  const auto rows = tapsOf(area.top - box.top, area.height, box.height, size.height);
  const auto columns = tapsOf(area.left - box.left, area.width, box.width, size.width);
  const int begin = 3 * columns.front().first;
  const int end = 3 * (columns.back().first + static_cast<int>(columns.back().weights.size()));
  std::vector<int32_t> sums(end);
  std::vector<uint8_t> row(end);
  std::vector<uint8_t> result(3ull * size.width * size.height);
  auto* to = result.data();
  for (const auto& vertical : rows) {
    // Rows first: whole rows are what a compiler turns into vector instructions.
    std::fill(sums.begin(), sums.end(), kHalf);
    const auto* from = pixels.data.data() + 3ull * box.width * vertical.first;
    for (const int weight : vertical.weights) {
      for (int i = begin; i < end; ++i) sums[i] += weight * from[i];
      from += 3ull * box.width;
    }
    std::transform(sums.begin() + begin, sums.end(), row.begin() + begin, toByte);
    for (const auto& [first, weights] : columns) {
      int red = kHalf, green = kHalf, blue = kHalf;
      const auto* pixel = row.data() + 3 * first;
      for (const int weight : weights) {
        red += weight * pixel[0];
        green += weight * pixel[1];
        blue += weight * pixel[2];
        pixel += 3;
      }
      *to++ = toByte(red);
      *to++ = toByte(green);
      *to++ = toByte(blue);
    }
  }
  return result;
}

}  // namespace gmml

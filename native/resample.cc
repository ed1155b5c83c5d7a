#include "resample.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define GMML_AVX2 1
#include <immintrin.h>
#endif

namespace gmml {

namespace {

// Columns are weighed in groups of so many neighbours.
constexpr int kGroup = 4;
// Bytes of rows that are weighed at a time.
constexpr size_t kBlock = 32;

constexpr size_t inWhole(size_t step, size_t length) { return (length + step - 1) / step * step; }

uint8_t toByte(int sum, int bits) { return static_cast<uint8_t>(std::clamp(sum >> bits, 0, 255)); }

double cubic(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// As many bits as the largest weight leaves, which is ATen's rule.
int bitsFor(double largest) {
  int bits = 0;
  while (bits < 22 && static_cast<int>(0.5 + largest * (1 << (bits + 1))) < 1 << 15) ++bits;
  return bits;
}

// For each pixel of a side of the result. Pixels beyond the area count for nothing, as if the image ended there.
// `group`: the number of neighbours is a multiple of it.
Taps tapsOf(double start, double length, int pixels, int size, int group) {
  struct Range {
    int first, count;
    size_t at;  // in `exact`
  };
  // Counted from the first pixel of the area: of whole pixels the weights are the same, wherever they lie.
  const int low = std::max(0, static_cast<int>(std::floor(start))), high = std::min(pixels, static_cast<int>(std::ceil(start + length)));
  const double scale = length / size, inverse = scale >= 1 ? 1 / scale : 1, reach = scale >= 1 ? 2 * scale : 2;
  std::vector<Range> ranges(size);
  std::vector<double> exact;
  exact.reserve(static_cast<size_t>(size) * std::min(high - low, static_cast<int>(2 * reach) + 2));
  double largest = 0;
  for (int i = 0; i < size; ++i) {
    const double centre = start - low + scale * (i + 0.5);
    const int first = std::clamp(static_cast<int>(std::floor(centre - reach + 0.5)), 0, high - low - 1);
    const int last = std::clamp(static_cast<int>(std::floor(centre + reach + 0.5)), first + 1, high - low);
    ranges[i] = {first, last - first, exact.size()};
    double sum = 0;
    for (int at = first; at < last; ++at) sum += exact.emplace_back(cubic((at - centre + 0.5) * inverse));
    for (size_t at = ranges[i].at; at < exact.size(); ++at) largest = std::max(largest, exact[at] /= sum);
  }
  Taps result;
  result.bits = bitsFor(largest);
  const auto weight = [&](size_t at) { return static_cast<int16_t>(std::lround(exact[at] * (1 << result.bits))); };
  int next = high;
  for (int i = size - 1; i >= 0; --i) {
    auto& [first, count, at] = ranges[i];
    // Zeros at the ends are left out: a side that keeps its length has one neighbour for each pixel then. But no pixel begins behind the next.
    while (count > 1 && first < next && weight(at) == 0) ++first, ++at, --count;
    while (count > 1 && weight(at + count - 1) == 0) --count;
    next = first;
    result.taps = std::max(result.taps, count);
  }
  // Weights of one pixel are 1.
  result.plain = result.taps == 1 && ranges[size - 1].first - ranges[0].first == size - 1;
  result.taps = static_cast<int>(inWhole(group, result.taps));
  result.first.resize(size);
  result.weights.resize(static_cast<size_t>(size) * result.taps);
  for (int i = 0; i < size; ++i) {
    const auto& [first, count, at] = ranges[i];
    // Where the image ends, neighbours that are only there to be as many lie before the others.
    result.first[i] = std::max(0, std::min(low + first, pixels - result.taps));
    auto* to = result.of(i) + (low + first - result.first[i]);
    for (int tap = 0; tap < count; ++tap) to[tap] = weight(at + tap);
  }
  return result;
}

// From a row of interleaved pixels to three planes, `stride` bytes apart.
void takeColumns(const uint8_t* row, int size, bool mirrored, uint8_t* to, size_t stride) {
  if (mirrored) to += size - 1;
  const std::ptrdiff_t step = mirrored ? -1 : 1;
  for (int x = 0; x < size; ++x, row += 3, to += step) {
    for (int channel = 0; channel < 3; ++channel) to[channel * stride] = row[channel];
  }
}

// From a row of interleaved pixels to three planes, `stride` bytes apart, of `columns.first.size()` pixels rounded up to whole groups.
void weighColumns(const uint8_t* row, const Taps& columns, uint8_t* to, size_t stride) {
  const int size = static_cast<int>(columns.first.size()), half = 1 << (columns.bits - 1);
  for (int x = 0; x < size; ++x, ++to) {
    int sums[] = {half, half, half};
    const auto* pixel = row + 3 * static_cast<size_t>(columns.first[x]);
    const auto* weights = columns.of(x);
    for (int tap = 0; tap < columns.taps; ++tap, pixel += 3) {
      for (int channel = 0; channel < 3; ++channel) sums[channel] += weights[tap] * pixel[channel];
    }
    for (int channel = 0; channel < 3; ++channel) to[channel * stride] = toByte(sums[channel], columns.bits);
  }
}

// A row of bytes from as many as there are weights. All of whole blocks.
void weighRows(const uint8_t* const* rows, const int16_t* weights, int count, int bits, uint8_t* to, size_t length) {
  for (size_t i = 0; i < length; ++i) {
    int sum = 1 << (bits - 1);
    for (int tap = 0; tap < count; ++tap) sum += weights[tap] * rows[tap][i];
    to[i] = toByte(sum, bits);
  }
}

#ifdef GMML_AVX2

// The same with the instructions that most processors have: the sums are exact, so the results are equal.

__attribute__((target("avx2"))) inline __m128i weighPixel(const uint8_t* pixel, const int16_t* weights, int taps, __m128i half) {
  // Of four pixels, colour by colour: the first two, then the others.
  const __m128i pairs = _mm_setr_epi8(0, 3, 1, 4, 2, 5, -1, -1, 6, 9, 7, 10, 8, 11, -1, -1);
  const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  __m256i sums = _mm256_setzero_si256();
  for (int tap = 0; tap < taps; tap += kGroup, pixel += 3 * kGroup) {
    const __m128i four = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixel)), pairs);
    int64_t own;
    std::memcpy(&own, weights + tap, sizeof own);
    const __m256i factors = _mm256_permutevar8x32_epi32(_mm256_set1_epi64x(own), halves);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_cvtepu8_epi16(four), factors));
  }
  return _mm_add_epi32(half, _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
}

__attribute__((target("avx2"))) void weighColumnsAvx2(const uint8_t* row, const Taps& columns, uint8_t* to, size_t stride) {
  const int size = static_cast<int>(columns.first.size()), last = size - 1;
  const __m128i half = _mm_set1_epi32(1 << (columns.bits - 1)), shift = _mm_cvtsi32_si128(columns.bits);
  const __m128i planes = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (int x = 0; x < size; x += 4, to += 4) {
    __m128i pixels[4];
    for (int i = 0; i < 4; ++i) {
      const int at = std::min(x + i, last);
      const auto sums = weighPixel(row + 3 * static_cast<size_t>(columns.first[at]), columns.of(at), columns.taps, half);
      pixels[i] = _mm_sra_epi32(sums, shift);
    }
    const __m128i words = _mm_packus_epi16(_mm_packs_epi32(pixels[0], pixels[1]), _mm_packs_epi32(pixels[2], pixels[3]));
    const __m128i bytes = _mm_shuffle_epi8(words, planes);
    const int red = _mm_extract_epi32(bytes, 0), green = _mm_extract_epi32(bytes, 1), blue = _mm_extract_epi32(bytes, 2);
    std::memcpy(to, &red, 4);
    std::memcpy(to + stride, &green, 4);
    std::memcpy(to + 2 * stride, &blue, 4);
  }
}

__attribute__((target("avx2"))) void weighRowsAvx2(
    const uint8_t* const* rows, const int16_t* weights, int count, int bits, uint8_t* to, size_t length) {
  const __m256i half = _mm256_set1_epi32(1 << (bits - 1)), zero = _mm256_setzero_si256();
  const __m128i shift = _mm_cvtsi32_si128(bits);
  for (size_t i = 0; i < length; i += kBlock) {
    __m256i sums[] = {half, half, half, half};
    for (int tap = 0; tap < count; tap += 2) {
      // Two rows at a time; an odd last one with nothing.
      const bool single = tap + 1 == count;
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[tap] + i));
      const __m256i b = single ? zero : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[tap + 1] + i));
      const __m256i factors = _mm256_set1_epi32((single ? 0 : weights[tap + 1] * 65536) | static_cast<uint16_t>(weights[tap]));
      const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
      sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), factors));
      sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), factors));
      sums[2] = _mm256_add_epi32(sums[2], _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), factors));
      sums[3] = _mm256_add_epi32(sums[3], _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), factors));
    }
    for (auto& sum : sums) sum = _mm256_sra_epi32(sum, shift);
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), bytes);
  }
}

// ATEN_CPU_CAPABILITY is libtorch's own switch.
bool hasAvx2() {
  static const bool has = [] {
    const char* wanted = std::getenv("ATEN_CPU_CAPABILITY");
    return __builtin_cpu_supports("avx2") && !(wanted && std::strcmp(wanted, "default") == 0);
  }();
  return has;
}

#endif

void columnsOf(const uint8_t* row, const Taps& columns, uint8_t* to, size_t stride) {
#ifdef GMML_AVX2
  if (hasAvx2()) return weighColumnsAvx2(row, columns, to, stride);
#endif
  weighColumns(row, columns, to, stride);
}

void rowsOf(const uint8_t* const* rows, const int16_t* weights, int count, int bits, uint8_t* to, size_t length) {
#ifdef GMML_AVX2
  if (hasAvx2()) return weighRowsAvx2(rows, weights, count, bits, to, length);
#endif
  weighRows(rows, weights, count, bits, to, length);
}

}  // namespace

Resizer::Resizer(const Area& area, const Box& image, Extent size, Mirror mirror, uint8_t* planes)
    : size_(size), mirror_(mirror), planes_(planes),
      columns_(tapsOf(area.left - image.left, area.width, image.width, size.width, kGroup)),
      rows_(tapsOf(area.top - image.top, area.height, image.height, size.height, 1)),
      stride_(inWhole(kGroup, size.width)), line_(inWhole(kBlock, 3 * stride_)), ring_(line_.size() * rows_.taps), sources_(rows_.taps) {
  if (columns_.plain) start_ = static_cast<int>(std::floor(area.left)) - image.left;
  if (!mirror.x) return;
  // Mirrored already where columns are weighed.
  std::reverse(columns_.first.begin(), columns_.first.end());
  for (int i = 0, j = size.width - 1; i < j; ++i, --j) std::swap_ranges(columns_.of(i), columns_.of(i) + columns_.taps, columns_.of(j));
}

void Resizer::push(const uint8_t* row) {
  const int y = row_++;
  if (next_ == size_.height || y < rows_.first[next_]) return;
  auto* line = ring_.data() + (y % rows_.taps) * line_.size();
  if (columns_.plain) takeColumns(row + 3 * static_cast<size_t>(start_), size_.width, mirror_.x, line, stride_);
  else columnsOf(row, columns_, line, stride_);
  while (next_ < size_.height && rows_.first[next_] + rows_.taps - 1 <= y) write(next_++);
}

void Resizer::write(int y) {
  for (int tap = 0; tap < rows_.taps; ++tap) sources_[tap] = ring_.data() + ((rows_.first[y] + tap) % rows_.taps) * line_.size();
  rowsOf(sources_.data(), rows_.of(y), rows_.taps, rows_.bits, line_.data(), line_.size());
  const size_t area = static_cast<size_t>(size_.width) * size_.height;
  auto* to = planes_ + static_cast<size_t>(mirror_.y ? size_.height - 1 - y : y) * size_.width;
  for (int plane = 0; plane < 3; ++plane) std::memcpy(to + plane * area, line_.data() + plane * stride_, size_.width);
}

}  // namespace gmml

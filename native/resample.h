#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gmml {

// A rectangle of whole pixels.
struct Box {
  int left, top, width, height;
};

// A rectangle whose edges may lie inside of pixels: pixel 0 reaches from 0 to 1.
struct Area {
  double left, top, width, height;
};

struct Extent {
  int width, height;
};

struct Mirror {
  bool x, y;
};

// How the pixels along one side of the result are made: of each one `taps` neighbours, from `first` on, times their weights.
struct Taps {
  int taps = 0;  // the same for all: what has fewer has weights of 0
  int bits = 0;  // of the weights, behind the point
  bool plain = false;  // the side keeps its length: each pixel is one neighbour, the next one's the next
  std::vector<int> first;  // ascending
  std::vector<int16_t> weights;
  int16_t* of(int pixel) { return weights.data() + static_cast<size_t>(pixel) * taps; }
  const int16_t* of(int pixel) const { return weights.data() + static_cast<size_t>(pixel) * taps; }
};

// Bytes behind the last pixel of a row that are read, for nothing.
constexpr size_t kRowSlack = 16;

// Resizes a part of an image with the antialiased bicubic kernel of Pillow and ATen (a = -0.5) while its rows come, so no more of them are
// kept than a row of the result is made of. Of whole pixels the result is ATen's for bytes, to the bit: integer weights of up to 16 bits,
// columns before rows, rounded to bytes between. ATen's own wants the whole part in memory and without gaps, and leaves interleaved pixels.
class Resizer {
 public:
  // `area` lies in `image`, a part of an image whose rows are to come. The planes [3, H, W] must live as long as this.
  Resizer(const Area& area, const Box& image, Extent size, Mirror mirror, uint8_t* planes);

  // The next row of `image`, from the first on: RGB, interleaved, and kRowSlack bytes.
  void push(const uint8_t* row);

 private:
  void write(int y);

  Extent size_;
  Mirror mirror_;
  uint8_t* planes_;
  Taps columns_, rows_;
  size_t stride_;  // between the planes of a row
  std::vector<uint8_t> line_, ring_;  // a row of the result; those that the next one is made of, resized to its width
  std::vector<const uint8_t*> sources_;
  int start_ = 0, row_ = 0, next_ = 0;  // the first pixel of a row where columns stay as they are
};

}  // namespace gmml

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

// A part of an image: RGB, interleaved, rows without gaps.
struct Pixels {
  Box box;  // where it lies in the image
  std::vector<uint8_t> data;
};

// Resizes `area` of the image that `pixels` is a part of, and lies inside of, with the antialiased bicubic kernel of Pillow and ATen
// (a = -0.5). ATen's own resizes whole pixels only. The result is interleaved.
std::vector<uint8_t> resample(const Pixels& pixels, const Area& area, Extent size);

}  // namespace gmml

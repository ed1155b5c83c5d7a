#pragma once

#include "resample.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace gmml {

struct JpegHeader {
  int width, height;  // as they are stored, before the orientation
  int orientation;    // EXIF's, 1 to 8
  bool sideways() const { return orientation >= 5; }
};

// Reads JPEG files of the usual kinds with libjpeg-turbo: 8 bits, Huffman coding, grey or RGB or YCbCr, sRGB. It never judges a file: each
// function gives false for whatever is unusual, damaged or worth as much as a warning, and another decoder then has the last word.
// Not for several threads at once; any number of objects may be in use.
class JpegReader {
 public:
  // The bytes must live as long as this.
  JpegReader(const uint8_t* bytes, size_t length);
  ~JpegReader();
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  bool readHeader(JpegHeader& header);
  // After readHeader, once. Decodes the part `box` of the image reduced to `eighths` / 8 (1, 2, 4 or 8) of its size, whose pixel counts are
  // rounded up, and gives `take` its rows from the first on: RGB, interleaved, kRowSlack bytes behind. All of the file is looked at, not only
  // the part, so a file is damaged or not whatever is asked for; rows may have been taken before that is known.
  bool decode(int eighths, const Box& box, const std::function<void(const uint8_t*)>& take);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The version of libjpeg-turbo that this was compiled with, or null without one.
const char* jpegVersion();

}  // namespace gmml

// The one number of EXIF that decides about pixels. EXIF 2.32, section 4.6: a TIFF directory behind "Exif\0\0".
#include "exif.h"

#include <cstring>

namespace gmml {

namespace {

struct Tiff {
  const uint8_t* data;
  size_t length;
  bool bigEndian;

  bool has(size_t offset, size_t bytes) const { return offset <= length && bytes <= length - offset; }
  uint32_t number(size_t offset, size_t bytes) const {
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= static_cast<uint32_t>(data[offset + i]) << 8 * (bigEndian ? bytes - 1 - i : i);
    return value;
  }
};

constexpr uint32_t kOrientation = 0x0112;
constexpr uint32_t kShort = 3;

}  // namespace

int exifOrientation(const uint8_t* data, size_t length) {
  constexpr size_t prefix = 6, header = 8, entrySize = 12;
  if (length < prefix + header || std::memcmp(data, "Exif\0\0", prefix) != 0) return 0;
  const Tiff tiff{data + prefix, length - prefix, data[prefix] == 'M'};
  if (std::memcmp(tiff.data, tiff.bigEndian ? "MM\0\x2a" : "II\x2a\0", 4) != 0) return 0;
  const size_t directory = tiff.number(4, 4);
  if (!tiff.has(directory, 2)) return 0;
  const size_t count = tiff.number(directory, 2);
  if (!tiff.has(directory + 2, count * entrySize)) return 0;
  int orientation = 1;
  for (size_t entry = directory + 2; entry < directory + 2 + count * entrySize; entry += entrySize) {
    if (tiff.number(entry, 2) != kOrientation) continue;
    const auto value = tiff.number(entry + 8, 2);
    const bool legal = tiff.number(entry + 2, 2) == kShort && tiff.number(entry + 4, 4) == 1 && value >= 1 && value <= 8;
    if (!legal || orientation != 1) return 0;
    orientation = static_cast<int>(value);
  }
  return orientation;
}

}  // namespace gmml

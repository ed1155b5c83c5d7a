#pragma once

#include <cstddef>
#include <cstdint>

namespace gmml {

// The orientation (1 to 8) in an APP1 segment that begins with "Exif": 1 where it names none, 0 where it cannot be read or is no such
// number.
int exifOrientation(const uint8_t* data, size_t length);

}  // namespace gmml

#pragma once

#include <cstddef>
#include <cstdint>

namespace gmml {

// Whether an ICC profile describes sRGB: its primaries and its curve, whatever it is called. False for a profile that is built otherwise
// than of three primaries and three curves.
bool isSrgb(const uint8_t* profile, size_t length);

}  // namespace gmml

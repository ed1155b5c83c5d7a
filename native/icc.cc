// ICC.1:2022 profiles, as far as it takes to know sRGB.
#include "icc.h"

#include <cmath>
#include <cstring>

namespace gmml {

namespace {

class Profile {
 public:
  Profile(const uint8_t* data, size_t length) : data_(data), length_(length) {}

  bool has(size_t offset, size_t bytes) const { return offset <= length_ && bytes <= length_ - offset; }
  bool is(size_t offset, const char* signature) const { return has(offset, 4) && std::memcmp(data_ + offset, signature, 4) == 0; }
  uint32_t u32(size_t at) const { return static_cast<uint32_t>(u16(at)) << 16 | u16(at + 2); }
  uint16_t u16(size_t at) const { return has(at, 2) ? static_cast<uint16_t>(data_[at] << 8 | data_[at + 1]) : 0; }
  double fixed(size_t at) const { return static_cast<int32_t>(u32(at)) / 65536.0; }

  // Where a tag's data begins, or 0.
  size_t find(const char* signature) const {
    const size_t count = u32(128);
    for (size_t i = 0; i < count && has(132 + 12 * i, 12); ++i) {
      if (is(132 + 12 * i, signature)) return u32(136 + 12 * i);
    }
    return 0;
  }

 private:
  const uint8_t* data_;
  size_t length_;
};

double srgbCurve(double x) { return x <= 0.04045 ? x / 12.92 : std::pow((x + 0.055) / 1.055, 2.4); }

// Parametric curves of type 3: (a x + b)^g from d on, c x below.
double parametric(const Profile& profile, size_t at, double x) {
  const auto parameter = [&](int index) { return profile.fixed(at + 12 + 4 * index); };
  const double base = parameter(1) * x + parameter(2);
  return x >= parameter(4) ? std::pow(base > 0 ? base : 0, parameter(0)) : parameter(3) * x;
}

double tabulated(const Profile& profile, size_t at, double x) {
  const double place = x * (profile.u32(at + 8) - 1);
  const auto index = static_cast<size_t>(place);
  const double low = profile.u16(at + 12 + 2 * index), high = profile.u16(at + 12 + 2 * (index + (place > index)));
  return (low + (high - low) * (place - index)) / 65535;
}

bool hasSrgbCurve(const Profile& profile, const char* tag) {
  // A third of what a step of 8 bits is at the bright end.
  constexpr double tolerance = 0.003;
  const size_t at = profile.find(tag);
  const bool formula = profile.is(at, "para") && profile.u16(at + 8) == 3 && profile.has(at, 32);
  const bool table = profile.is(at, "curv") && profile.u32(at + 8) > 1 && profile.has(at + 12, 2ull * profile.u32(at + 8));
  if (at == 0 || (!formula && !table)) return false;
  for (int i = 0; i <= 64; ++i) {
    const double x = i / 64.0, y = formula ? parametric(profile, at, x) : tabulated(profile, at, x);
    if (!(std::abs(y - srgbCurve(x)) < tolerance)) return false;
  }
  return true;
}

struct Primary {
  const char *place, *curve;
  double xyz[3];  // adapted to D50, as profiles have it
};

constexpr Primary kPrimaries[] = {
    {"rXYZ", "rTRC", {0.4361, 0.2225, 0.0139}}, {"gXYZ", "gTRC", {0.3851, 0.7169, 0.0971}}, {"bXYZ", "bTRC", {0.1431, 0.0606, 0.7141}}};

}  // namespace

bool isSrgb(const uint8_t* data, size_t length) {
  const Profile profile(data, length);
  // A table from device colours goes before primaries and curves.
  if (!profile.has(0, 132) || !profile.is(16, "RGB ") || !profile.is(20, "XYZ ") || profile.find("A2B0") != 0) return false;
  for (const auto& [place, curve, xyz] : kPrimaries) {
    const size_t at = profile.find(place);
    if (at == 0 || !profile.is(at, "XYZ ") || !profile.has(at, 20) || !hasSrgbCurve(profile, curve)) return false;
    for (int axis = 0; axis < 3; ++axis) {
      if (!(std::abs(profile.fixed(at + 8 + 4 * axis) - xyz[axis]) < 0.003)) return false;
    }
  }
  return true;
}

}  // namespace gmml

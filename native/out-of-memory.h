#pragma once

#include <exception>
#include <limits>
#include <optional>
#include <string>

namespace gmml {

// What is known of memory that was not there. Bytes; NaN for what is not known.
struct OutOfMemory {
  static constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  std::string device;
  double requested = unknown;
  // Of a GPU, after the failure.
  double free = unknown, total = unknown, allocated = unknown, reserved = unknown;
};

// Nothing for an error of another kind.
std::optional<OutOfMemory> outOfMemoryOf(const std::exception& error, const std::string& text) noexcept;

}  // namespace gmml

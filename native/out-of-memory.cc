#include "out-of-memory.h"

#include "cuda.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <new>

namespace gmml {

namespace {

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// The allocators' errors carry no numbers but in their text: "ried to allocate 4503599627370496 bytes", "ried to allocate 20.00 GiB".
double requestedBytes(const std::string& text) {
  constexpr char before[] = "ried to allocate ";
  const auto at = text.find(before);
  if (at == std::string::npos) return OutOfMemory::unknown;
  char* end = nullptr;
  double bytes = std::strtod(text.c_str() + at + sizeof before - 1, &end);
  constexpr char prefixes[] = "KMGTPE";
  while (*end == ' ') ++end;
  for (int i = 0; prefixes[i] != '\0'; ++i) {
    if (end[0] == prefixes[i] && end[1] == 'i') {
      for (int k = 0; k <= i; ++k) bytes *= 1024;
    }
  }
  return bytes;
}

void addFigures(OutOfMemory& memory, c10::DeviceIndex index) {
  auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
  const auto [free, total] = allocator->getMemoryInfo(index);
  const auto stats = allocator->getDeviceStats(index);
  memory.free = static_cast<double>(free);
  memory.total = static_cast<double>(total);
  memory.allocated = static_cast<double>(stats.allocated_bytes[0].current);
  memory.reserved = static_cast<double>(stats.reserved_bytes[0].current);
}

}  // namespace

std::optional<OutOfMemory> outOfMemoryOf(const std::exception& error, const std::string& text) noexcept {
  try {
    const bool onDevice = dynamic_cast<const c10::OutOfMemoryError*>(&error) || contains(text, "CUDA error: out of memory");
    const bool onHost = dynamic_cast<const std::bad_alloc*>(&error) || contains(text, "DefaultCPUAllocator: ");
    if (!onDevice && !onHost) return std::nullopt;
    OutOfMemory memory{"cpu", requestedBytes(text)};
    if (!onDevice) return memory;
    memory.device = "cuda";
    try {
      const auto at = text.find("GPU ");
      char* end = nullptr;
      const long named = at == std::string::npos ? -1 : std::strtol(text.c_str() + at + 4, &end, 10);
      const bool known = named >= 0 && end != text.c_str() + at + 4 && named < cudaGuard().deviceCount();
      const auto index = known ? static_cast<c10::DeviceIndex>(named) : cudaGuard().getDevice().index();
      memory.device = "cuda:" + std::to_string(index);
      addFigures(memory, index);
    } catch (const std::exception&) {  // a device that has failed does not say how much memory it has
    }
    return memory;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace gmml

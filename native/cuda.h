#pragma once

#include "arguments.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace gmml {

// Why no GPU can be used; empty where one can.
std::string cudaUnavailableReason();

// Throws ValueError with the reason where no GPU can be used.
void requireCuda();

// The GPU that an argument names; without an index (`cuda`) the current one. Throws ValueError where it is not there.
c10::Device cudaDeviceAt(const Napi::CallbackInfo& info, size_t index);

// Device, streams and events of CUDA, through the interface that needs none of CUDA's headers. Only where there is a GPU.
inline c10::impl::VirtualGuardImpl cudaGuard() { return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA); }

}  // namespace gmml

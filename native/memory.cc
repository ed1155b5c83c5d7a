// How the process keeps the memory of freed tensors.
#include <cstdlib>
#include <cstring>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace gmml {

namespace {

// A training step allocates and frees the same large blocks each time. glibc gives such blocks back to the kernel, which then clears and
// maps every page of them again in the next step. Kept, they are there at once, and the next step needs them anyway.
bool keepFreedMemory() {
#ifdef __GLIBC__
  // Whoever has set these has decided.
  const char* tunables = std::getenv("GLIBC_TUNABLES");
  if (std::getenv("MALLOC_TRIM_THRESHOLD_") || std::getenv("MALLOC_MMAP_THRESHOLD_")) return false;
  if (tunables && std::strstr(tunables, "glibc.malloc")) return false;
  // Before 2.35 glibc refuses more than 32 MiB.
  return mallopt(M_TRIM_THRESHOLD, -1) && (mallopt(M_MMAP_THRESHOLD, 1 << 30) || mallopt(M_MMAP_THRESHOLD, 32 << 20));
#else
  return false;
#endif
}

// The allocator is the whole process's, so this is done when the addon is loaded, not in each JavaScript thread.
[[maybe_unused]] const bool kept = keepFreedMemory();

}  // namespace

}  // namespace gmml

#pragma once

#include <ATen/record_function.h>

#include <memory>
#include <vector>

namespace gmml {

// What a JavaScript thread records of its work.
struct Profiling {
  Profiling() = default;
  Profiling(const Profiling&) = delete;
  // A thread that ends while it is recorded.
  ~Profiling();

  bool active = false;
  std::vector<std::unique_ptr<at::RecordFunction>> regions;  // named ones that JavaScript is in, the innermost last
};

}  // namespace gmml

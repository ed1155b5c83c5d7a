#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace gmml {

class GradientPass;

// Regions whose node is gone: its graph was freed, on whatever thread. JavaScript forgets their functions when it next looks.
struct FreedRegions {
  std::mutex mutex;
  std::vector<double> regions;
};

// Gradient checkpointing in one JavaScript thread.
struct Checkpoints {
  std::shared_ptr<FreedRegions> freed = std::make_shared<FreedRegions>();
  std::map<uint32_t, std::shared_ptr<GradientPass>> passes;  // backward passes that JavaScript is in the middle of
  uint32_t nextPass = 1;
};

}  // namespace gmml

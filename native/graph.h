#pragma once

#include "handles.h"

#include <memory>

namespace gmml {

class CapturedGraph;

// A CUDA graph is shared with whoever replays it at the moment.
using GraphTable = HandleTable<std::shared_ptr<CapturedGraph>>;

}  // namespace gmml

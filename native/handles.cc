#include "handles.h"

#include "graph.h"
#include "pinned.h"

#include <algorithm>
#include <random>
#include <utility>

namespace gmml {

namespace {

// A different start in each table, so that a handle from another thread is recognised as foreign.
uint32_t randomGeneration() {
  std::random_device device;
  return kFirstGeneration + device() % (kGenerations - 2 * kFirstGeneration);
}

uint32_t nextGeneration(uint32_t generation) {
  return generation + 1 >= kGenerations ? kFirstGeneration : generation + 1;
}

}  // namespace

template <typename T>
void HandleTable<T>::refuse() const {
  throw HandleError(std::string("the ") + noun_ + " was disposed of, its scope has ended, or it belongs to another thread");
}

template <typename T>
typename HandleTable<T>::Slot& HandleTable<T>::add(T object) {
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (slots_.size() >= kSlots) {
      throw HandleError(std::to_string(kSlots) + " live " + noun_ + "s: dispose of some, or work inside scope()");
    }
    index = static_cast<uint32_t>(slots_.size());
    slots_.push_back(Slot{T(), slots_.empty() ? randomGeneration() : slots_.front().generation});
  }
  auto& slot = slots_[index];
  slot.object = std::move(object);
  slot.live = true;
  ++live_;
  return slot;
}

template <typename T>
void HandleTable<T>::release(Slot& slot) {
  // Moved out first: a destructor may be slow, and must find the table consistent.
  [[maybe_unused]] const T object = std::exchange(slot.object, T());
  slot.generation = nextGeneration(slot.generation);
  slot.live = slot.scoped = slot.surviving = false;
  --live_;
  free_.push_back(static_cast<uint32_t>(&slot - slots_.data()));
}

template class HandleTable<at::Tensor>;
template class HandleTable<at::Generator>;
template class HandleTable<std::shared_ptr<CapturedGraph>>;
template class HandleTable<std::shared_ptr<c10::Event>>;
template class HandleTable<std::shared_ptr<PinnedMemory>>;
template class HandleTable<std::optional<c10::Stream>>;

Handle StreamTable::insert(const c10::Stream& stream) {
  const auto known = known_.find(stream);
  if (known != known_.end()) return known->second;
  const Handle handle = HandleTable::insert(stream);
  known_.emplace(stream, handle);
  return handle;
}

Handle TensorTable::insert(at::Tensor tensor) {
  auto& slot = add(std::move(tensor));
  const Handle handle = handleOf(slot);
  if (starts_.empty()) {
    report(slot);
  } else {
    slot.scoped = true;
    created_.push_back(handle);
  }
  return handle;
}

void TensorTable::report(Slot& slot) {
  slot.scoped = false;
  const auto& tensor = slot.object;
  // A view's memory is its base's: counted again, an expanded number would look like terabytes to V8.
  const bool owns = tensor.has_storage() && !tensor.is_view();
  // Of a storage that tensors share without being views, as those of a mapped file do, each counts its own part.
  slot.reported = owns ? static_cast<int64_t>(std::min(tensor.storage().nbytes(), tensor.nbytes())) : 0;
  unreported_ += slot.reported;
}

void TensorTable::dispose(Handle handle) {
  auto& slot = find(handle);
  unreported_ -= std::exchange(slot.reported, 0);
  release(slot);
}

void TensorTable::keep(Handle handle) {
  auto& slot = find(handle);
  if (slot.scoped) report(slot);
}

size_t TensorTable::beginScope() {
  starts_.push_back(created_.size());
  return starts_.size();
}

size_t TensorTable::endScope(size_t depth, const std::vector<Handle>& survivors) {
  if (depth == 0 || depth > starts_.size()) throw HandleError("the scope has already ended");
  for (const Handle handle : survivors) {
    if (auto* slot = locate(handle)) slot->surviving = true;
  }
  const size_t start = starts_[depth - 1];
  starts_.resize(depth - 1);
  size_t kept = start;
  for (size_t i = start; i < created_.size(); ++i) {
    const Handle handle = created_[i];
    auto* slot = locate(handle);
    if (!slot || !slot->scoped) continue;  // disposed of, or taken out of the scope
    if (!slot->surviving) {
      release(*slot);
    } else if (starts_.empty()) {
      report(*slot);
    } else {
      created_[kept++] = handle;
    }
  }
  created_.resize(kept);
  for (const Handle handle : survivors) {
    if (auto* slot = locate(handle)) slot->surviving = false;
  }
  return starts_.size();
}

int64_t TensorTable::takeUnreportedBytes() { return std::exchange(unreported_, 0); }

}  // namespace gmml

#include "handles.h"

#include <cmath>
#include <random>

namespace gmml {

namespace {
constexpr double kSlots = 4194304;            // 2^22
constexpr uint32_t kGenerations = 0x7fffffff;  // 2^31 - 1
// Small numbers are what user code passes by mistake; no generation starts low enough to make one a handle.
constexpr uint32_t kFirstGeneration = 1u << 20;

// A different start in each table, so that a handle from another thread is recognised as foreign.
uint32_t randomGeneration() {
  std::random_device device;
  return kFirstGeneration + device() % (kGenerations - 2 * kFirstGeneration);
}

uint32_t nextGeneration(uint32_t generation) {
  return generation + 1 >= kGenerations ? kFirstGeneration : generation + 1;
}
}  // namespace

bool mayBeHandle(double number) {
  return number >= kSlots * kFirstGeneration && number < kSlots * kGenerations && number == std::floor(number);
}

template <typename T>
HandleTable<T>::HandleTable(const char* noun) : noun_(noun) {}

template <typename T>
Handle HandleTable<T>::handleOf(size_t slot) const {
  return static_cast<double>(slots_[slot].generation) * kSlots + static_cast<double>(slot);
}

template <typename T>
Handle HandleTable<T>::insert(T object) {
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (slots_.size() >= static_cast<size_t>(kSlots)) {
      throw HandleError(std::string("4194304 live ") + noun_ + "s: dispose of some, or work inside scope()");
    }
    index = static_cast<uint32_t>(slots_.size());
    slots_.push_back(Slot{T(), slots_.empty() ? randomGeneration() : slots_.front().generation});
  }
  auto& slot = slots_[index];
  slot.object = std::move(object);
  slot.live = true;
  ++live_;
  return handleOf(index);
}

template <typename T>
std::optional<size_t> HandleTable<T>::locate(Handle handle) const {
  if (!mayBeHandle(handle)) return std::nullopt;
  const double generation = std::floor(handle / kSlots);
  const auto slot = static_cast<size_t>(handle - generation * kSlots);
  if (slot >= slots_.size() || !slots_[slot].live || slots_[slot].generation != static_cast<uint32_t>(generation)) return std::nullopt;
  return slot;
}

template <typename T>
size_t HandleTable<T>::find(Handle handle) const {
  if (const auto slot = locate(handle)) return *slot;
  throw HandleError(std::string("the ") + noun_ + " was disposed of, its scope has ended, or it belongs to another thread");
}

template <typename T>
void HandleTable<T>::release(size_t index) {
  auto& slot = slots_[index];
  // Moved out first: a destructor may be slow, and must find the table consistent.
  T object = std::move(slot.object);
  slot.object = T();
  slot.generation = nextGeneration(slot.generation);
  slot.live = slot.scoped = slot.surviving = false;
  --live_;
  free_.push_back(static_cast<uint32_t>(index));
}

template class HandleTable<at::Tensor>;
template class HandleTable<at::Generator>;

Handle TensorTable::insert(at::Tensor tensor) {
  const Handle handle = HandleTable::insert(std::move(tensor));
  auto& slot = slots_[find(handle)];
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
  slot.reported = slot.object.has_storage() ? static_cast<int64_t>(slot.object.nbytes()) : 0;
  unreported_ += slot.reported;
}

void TensorTable::dispose(Handle handle) {
  const size_t index = find(handle);
  unreported_ -= slots_[index].reported;
  slots_[index].reported = 0;
  release(index);
}

void TensorTable::keep(Handle handle) {
  auto& slot = slots_[find(handle)];
  if (slot.scoped) report(slot);
}

size_t TensorTable::beginScope() {
  starts_.push_back(created_.size());
  return starts_.size();
}

size_t TensorTable::endScope(size_t depth, const std::vector<Handle>& survivors) {
  if (depth == 0 || depth > starts_.size()) throw HandleError("the scope has already ended");
  for (const Handle handle : survivors) {
    if (const auto slot = locate(handle)) slots_[*slot].surviving = true;
  }
  const size_t start = starts_[depth - 1];
  starts_.resize(depth - 1);
  size_t kept = start;
  for (size_t i = start; i < created_.size(); ++i) {
    const Handle handle = created_[i];
    const auto index = locate(handle);
    if (!index) continue;
    auto& slot = slots_[*index];
    if (!slot.scoped) continue;
    if (!slot.surviving) {
      release(*index);
    } else if (starts_.empty()) {
      report(slot);
    } else {
      created_[kept++] = handle;
    }
  }
  created_.resize(kept);
  for (const Handle handle : survivors) {
    if (const auto slot = locate(handle)) slots_[*slot].surviving = false;
  }
  return starts_.size();
}

int64_t TensorTable::takeUnreportedBytes() {
  const int64_t bytes = unreported_;
  unreported_ = 0;
  return bytes;
}

}  // namespace gmml

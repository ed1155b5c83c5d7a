#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace gmml {

class PinnedMemory;

// What JavaScript holds of a native object: slot and generation in one double (22 + 31 bits, exact). Freeing a slot
// advances its generation, so a stale handle is recognised and never reaches another object's memory.
using Handle = double;

constexpr uint64_t kSlotBits = 22;
constexpr uint64_t kSlots = 1ull << kSlotBits;
constexpr uint32_t kGenerations = 0x7fffffff;
// Small numbers are what user code passes by mistake; no generation starts low enough to make one a handle.
constexpr uint32_t kFirstGeneration = 1u << 20;

// False for numbers that no table has ever given out, such as those that user code means as numbers.
inline bool mayBeHandle(double number) {
  return number >= static_cast<double>(kFirstGeneration * kSlots) && number < static_cast<double>(kGenerations * kSlots) &&
         number == static_cast<double>(static_cast<uint64_t>(number));
}

struct HandleError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

template <typename T>
class HandleTable {
 public:
  explicit HandleTable(const char* noun) : noun_(noun) {}

  Handle insert(T object) { return handleOf(add(std::move(object))); }
  const T& get(Handle handle) const {
    if (const Slot* slot = locate(handle)) return slot->object;
    refuse();
  }
  bool isLive(Handle handle) const { return locate(handle) != nullptr; }
  void dispose(Handle handle) { release(find(handle)); }
  size_t live() const { return live_; }

 protected:
  struct Slot {
    T object;
    uint32_t generation;
    bool live = false;
    bool scoped = false;     // freed with the scope it was made in
    bool surviving = false;  // leaves a scope that is closing
    int64_t reported = 0;    // bytes that V8 was told of
  };

  // Null for what is no live handle of this table.
  const Slot* locate(Handle handle) const {
    if (!mayBeHandle(handle)) return nullptr;
    const auto bits = static_cast<uint64_t>(handle);
    const size_t index = bits & (kSlots - 1);
    if (index >= slots_.size()) return nullptr;
    const Slot& slot = slots_[index];
    return slot.live && slot.generation == bits >> kSlotBits ? &slot : nullptr;
  }
  Slot* locate(Handle handle) { return const_cast<Slot*>(std::as_const(*this).locate(handle)); }
  Slot& find(Handle handle) {
    if (Slot* slot = locate(handle)) return *slot;
    refuse();
  }
  Handle handleOf(const Slot& slot) const {
    return static_cast<double>(slot.generation * kSlots + static_cast<uint64_t>(&slot - slots_.data()));
  }
  Slot& add(T object);
  void release(Slot& slot);

  std::vector<Slot> slots_;

 private:
  [[noreturn]] void refuse() const;

  const char* noun_;
  std::vector<uint32_t> free_;
  size_t live_ = 0;
};

using GeneratorTable = HandleTable<at::Generator>;
// Shared with the workers that wait for an event.
using EventTable = HandleTable<std::shared_ptr<c10::Event>>;
using PinnedTable = HandleTable<std::shared_ptr<PinnedMemory>>;

// Streams come from libtorch's pool and live as long as the process: each has one handle for good.
class StreamTable : public HandleTable<std::optional<c10::Stream>> {
 public:
  StreamTable() : HandleTable("stream") {}

  Handle insert(const c10::Stream& stream);

 private:
  std::unordered_map<c10::Stream, Handle> known_;
};

class TensorTable : public HandleTable<at::Tensor> {
 public:
  TensorTable() : HandleTable("tensor") {}

  Handle insert(at::Tensor tensor);
  void dispose(Handle handle);
  // Takes a tensor out of every scope: it lives until it is disposed of.
  void keep(Handle handle);

  size_t scopeDepth() const { return starts_.size(); }
  size_t beginScope();
  // Closes scope `depth` and any left open inside it. Survivors move to the enclosing scope, or out of all scopes.
  size_t endScope(size_t depth, const std::vector<Handle>& survivors);

  // Bytes held by tensors outside scopes (freed: negative) that V8 has not been told of.
  int64_t unreportedBytes() const { return unreported_; }
  int64_t takeUnreportedBytes();

  template <typename Visitor>
  void forEach(Visitor visit) const {
    for (const auto& slot : slots_) {
      if (slot.live) visit(slot.object);
    }
  }

 private:
  void report(Slot& slot);

  std::vector<Handle> created_;  // in order, by every open scope
  std::vector<size_t> starts_;   // where each open scope begins in created_
  int64_t unreported_ = 0;
};

}  // namespace gmml

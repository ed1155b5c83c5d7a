#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace gmml {

// What JavaScript holds of a native object: slot and generation in one double (22 + 31 bits, exact). Freeing a slot
// advances its generation, so a stale handle is recognised and never reaches another object's memory.
using Handle = double;

// False for numbers that no table has ever given out, such as those that user code means as numbers.
bool mayBeHandle(double number);

struct HandleError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

template <typename T>
class HandleTable {
 public:
  explicit HandleTable(const char* noun);

  Handle insert(T object);
  const T& get(Handle handle) const { return slots_[find(handle)].object; }
  bool isLive(Handle handle) const { return locate(handle).has_value(); }
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

  std::optional<size_t> locate(Handle handle) const;
  size_t find(Handle handle) const;
  Handle handleOf(size_t slot) const;
  void release(size_t slot);

  std::vector<Slot> slots_;

 private:
  const char* noun_;
  std::vector<uint32_t> free_;
  size_t live_ = 0;
};

using GeneratorTable = HandleTable<at::Generator>;

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

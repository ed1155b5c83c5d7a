#pragma once

#include <c10/core/Event.h>
#include <napi.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace gmml {

// Memory of a JavaScript array that is registered with CUDA as long as this object lives, with the copies that were started from it.
class PinnedMemory {
 public:
  PinnedMemory(void* data, size_t length, Napi::ObjectReference array) : data_(data), length_(length), array_(std::move(array)) {}
  PinnedMemory(const PinnedMemory&) = delete;
  // Waits for the copies: memory that is still read must be neither unregistered nor freed.
  ~PinnedMemory();

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  size_t length() const { return length_; }
  // A copy from this memory was put on the stream.
  void copied(const c10::Stream& stream);
  bool isIdle() const {
    return std::all_of(copies_.begin(), copies_.end(), [](const c10::Event& copy) { return copy.query(); });
  }

 private:
  void wait();

  void* data_;
  size_t length_;
  Napi::ObjectReference array_;
  std::vector<c10::Event> copies_;
};

}  // namespace gmml

// Streams and events of CUDA.
#include "cuda.h"
#include "exports.h"
#include "promised-work.h"

#include <cmath>

namespace gmml {

namespace {

Napi::Value toStream(const Napi::CallbackInfo& info, const c10::Stream& stream) {
  return Napi::Number::New(info.Env(), environmentOf(info).streams.insert(stream));
}

c10::Stream streamAt(const Napi::CallbackInfo& info, size_t index) {
  return *environmentOf(info).streams.get(handleAt(info, index, "a Stream"));
}

std::shared_ptr<c10::Event> eventAt(const Napi::CallbackInfo& info, size_t index) {
  return environmentOf(info).events.get(handleAt(info, index, "an Event"));
}

// cudaNewStream(device, priority): one of libtorch's pool, which hands the same ones out again after 32 of a device and priority.
Napi::Value cudaNewStream(const Napi::CallbackInfo& info) {
  const auto device = cudaDeviceAt(info, 0);
  const double priority = numberAt(info, 1);
  if (!(priority <= 0 && priority >= -1000) || priority != std::floor(priority)) refuseAt(info, 1, "a priority of 0 (low) or below");
  return toStream(info, cudaGuard().getNewStream(device, static_cast<int>(priority)));
}

Napi::Value cudaCurrentStream(const Napi::CallbackInfo& info) {
  const auto device = cudaDeviceAt(info, 0);
  return toStream(info, cudaGuard().getStream(device));
}

Napi::Value cudaDefaultStream(const Napi::CallbackInfo& info) {
  const auto device = cudaDeviceAt(info, 0);
  return toStream(info, cudaGuard().getDefaultStream(device));
}

// cudaSetStream(stream): the current one of its device; gives the one before.
Napi::Value cudaSetStream(const Napi::CallbackInfo& info) {
  const auto stream = streamAt(info, 0);
  return toStream(info, cudaGuard().exchangeStream(stream));
}

Napi::Value streamDevice(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), streamAt(info, 0).device().str()); }

Napi::Value queryStream(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), streamAt(info, 0).query()); }

Napi::Value synchronizeStream(const Napi::CallbackInfo& info) {
  streamAt(info, 0).synchronize();
  return info.Env().Undefined();
}

Napi::Value synchronizeStreamAsync(const Napi::CallbackInfo& info) {
  const auto stream = streamAt(info, 0);
  return (new PromisedWait(info, "synchronizeStreamAsync", [stream] { stream.synchronize(); }))->start();
}

// makeEvent(timing): belongs to the device of the stream that it is recorded on first.
Napi::Value makeEvent(const Napi::CallbackInfo& info) {
  const bool timing = boolAt(info, 0);
  requireCuda();
  const auto flag = timing ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT;
  return Napi::Number::New(info.Env(), environmentOf(info).events.insert(std::make_shared<c10::Event>(c10::DeviceType::CUDA, flag)));
}

Napi::Value disposeEvent(const Napi::CallbackInfo& info) {
  auto& events = environmentOf(info).events;
  const double handle = handleAt(info, 0, "an Event");
  if (events.isLive(handle)) events.dispose(handle);  // twice is harmless
  return info.Env().Undefined();
}

Napi::Value eventIsLive(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), environmentOf(info).events.isLive(numberAt(info, 0)));
}

Napi::Value recordEvent(const Napi::CallbackInfo& info) {
  eventAt(info, 0)->record(streamAt(info, 1));
  return info.Env().Undefined();
}

// What is put on the stream from here on waits for the event.
Napi::Value waitEvent(const Napi::CallbackInfo& info) {
  eventAt(info, 0)->block(streamAt(info, 1));
  return info.Env().Undefined();
}

Napi::Value queryEvent(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), eventAt(info, 0)->query()); }

Napi::Value synchronizeEvent(const Napi::CallbackInfo& info) {
  eventAt(info, 0)->synchronize();
  return info.Env().Undefined();
}

Napi::Value synchronizeEventAsync(const Napi::CallbackInfo& info) {
  const auto event = eventAt(info, 0);
  return (new PromisedWait(info, "synchronizeEventAsync", [event] { event->synchronize(); }))->start();
}

Napi::Value elapsedTime(const Napi::CallbackInfo& info) {
  const auto start = eventAt(info, 0), end = eventAt(info, 1);
  for (const auto& event : {start, end}) {
    if (event->flag() != c10::EventFlag::BACKEND_DEFAULT) throw ValueError("expected events made with timing, received one without");
    if (!event->was_marked_for_recording()) throw ValueError("expected events that were recorded, received one that was not");
    if (!event->query()) throw ValueError("expected events that have passed, received one that has not: synchronize first");
  }
  return Napi::Number::New(info.Env(), start->elapsedTime(*end));
}

}  // namespace

void initStreams(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"cudaNewStream", cudaNewStream>(env, exports, environment);
  exportFunction<"cudaCurrentStream", cudaCurrentStream>(env, exports, environment);
  exportFunction<"cudaDefaultStream", cudaDefaultStream>(env, exports, environment);
  exportFunction<"cudaSetStream", cudaSetStream>(env, exports, environment);
  exportFunction<"streamDevice", streamDevice>(env, exports, environment);
  exportFunction<"queryStream", queryStream>(env, exports, environment);
  exportFunction<"synchronizeStream", synchronizeStream>(env, exports, environment);
  exportFunction<"synchronizeStreamAsync", synchronizeStreamAsync>(env, exports, environment);
  exportFunction<"makeEvent", makeEvent>(env, exports, environment);
  exportFunction<"disposeEvent", disposeEvent>(env, exports, environment);
  exportFunction<"eventIsLive", eventIsLive>(env, exports, environment);
  exportFunction<"recordEvent", recordEvent>(env, exports, environment);
  exportFunction<"waitEvent", waitEvent>(env, exports, environment);
  exportFunction<"queryEvent", queryEvent>(env, exports, environment);
  exportFunction<"synchronizeEvent", synchronizeEvent>(env, exports, environment);
  exportFunction<"synchronizeEventAsync", synchronizeEventAsync>(env, exports, environment);
  exportFunction<"elapsedTime", elapsedTime>(env, exports, environment);
}

}  // namespace gmml

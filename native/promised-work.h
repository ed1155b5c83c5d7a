#pragma once

#include "environment.h"
#include "errors.h"

#include <exception>
#include <functional>
#include <utility>

namespace gmml {

// A promise that is settled by work on a libuv worker. A failure rejects it with the error that the same work would throw at once.
class PromisedWork : public Napi::AsyncWorker {
 public:
  // The object frees itself when the work is done.
  Napi::Promise start() {
    const auto promise = deferred_.Promise();
    Queue();
    return promise;
  }

 protected:
  // `name` is the function's, for errors.
  PromisedWork(const Napi::CallbackInfo& info, const char* name)
      : AsyncWorker(info.Env(), name), environment_(environmentOf(info)), deferred_(info.Env()), name_(name) {}

  // On the worker: no JavaScript may be called.
  virtual void work() = 0;
  virtual Napi::Value result() { return Env().Undefined(); }
  // What the work was done on, for errors.
  virtual std::string arguments() const { return ""; }

 private:
  void Execute() final {
    try {
      work();
    } catch (...) {
      error_ = std::current_exception();
      SetError("failed");
    }
  }
  void OnOK() final {
    settle([&] { deferred_.Resolve(result()); });
  }
  void OnError(const Napi::Error&) final {
    settle([&] {
      try {
        std::rethrow_exception(error_);
      } catch (const std::exception& error) {
        throwTorchError(Env(), environment_, name_, error, arguments());
      } catch (...) {
        throwTorchError(Env(), environment_, name_, std::runtime_error("failed for a reason that is not known"), arguments());
      }
      deferred_.Reject(Env().GetAndClearPendingException().Value());
    });
  }

  // A JavaScript thread that is being ended still hears of its work, and refuses every value: nobody waits for one.
  template <typename Settle>
  void settle(Settle settle) {
    try {
      settle();
    } catch (const Napi::Error&) {
    }
  }

  Environment& environment_;
  Napi::Promise::Deferred deferred_;
  const char* name_;
  std::exception_ptr error_;
};

// Waits for a device, and gives nothing.
class PromisedWait : public PromisedWork {
 public:
  PromisedWait(const Napi::CallbackInfo& info, const char* name, std::function<void()> wait)
      : PromisedWork(info, name), wait_(std::move(wait)) {}

 private:
  void work() override { wait_(); }

  std::function<void()> wait_;
};

}  // namespace gmml

// A second SIGINT or SIGTERM ends the process, also where a long operator keeps the event loop from hearing of it.
#include "arguments.h"
#include "exports.h"

#include <csignal>
#include <ctime>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <mutex>

namespace gmml {

namespace {

struct Watched {
  int signal;
  struct sigaction before;
};
Watched watched[] = {{SIGINT, {}}, {SIGTERM, {}}};

// What a handler reads must be there whole: written before the first one is installed, and never again.
int exitCode = 0;
double sameWithin = 0;
char lastWords[256];
size_t lastWordsSize = 0;

// Milliseconds; 0: none came yet.
std::atomic<double> first{0};
static_assert(std::atomic<double>::is_always_lock_free);

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

// Calls only what may be called while any other code is interrupted.
void onSignal(int signal, siginfo_t* info, void* context) {
  double none = 0;
  const bool isFirst = first.compare_exchange_strong(none, now());
  if (!isFirst && now() - none > sameWithin) {
    if (write(STDERR_FILENO, lastWords, lastWordsSize) < 0) _exit(exitCode);
    _exit(exitCode);
  }
  for (const auto& [number, before] : watched) {
    if (number != signal) continue;
    // The event loop's.
    if (before.sa_flags & SA_SIGINFO) before.sa_sigaction(signal, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) before.sa_handler(signal);
  }
}

// exitAtSecondSignal(code, milliseconds, words): a signal that comes so soon after the first counts as the same one. A process ends in one way:
// later calls change nothing.
Napi::Value exitAtSecondSignal(const Napi::CallbackInfo& info) {
  const double code = numberAt(info, 0), milliseconds = numberAt(info, 1);
  const auto words = stringAt(info, 2);
  if (!(code >= 0 && code <= 255) || code != std::floor(code)) refuseAt(info, 0, "an exit code of 0 to 255");
  if (!(milliseconds >= 0)) refuseAt(info, 1, "milliseconds, 0 or more");
  if (words.size() > sizeof lastWords) refuseAt(info, 2, "at most 256 bytes");
  static std::once_flag once;
  std::call_once(once, [&] {
    exitCode = static_cast<int>(code);
    sameWithin = milliseconds;
    lastWordsSize = words.copy(lastWords, sizeof lastWords);
    for (auto& [number, before] : watched) {
      sigaction(number, nullptr, &before);
      struct sigaction action = before;
      action.sa_sigaction = onSignal;
      action.sa_flags |= SA_SIGINFO;
      sigaction(number, &action, nullptr);
    }
  });
  return info.Env().Undefined();
}

}  // namespace

void initSignals(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"exitAtSecondSignal", exitAtSecondSignal>(env, exports, environment);
}

}  // namespace gmml

#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>
#include <c10/core/SymInt.h>
#include <c10/util/SmallVector.h>
#include <node_api.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace gmml {

struct Environment;

// A JavaScript value that does not fit its place. The message says what was expected and what came.
struct ValueError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

enum class Kind : uint8_t {
  Tensor, Storage, Generator, Stream, Scalar, Int, Float, Bool, String, ScalarType, Layout, MemoryFormat, Device,
  TensorList, OptionalTensorList, IntList, FloatList, BoolList, ScalarList
};

// How one argument of an operator is read.
struct ArgumentPlan {
  std::string name;
  std::string type;        // the schema's, as `SymInt[]`, `Tensor?`
  Kind kind;
  bool optional;           // null is legal
  int fixedSize;           // of a list: a single value stands for that many; 0 if the size is free
  std::optional<c10::IValue> fallback;  // the schema's default
};

// Throws ValueError, naming the argument, if its type has no counterpart in JavaScript.
ArgumentPlan planArgument(const c10::Argument& argument);

// Each throws ValueError or HandleError, naming the argument. What they give owns what it holds: reading the next argument may run
// JavaScript (getters), and that may free any tensor.
c10::IValue toIValue(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value);
at::Tensor toTensor(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value);
c10::SmallVector<at::Tensor, 4> toTensors(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value);
c10::SmallVector<c10::SymInt, 6> toSizes(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value);

// How one result is given to JavaScript.
struct ResultPlan {
  int alias;   // index of the argument that the result is (in-place and out= operators), or -1 for a new value
  bool dtype;  // given as an int, meant as a dtype
};

napi_value fromIValue(napi_env env, Environment& environment, c10::IValue&& value);
napi_value fromTensor(napi_env env, Environment& environment, at::Tensor&& tensor);

napi_value fromInt(napi_env env, int64_t value);
napi_value fromScalar(napi_env env, const at::Scalar& value);
napi_value fromString(napi_env env, const std::string& value);

// What was received, for messages: "string 'abc'", "number 1.5", "undefined".
std::string describeValue(napi_env env, napi_value value);

const char* dtypeName(at::ScalarType dtype);
const char* layoutName(at::Layout layout);
at::ScalarType dtypeFromName(const std::string& name);

}  // namespace gmml

#include "operators.h"

#include "arguments.h"
#include "direct.h"
#include "errors.h"
#include "exports.h"

#include <ATen/DynamicLibrary.h>
#include <torch/version.h>

#include <array>

namespace gmml {

namespace {

// Napi's arguments beyond the buffer that is given are lost: more than this many are read in a second step.
constexpr size_t kUsualArguments = 12;

// Whether fromIValue can give such a result.
bool hasCounterpart(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::OptionalType: return hasCounterpart(*type.castRaw<c10::OptionalType>()->getElementType());
    case c10::TypeKind::ListType: return hasCounterpart(*type.castRaw<c10::ListType>()->getElementType());
    case c10::TypeKind::TensorType:
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType:
    case c10::TypeKind::NumberType:
    case c10::TypeKind::StringType:
    case c10::TypeKind::DeviceObjType:
    case c10::TypeKind::ScalarTypeType:
    case c10::TypeKind::QSchemeType: return true;
    default: return false;
  }
}

std::vector<ResultPlan> planResults(const c10::FunctionSchema& schema) {
  std::vector<ResultPlan> results;
  for (const auto& result : schema.returns()) {
    if (!hasCounterpart(*result.real_type())) {
      throw ValueError("a result is of type " + result.real_type()->str() + ", which cannot be given to JavaScript");
    }
    ResultPlan plan{-1, result.real_type()->kind() == c10::TypeKind::ScalarTypeType};
    if (result.alias_info() && result.alias_info()->isWrite()) {
      for (size_t i = 0; i < schema.arguments().size(); ++i) {
        const auto* argument = schema.arguments()[i].alias_info();
        if (argument && argument->beforeSets() == result.alias_info()->beforeSets()) plan.alias = static_cast<int>(i);
      }
    }
    results.push_back(plan);
  }
  return results;
}

Napi::Value describeResults(Napi::Env env, const c10::FunctionSchema& schema, const std::vector<ResultPlan>& plans) {
  auto results = Napi::Array::New(env, plans.size());
  for (uint32_t i = 0; i < plans.size(); ++i) {
    if (plans[i].alias >= 0) {
      results.Set(i, Napi::Number::New(env, plans[i].alias));
      continue;
    }
    auto type = schema.returns()[i].type();
    if (type->kind() == c10::TypeKind::OptionalType) type = type->castRaw<c10::OptionalType>()->getElementType();
    const bool list = type->kind() == c10::TypeKind::ListType;
    if (list) type = type->castRaw<c10::ListType>()->getElementType();
    const bool tensor = type->kind() == c10::TypeKind::TensorType;
    results.Set(i, Napi::String::New(env, tensor ? (list ? "tensors" : "tensor") : "value"));
  }
  return results;
}

std::string nameOf(const std::string& name, const std::string& overload) { return overload.empty() ? name : name + "." + overload; }

// Left-out arguments at the end take their defaults without a question to JavaScript.
void pushArguments(const Arguments& arguments, torch::jit::Stack& stack) {
  const auto& plans = arguments.op.arguments;
  napi_value undefined;
  napi_get_undefined(arguments.env, &undefined);
  for (size_t i = 0; i < plans.size(); ++i) {
    if (i >= arguments.count && plans[i].fallback) {
      stack.push_back(*plans[i].fallback);
    } else {
      stack.push_back(toIValue(arguments.env, arguments.environment, plans[i], i < arguments.count ? arguments.values[i] : undefined));
    }
  }
}

napi_value fromResult(napi_env env, Environment& environment, const ResultPlan& plan, c10::IValue&& value) {
  // A result that is an argument needs no second handle: JavaScript has the object.
  if (plan.alias >= 0) return nullptr;
  if (plan.dtype) return fromString(env, dtypeName(static_cast<at::ScalarType>(value.toInt())));
  return fromIValue(env, environment, std::move(value));
}

napi_value popResults(napi_env env, Environment& environment, const CompiledOperator& op, torch::jit::Stack& stack) {
  const auto& plans = op.results;
  if (plans.size() == 1) return fromResult(env, environment, plans[0], std::move(stack.back()));
  if (plans.empty()) return nullptr;
  const size_t first = stack.size() - plans.size();
  napi_value array;
  napi_create_array_with_length(env, plans.size(), &array);
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto result = fromResult(env, environment, plans[i], std::move(stack[first + i]));
    if (result) napi_set_element(env, array, static_cast<uint32_t>(i), result);
  }
  return array;
}

napi_value callBoxed(const Arguments& arguments) {
  auto& environment = arguments.environment;
  // Taken, not shared: reading an argument may run JavaScript (a getter), which may call an operator.
  auto stack = std::exchange(environment.stack, {});
  pushArguments(arguments, stack);
  arguments.op.handle.callBoxed(stack);
  const auto result = popResults(arguments.env, environment, arguments.op, stack);
  stack.clear();  // no reference may outlive the call
  environment.stack = std::move(stack);
  return result;
}

// call(operator, ...arguments), the hot path: raw Node-API, no look-up by name, no allocation but what the operator makes.
napi_value call(napi_env env, napi_callback_info info) {
  std::array<napi_value, kUsualArguments + 1> usual;
  std::vector<napi_value> all;
  napi_value* values = usual.data();
  size_t count = usual.size();
  void* data;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  auto& environment = *static_cast<Environment*>(data);
  if (count > usual.size()) {
    all.resize(count);
    values = all.data();
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }
  uint32_t id = 0;
  if (count == 0 || napi_get_value_uint32(env, values[0], &id) != napi_ok || id >= environment.operators.size()) {
    throwTorchError(env, environment, "", ValueError("no operator has this number"));
    return nullptr;
  }
  const Arguments arguments{env, environment, *environment.operators[id], count - 1, values + 1};
  const auto& op = arguments.op;
  napi_value result = nullptr;
  try {
    if (arguments.count > op.arguments.size()) {
      throw ValueError("expected at most " + std::to_string(op.arguments.size()) + " arguments, received " +
                       std::to_string(arguments.count));
    }
    result = op.direct ? fromTensor(env, environment, (*op.direct)(arguments)) : callBoxed(arguments);
  } catch (const std::exception& error) {
    const auto nameOfArgument = [&](size_t i) { return op.arguments[i].name; };
    const size_t known = std::min(arguments.count, op.arguments.size());
    const auto tensors = describeTensors(env, environment, known, arguments.values, nameOfArgument);
    throwTorchError(env, environment, op.name, error, tensors);
  }
  reportMemory(env, environment);
  return result;
}

std::unique_ptr<CompiledOperator> compile(const std::string& name, const std::string& overload) {
  const auto fullName = nameOf(name, overload);
  const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!handle) throw ValueError("libtorch " TORCH_VERSION " has no such operator");
  auto op = std::make_unique<CompiledOperator>(CompiledOperator{*handle, fullName, {}, planResults(handle->schema()), nullptr});
  for (const auto& argument : handle->schema().arguments()) op->arguments.push_back(planArgument(argument));
  op->direct = directCallOf(*op);
  return op;
}

Napi::Value findOperator(const Napi::CallbackInfo& info) {
  auto& environment = environmentOf(info);
  const auto name = stringAt(info, 0), overload = stringAt(info, 1);
  std::unique_ptr<CompiledOperator> op;
  try {
    op = compile(name, overload);
  } catch (const std::exception& error) {
    throwTorchError(info.Env(), environment, nameOf(name, overload), error);
    return {};
  }
  auto result = Napi::Object::New(info.Env());
  result.Set("id", static_cast<double>(environment.operators.size()));
  result.Set("schema", toString(op->handle.schema()));
  result.Set("returns", describeResults(info.Env(), op->handle.schema(), op->results));
  environment.operators.push_back(std::move(op));
  return result;
}

Napi::Value listOperators(const Napi::CallbackInfo& info) {
  const auto names = c10::Dispatcher::singleton().getAllOpNames();
  auto result = Napi::Array::New(info.Env());
  uint32_t count = 0;
  for (const auto& name : names) {
    if (const auto handle = c10::Dispatcher::singleton().findSchema(name)) result.Set(count++, toString(handle->schema()));
  }
  return result;
}

// Its static initialisers register operators. Never unloaded: the dispatcher keeps pointers into it.
Napi::Value loadLibrary(const Napi::CallbackInfo& info) {
  const at::DynamicLibrary library(stringAt(info, 0).c_str(), nullptr, true);
  return info.Env().Undefined();
}

}  // namespace

void initOperators(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"findOperator", findOperator>(env, exports, environment);
  exportFunction<"loadLibrary", loadLibrary>(env, exports, environment);
  exportFunction<"listOperators", listOperators>(env, exports, environment);
  napi_value function;
  napi_create_function(env, "call", NAPI_AUTO_LENGTH, call, &environment, &function);
  exports.Set("call", Napi::Value(env, function));
}

}  // namespace gmml

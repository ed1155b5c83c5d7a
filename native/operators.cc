#include "operators.h"

#include "exports.h"
#include "errors.h"

#include <array>

namespace gmml {

namespace {

constexpr size_t kMaxArguments = 40;  // ATen's longest schema has 31

std::vector<int> aliasesOf(const c10::FunctionSchema& schema) {
  std::vector<int> aliases;
  for (const auto& result : schema.returns()) {
    int alias = -1;
    if (result.alias_info() && result.alias_info()->isWrite()) {
      for (size_t i = 0; i < schema.arguments().size(); ++i) {
        const auto* argument = schema.arguments()[i].alias_info();
        if (argument && argument->beforeSets() == result.alias_info()->beforeSets()) alias = static_cast<int>(i);
      }
    }
    aliases.push_back(alias);
  }
  return aliases;
}

Napi::Value describeResults(Napi::Env env, const c10::FunctionSchema& schema, const std::vector<int>& aliases) {
  auto results = Napi::Array::New(env, aliases.size());
  for (uint32_t i = 0; i < aliases.size(); ++i) {
    if (aliases[i] >= 0) {
      results.Set(i, Napi::Number::New(env, aliases[i]));
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

// For messages only: every tensor among the arguments with dtype, shape and device.
std::string describeArguments(napi_env env, Environment& environment, const CompiledOperator& op, size_t count, const napi_value* values) {
  std::string text;
  const auto add = [&](const std::string& name, napi_value value) {
    double handle;
    if (napi_get_value_double(env, value, &handle) != napi_ok || !environment.tensors.isLive(handle)) return;
    text += (text.empty() ? "" : ", ") + name + " " + describeTensor(environment.tensors.get(handle));
  };
  for (size_t i = 0; i < op.arguments.size() && i < count; ++i) {
    const auto& plan = op.arguments[i];
    if (plan.kind == Kind::Tensor) add(plan.name, values[i]);
    if (plan.kind != Kind::TensorList && plan.kind != Kind::OptionalTensorList) continue;
    uint32_t length = 0;
    napi_get_array_length(env, values[i], &length);
    for (uint32_t k = 0; k < length && k < 4; ++k) {
      napi_value element;
      if (napi_get_element(env, values[i], k, &element) == napi_ok) add(plan.name + "[" + std::to_string(k) + "]", element);
    }
    if (length > 4) text += ", ... (" + std::to_string(length) + " in " + plan.name + ")";
  }
  return text;
}

void pushArguments(napi_env env, Environment& environment, const CompiledOperator& op, size_t count, const napi_value* values) {
  napi_value undefined;
  napi_get_undefined(env, &undefined);
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    const auto& plan = op.arguments[i];
    try {
      environment.stack.push_back(toIValue(env, environment, plan, i < count ? values[i] : undefined));
    } catch (const HandleError& error) {
      throw HandleError("argument '" + plan.name + "': " + error.what());
    } catch (const ValueError& error) {
      throw ValueError("argument '" + plan.name + "': " + error.what());
    }
  }
}

napi_value popResults(napi_env env, Environment& environment, const CompiledOperator& op) {
  auto& stack = environment.stack;
  const auto& aliases = op.aliases;
  napi_value result;
  napi_get_undefined(env, &result);
  if (aliases.size() == 1) return aliases[0] >= 0 ? result : fromIValue(env, environment, std::move(stack.back()));
  if (aliases.empty()) return result;
  const size_t first = stack.size() - aliases.size();
  napi_create_array_with_length(env, aliases.size(), &result);
  for (size_t i = 0; i < aliases.size(); ++i) {
    // A result that is an argument needs no second handle: JavaScript has the object.
    if (aliases[i] < 0) {
      napi_set_element(env, result, static_cast<uint32_t>(i), fromIValue(env, environment, std::move(stack[first + i])));
    }
  }
  return result;
}

// call(operator, ...arguments), the hot path: raw Node-API, no look-up by name, no allocation but what the operator makes.
napi_value call(napi_env env, napi_callback_info info) {
  std::array<napi_value, kMaxArguments + 1> values;
  size_t count = values.size();
  void* data;
  napi_get_cb_info(env, info, &count, values.data(), nullptr, &data);
  auto& environment = *static_cast<Environment*>(data);
  uint32_t id = 0;
  if (napi_get_value_uint32(env, values[0], &id) != napi_ok || id >= environment.operators.size()) {
    throwTorchError(env, environment, "", ValueError("no operator has this number"));
    return nullptr;
  }
  const auto& op = *environment.operators[id];
  napi_value result = nullptr;
  try {
    if (count - 1 > op.arguments.size()) {
      throw ValueError("expected at most " + std::to_string(op.arguments.size()) + " arguments, received " + std::to_string(count - 1));
    }
    environment.stack.clear();
    pushArguments(env, environment, op, count - 1, values.data() + 1);
    op.handle.callBoxed(environment.stack);
    result = popResults(env, environment, op);
  } catch (const std::exception& error) {
    throwTorchError(env, environment, op.name, error,
                    describeArguments(env, environment, op, std::min(count - 1, kMaxArguments), values.data() + 1));
  }
  environment.stack.clear();  // no reference may outlive the call
  reportMemory(env, environment);
  return result;
}

Napi::Value findOperator(const Napi::CallbackInfo& info) {
  auto& environment = environmentOf(info);
  const std::string name = info[0].As<Napi::String>(), overload = info[1].As<Napi::String>();
  const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!handle) throw ValueError(nameOf(name, overload) + ": this libtorch has no such operator");
  const auto& schema = handle->schema();
  auto op = std::make_unique<CompiledOperator>(CompiledOperator{*handle, nameOf(name, overload), {}, aliasesOf(schema)});
  for (const auto& argument : schema.arguments()) {
    try {
      op->arguments.push_back(planArgument(argument));
    } catch (const ValueError& error) {
      throw ValueError(op->name + ": " + error.what());
    }
  }
  if (op->arguments.size() > kMaxArguments) throw ValueError(op->name + ": more arguments than a call can carry");
  auto result = Napi::Object::New(info.Env());
  result.Set("id", static_cast<double>(environment.operators.size()));
  result.Set("schema", toString(schema));
  result.Set("returns", describeResults(info.Env(), schema, op->aliases));
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

}  // namespace

void initOperators(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<findOperator>(env, exports, environment, "findOperator");
  exportFunction<listOperators>(env, exports, environment, "listOperators");
  napi_value function;
  napi_create_function(env, "call", NAPI_AUTO_LENGTH, call, &environment, &function);
  exports.Set("call", Napi::Value(env, function));
}

}  // namespace gmml

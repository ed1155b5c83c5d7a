#include "direct.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/IListRef.h>
#include <ATen/core/IListRef_inl.h>
#include <ATen/ops/add_ops.h>
#include <ATen/ops/div_ops.h>
#include <ATen/ops/mul_ops.h>
#include <ATen/ops/sub_ops.h>

#include <tuple>
#include <utility>

namespace gmml {

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using OptionalType = std::optional<at::ScalarType>;

// What is held during the call for a parameter of type T, and how it is read.
template <typename T>
struct Read {
  using Held = std::remove_cvref_t<T>;
  static Held from(const Arguments& a, const ArgumentPlan& plan, napi_value value) {
    return toIValue(a.env, a.environment, plan, value).to<Held>();
  }
};

template <>
struct Read<const Tensor&> {
  using Held = Tensor;
  static Held from(const Arguments& a, const ArgumentPlan& plan, napi_value value) { return toTensor(a.env, a.environment, plan, value); }
};

template <>
struct Read<c10::SymIntArrayRef> {
  using Held = c10::SmallVector<c10::SymInt, 6>;
  static Held from(const Arguments& a, const ArgumentPlan& plan, napi_value value) { return toSizes(a.env, a.environment, plan, value); }
};

template <>
struct Read<const at::ITensorListRef&> {
  using Held = c10::SmallVector<Tensor, 4>;
  static Held from(const Arguments& a, const ArgumentPlan& plan, napi_value value) { return toTensors(a.env, a.environment, plan, value); }
};

template <typename T>
typename Read<T>::Held argument(const Arguments& arguments, size_t index) {
  const auto& plan = arguments.op.arguments[index];
  if (index < arguments.count) return Read<T>::from(arguments, plan, arguments.values[index]);
  // Left out at the end: the default without a question to JavaScript.
  if constexpr (std::is_same_v<typename Read<T>::Held, std::remove_cvref_t<T>>) {
    if (plan.fallback) return plan.fallback->template to<std::remove_cvref_t<T>>();
  }
  napi_value undefined;
  napi_get_undefined(arguments.env, &undefined);
  return Read<T>::from(arguments, plan, undefined);
}

template <typename Signature>
class Direct;

template <typename... Parameters>
class Direct<Tensor(Parameters...)> final : public DirectCall {
 public:
  explicit Direct(const c10::OperatorHandle& handle) : handle_(handle.typed<Tensor(Parameters...)>()) {}
  Tensor operator()(const Arguments& arguments) const override { return call(arguments, std::index_sequence_for<Parameters...>()); }

 private:
  template <size_t... index>
  Tensor call(const Arguments& arguments, std::index_sequence<index...>) const {
    // Braces: read from left to right.
    std::tuple<typename Read<Parameters>::Held...> held{argument<Parameters>(arguments, index)...};
    return handle_.call(std::get<index>(held)...);
  }

  c10::TypedOperatorHandle<Tensor(Parameters...)> handle_;
};

template <typename Signature>
std::unique_ptr<const DirectCall> make(const c10::OperatorHandle& handle) {
  try {
    return std::make_unique<Direct<Signature>>(handle);
  } catch (const c10::Error&) {
    return nullptr;  // the same schema types with another C++ signature: TensorList and ITensorListRef are both Tensor[]
  }
}

struct Frequent {
  const char* types;
  std::unique_ptr<const DirectCall> (*make)(const c10::OperatorHandle&);
};

constexpr Frequent frequent[] = {
    {"Tensor", make<Tensor(const Tensor&)>},
    {"Tensor, Tensor", make<Tensor(const Tensor&, const Tensor&)>},
    {"Tensor, Tensor, Scalar", make<Tensor(const Tensor&, const Tensor&, const at::Scalar&)>},
    {"Tensor, Tensor, Tensor?", make<Tensor(const Tensor&, const Tensor&, const OptionalTensor&)>},
    {"Tensor, int, int", make<Tensor(const Tensor&, int64_t, int64_t)>},
    {"Tensor, SymInt[]", make<Tensor(const Tensor&, c10::SymIntArrayRef)>},
    {"Tensor, ScalarType?", make<Tensor(const Tensor&, OptionalType)>},
    {"Tensor, int, ScalarType?", make<Tensor(const Tensor&, int64_t, OptionalType)>},
    {"Tensor[], int", make<Tensor(const at::ITensorListRef&, int64_t)>},
    {"Tensor, SymInt[], Tensor?, Tensor?, float, bool",
     make<Tensor(const Tensor&, c10::SymIntArrayRef, const OptionalTensor&, const OptionalTensor&, double, bool)>}};

// A number beside a tensor, as Python does it: a 0-dim tensor that does not count for the result's dtype. A float32 or float64 tensor gets
// it in its own dtype, which is what it would be converted to at the cost of another operator.
Tensor numberTensor(const at::Scalar& number, at::ScalarType like) {
  const bool real = number.isFloatingPoint() || number.isIntegral(false);  // `x - true` is refused, whatever x is
  Tensor tensor = like == at::kFloat && real    ? at::detail::scalar_tensor_static(static_cast<float>(number.toDouble()), like, at::kCPU)
                  : like == at::kDouble && real ? at::detail::scalar_tensor_static(number.toDouble(), like, at::kCPU)
                                                : at::detail::scalar_tensor_static(number, number.type(), at::kCPU);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

// `tensor * 2` by way of mul.Tensor: mul.Scalar would make the number a tensor inside, with a second trip through the dispatcher.
template <typename Call>
class WithNumber final : public DirectCall {
 public:
  explicit WithNumber(Call call) : call_(call) {}
  Tensor operator()(const Arguments& arguments) const override {
    const auto self = argument<const Tensor&>(arguments, 0);
    const auto other = numberTensor(argument<at::Scalar>(arguments, 1), self.scalar_type());
    return call_(self, other, arguments);
  }

 private:
  Call call_;
};

template <typename Call>
std::unique_ptr<const DirectCall> withNumber(Call call) {
  return std::make_unique<WithNumber<Call>>(call);
}

}  // namespace

std::unique_ptr<const DirectCall> directCallOf(const CompiledOperator& op) {
  if (op.name == "aten::mul.Scalar") {
    return withNumber([](const Tensor& self, const Tensor& other, const Arguments&) { return at::_ops::mul_Tensor::call(self, other); });
  }
  if (op.name == "aten::div.Scalar") {
    return withNumber([](const Tensor& self, const Tensor& other, const Arguments&) { return at::_ops::div_Tensor::call(self, other); });
  }
  if (op.name == "aten::add.Scalar") {
    return withNumber([](const Tensor& self, const Tensor& other, const Arguments& arguments) {
      return at::_ops::add_Tensor::call(self, other, argument<at::Scalar>(arguments, 2));
    });
  }
  if (op.name == "aten::sub.Scalar") {
    return withNumber([](const Tensor& self, const Tensor& other, const Arguments& arguments) {
      return at::_ops::sub_Tensor::call(self, other, argument<at::Scalar>(arguments, 2));
    });
  }
  const auto& returns = op.handle.schema().returns();
  if (op.results.size() != 1 || op.results[0].alias >= 0 || returns[0].type()->kind() != c10::TypeKind::TensorType) return nullptr;
  std::string types;
  for (const auto& argument : op.arguments) {
    const bool required = argument.kind == Kind::Tensor || argument.kind == Kind::IntList || argument.kind == Kind::TensorList;
    if (required && !argument.optional && argument.fallback) return nullptr;  // no such default is read here
    types += (types.empty() ? "" : ", ") + argument.type;
  }
  for (const auto& candidate : frequent) {
    if (types == candidate.types) return candidate.make(op.handle);
  }
  return nullptr;
}

}  // namespace gmml

#include "values.h"

#include "environment.h"

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>
#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>

#include <array>
#include <cmath>
#include <utility>

namespace gmml {

namespace {

constexpr double kMaxExactInteger = 9007199254740992.0;  // 2^53

template <typename T>
using Named = std::pair<const char*, T>;

constexpr std::array dtypes{
    Named<at::ScalarType>{"float32", at::kFloat}, Named<at::ScalarType>{"float64", at::kDouble},
    Named<at::ScalarType>{"float16", at::kHalf}, Named<at::ScalarType>{"bfloat16", at::kBFloat16},
    Named<at::ScalarType>{"int64", at::kLong}, Named<at::ScalarType>{"int32", at::kInt},
    Named<at::ScalarType>{"int16", at::kShort}, Named<at::ScalarType>{"int8", at::kChar},
    Named<at::ScalarType>{"uint8", at::kByte}, Named<at::ScalarType>{"bool", at::kBool},
    Named<at::ScalarType>{"uint16", at::kUInt16}, Named<at::ScalarType>{"uint32", at::kUInt32},
    Named<at::ScalarType>{"uint64", at::kUInt64}, Named<at::ScalarType>{"complex32", at::kComplexHalf},
    Named<at::ScalarType>{"complex64", at::kComplexFloat}, Named<at::ScalarType>{"complex128", at::kComplexDouble},
    Named<at::ScalarType>{"float8_e4m3fn", at::kFloat8_e4m3fn}, Named<at::ScalarType>{"float8_e5m2", at::kFloat8_e5m2},
    Named<at::ScalarType>{"float8_e4m3fnuz", at::kFloat8_e4m3fnuz},
    Named<at::ScalarType>{"float8_e5m2fnuz", at::kFloat8_e5m2fnuz}, Named<at::ScalarType>{"float8_e8m0fnu", at::kFloat8_e8m0fnu},
    Named<at::ScalarType>{"float4_e2m1fn_x2", at::kFloat4_e2m1fn_x2}, Named<at::ScalarType>{"qint8", at::kQInt8},
    Named<at::ScalarType>{"quint8", at::kQUInt8}, Named<at::ScalarType>{"qint32", at::kQInt32}};

constexpr std::array layouts{
    Named<at::Layout>{"strided", at::kStrided}, Named<at::Layout>{"sparse_coo", at::kSparse},
    Named<at::Layout>{"sparse_csr", at::kSparseCsr}, Named<at::Layout>{"sparse_csc", at::kSparseCsc},
    Named<at::Layout>{"sparse_bsr", at::kSparseBsr}, Named<at::Layout>{"sparse_bsc", at::kSparseBsc},
    Named<at::Layout>{"jagged", at::kJagged}, Named<at::Layout>{"mkldnn", at::kMkldnn}};

constexpr std::array memoryFormats{
    Named<at::MemoryFormat>{"contiguous", at::MemoryFormat::Contiguous},
    Named<at::MemoryFormat>{"preserve", at::MemoryFormat::Preserve},
    Named<at::MemoryFormat>{"channels_last", at::MemoryFormat::ChannelsLast},
    Named<at::MemoryFormat>{"channels_last_3d", at::MemoryFormat::ChannelsLast3d}};

template <typename T, size_t N>
T fromName(const std::array<Named<T>, N>& table, const char* noun, const std::string& name) {
  for (const auto& [known, value] : table) {
    if (name == known) return value;
  }
  std::string legal;
  for (const auto& entry : table) legal += (legal.empty() ? "" : ", ") + std::string(entry.first);
  throw ValueError(std::string("expected a ") + noun + " (" + legal + "), received '" + name + "'");
}

[[noreturn]] void refuse(napi_env env, const char* what, napi_value value) {
  throw ValueError(std::string("expected ") + what + ", received " + describeValue(env, value));
}

napi_valuetype typeOf(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, value, &type);
  return type;
}

double toNumber(napi_env env, napi_value value, const char* what) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) refuse(env, what, value);
  return number;
}

bool isExactInteger(double number) { return std::fabs(number) <= kMaxExactInteger && number == std::floor(number); }

int64_t toInt(napi_env env, napi_value value) {
  double number;
  if (napi_get_value_double(env, value, &number) == napi_ok) {
    if (isExactInteger(number)) return static_cast<int64_t>(number);
    refuse(env, "an integer", value);
  }
  int64_t integer;
  bool lossless;
  if (napi_get_value_bigint_int64(env, value, &integer, &lossless) != napi_ok || !lossless) refuse(env, "an integer", value);
  return integer;
}

bool toBool(napi_env env, napi_value value) {
  bool result;
  if (napi_get_value_bool(env, value, &result) != napi_ok) refuse(env, "a boolean", value);
  return result;
}

std::string toString(napi_env env, napi_value value, const char* what) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) refuse(env, what, value);
  std::string text(length, '\0');
  napi_get_value_string_utf8(env, value, text.data(), length + 1, &length);
  return text;
}

at::Scalar toScalar(napi_env env, napi_value value) {
  switch (typeOf(env, value)) {
    case napi_number: {
      double number;
      napi_get_value_double(env, value, &number);
      // JavaScript does not tell 2 from 2.0: whole numbers count as integers, so integer tensors stay integer. -0 has no integer.
      if (isExactInteger(number) && !(number == 0 && std::signbit(number))) return at::Scalar(static_cast<int64_t>(number));
      return at::Scalar(number);
    }
    case napi_bigint: {
      uint64_t number;
      bool lossless;
      // What only uint64 holds; all else is int64.
      if (napi_get_value_bigint_uint64(env, value, &number, &lossless) == napi_ok && lossless && number >> 63) return at::Scalar(number);
      return at::Scalar(toInt(env, value));
    }
    case napi_boolean: return at::Scalar(toBool(env, value));
    case napi_object: {
      napi_value re, im;
      double real, imaginary;
      if (napi_get_named_property(env, value, "re", &re) == napi_ok && napi_get_value_double(env, re, &real) == napi_ok &&
          napi_get_named_property(env, value, "im", &im) == napi_ok && napi_get_value_double(env, im, &imaginary) == napi_ok) {
        return at::Scalar(c10::complex<double>(real, imaginary));
      }
      [[fallthrough]];
    }
    default: refuse(env, "a number, bigint, boolean or { re, im }", value);
  }
}

Handle toHandle(napi_env env, napi_value value, const char* what) {
  const Handle handle = toNumber(env, value, what);
  if (!mayBeHandle(handle)) refuse(env, what, value);
  return handle;
}

// Visits the elements of a JavaScript array, or a single value as often as the schema's size of the list says.
template <typename Visit>
void eachElement(napi_env env, const ArgumentPlan& plan, napi_value value, const char* what, Visit visit) {
  bool isArray = false;
  napi_is_array(env, value, &isArray);
  if (!isArray) {
    if (plan.fixedSize == 0) refuse(env, what, value);
    for (int i = 0; i < plan.fixedSize; ++i) visit(value);
    return;
  }
  uint32_t length = 0;
  napi_get_array_length(env, value, &length);
  for (uint32_t i = 0; i < length; ++i) {
    napi_value element;
    if (napi_get_element(env, value, i, &element) != napi_ok) throw ValueError("an element cannot be read");  // its getter threw
    visit(element);
  }
}

template <typename Element, typename Read>
c10::List<Element> toList(napi_env env, const ArgumentPlan& plan, napi_value value, const char* what, Read read) {
  c10::List<Element> list;
  eachElement(env, plan, value, what, [&](napi_value element) { list.push_back(read(element)); });
  return list;
}

at::Tensor tensorOf(napi_env env, Environment& environment, napi_value value) {
  return environment.tensors.get(toHandle(env, value, "a Tensor"));
}

c10::IValue convert(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value) {
  const auto tensor = [&](napi_value element) { return tensorOf(env, environment, element); };
  switch (plan.kind) {
    case Kind::Tensor: return tensor(value);
    case Kind::Storage: return tensor(value).storage();  // a storage is named by a tensor that has it
    case Kind::Generator: return environment.generators.get(toHandle(env, value, "a Generator"));
    case Kind::Stream: return *environment.streams.get(toHandle(env, value, "a Stream"));
    case Kind::Scalar: return toScalar(env, value);
    case Kind::Int: return toInt(env, value);
    case Kind::Float: return toNumber(env, value, "a number");
    case Kind::Bool: return toBool(env, value);
    case Kind::String: return toString(env, value, "a string");
    case Kind::ScalarType: return static_cast<int64_t>(dtypeFromName(toString(env, value, "a dtype")));
    case Kind::Layout: return static_cast<int64_t>(fromName(layouts, "layout", toString(env, value, "a layout")));
    case Kind::MemoryFormat:
      return static_cast<int64_t>(fromName(memoryFormats, "memory format", toString(env, value, "a memory format")));
    case Kind::Device: return c10::Device(toString(env, value, "a device"));
    case Kind::TensorList: return toList<at::Tensor>(env, plan, value, "an array of Tensors", tensor);
    case Kind::OptionalTensorList:
      return toList<std::optional<at::Tensor>>(env, plan, value, "an array of Tensors", [&](napi_value element) {
        const auto type = typeOf(env, element);
        return type == napi_null || type == napi_undefined ? std::optional<at::Tensor>() : std::optional(tensor(element));
      });
    case Kind::IntList:
      return toList<int64_t>(env, plan, value, "an array of integers", [&](napi_value element) { return toInt(env, element); });
    case Kind::FloatList:
      return toList<double>(env, plan, value, "an array of numbers",
                            [&](napi_value element) { return toNumber(env, element, "a number"); });
    case Kind::BoolList:
      return toList<bool>(env, plan, value, "an array of booleans", [&](napi_value element) { return toBool(env, element); });
    case Kind::ScalarList:
      return toList<at::Scalar>(env, plan, value, "an array of numbers", [&](napi_value element) { return toScalar(env, element); });
  }
  throw ValueError("unknown kind");
}

std::optional<Kind> kindOfElement(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Kind::TensorList;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::IntList;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType: return Kind::FloatList;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType: return Kind::BoolList;
    case c10::TypeKind::NumberType: return Kind::ScalarList;
    case c10::TypeKind::OptionalType:
      if (type.castRaw<c10::OptionalType>()->getElementType()->kind() == c10::TypeKind::TensorType) return Kind::OptionalTensorList;
      return std::nullopt;
    default: return std::nullopt;
  }
}

std::optional<Kind> kindOf(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Kind::Tensor;
    case c10::TypeKind::StorageType: return Kind::Storage;
    case c10::TypeKind::GeneratorType: return Kind::Generator;
    case c10::TypeKind::StreamObjType: return Kind::Stream;
    case c10::TypeKind::NumberType: return Kind::Scalar;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::Int;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType: return Kind::Float;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType: return Kind::Bool;
    case c10::TypeKind::StringType: return Kind::String;
    case c10::TypeKind::ScalarTypeType: return Kind::ScalarType;
    case c10::TypeKind::LayoutType: return Kind::Layout;
    case c10::TypeKind::MemoryFormatType: return Kind::MemoryFormat;
    case c10::TypeKind::DeviceObjType: return Kind::Device;
    case c10::TypeKind::ListType: return kindOfElement(*type.castRaw<c10::ListType>()->getElementType());
    default: return std::nullopt;
  }
}

}  // namespace

ArgumentPlan planArgument(const c10::Argument& argument) {
  // real_type() keeps what type() erases: ScalarType, Layout and SymInt all look like int there.
  auto type = argument.real_type();
  const auto text = type->str();
  bool optional = false;
  if (type->kind() == c10::TypeKind::OptionalType) {
    type = type->castRaw<c10::OptionalType>()->getElementType();
    optional = true;
  }
  const auto kind = kindOf(*type);
  if (!kind) {
    throw ValueError("argument '" + argument.name() + "' is of type " + type->str() + ", which cannot be given from JavaScript");
  }
  ArgumentPlan plan{argument.name(), text, *kind, optional, argument.N().value_or(0), std::nullopt};
  if (argument.default_value()) plan.fallback = *argument.default_value();
  return plan;
}

namespace {

// Says which argument it was that could not be read.
template <typename Read>
auto named(const ArgumentPlan& plan, Read read) {
  try {
    return read();
  } catch (const HandleError& error) {
    throw HandleError("argument '" + plan.name + "': " + error.what());
  } catch (const ValueError& error) {
    throw ValueError("argument '" + plan.name + "': " + error.what());
  } catch (const c10::Error& error) {  // a device that libtorch cannot read
    throw ValueError("argument '" + plan.name + "': " + error.what_without_backtrace());
  }
}

}  // namespace

c10::IValue toIValue(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value) {
  const auto type = typeOf(env, value);
  if (type == napi_undefined && plan.fallback) return *plan.fallback;
  if ((type == napi_null || type == napi_undefined) && plan.optional) return c10::IValue();
  return named(plan, [&] { return convert(env, environment, plan, value); });
}

at::Tensor toTensor(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value) {
  return named(plan, [&] { return tensorOf(env, environment, value); });
}

c10::SmallVector<at::Tensor, 4> toTensors(napi_env env, Environment& environment, const ArgumentPlan& plan, napi_value value) {
  c10::SmallVector<at::Tensor, 4> tensors;
  named(plan, [&] {
    const auto push = [&](napi_value element) { tensors.push_back(tensorOf(env, environment, element)); };
    eachElement(env, plan, value, "an array of Tensors", push);
  });
  return tensors;
}

c10::SmallVector<c10::SymInt, 6> toSizes(napi_env env, Environment&, const ArgumentPlan& plan, napi_value value) {
  c10::SmallVector<c10::SymInt, 6> sizes;
  const auto push = [&](napi_value element) { sizes.emplace_back(toInt(env, element)); };
  named(plan, [&] { eachElement(env, plan, value, "an array of integers", push); });
  return sizes;
}

napi_value fromInt(napi_env env, int64_t value) {
  napi_value result;
  if (value >= -static_cast<int64_t>(kMaxExactInteger) && value <= static_cast<int64_t>(kMaxExactInteger)) {
    napi_create_double(env, static_cast<double>(value), &result);
  } else {
    napi_create_bigint_int64(env, value, &result);
  }
  return result;
}

napi_value fromString(napi_env env, const std::string& value) {
  napi_value result;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

napi_value fromScalar(napi_env env, const at::Scalar& value) {
  napi_value result;
  if (value.isBoolean()) {
    napi_get_boolean(env, value.toBool(), &result);
  } else if (value.isIntegral(false)) {
    // An unsigned value may lie beyond int64.
    if (value.type() == at::kUInt64) {
      const uint64_t number = value.toUInt64();
      if (number > static_cast<uint64_t>(kMaxExactInteger)) {
        napi_create_bigint_uint64(env, number, &result);
        return result;
      }
    }
    return fromInt(env, value.toLong());
  } else if (value.isComplex()) {
    const auto number = value.toComplexDouble();
    napi_value re, im;
    napi_create_double(env, number.real(), &re);
    napi_create_double(env, number.imag(), &im);
    napi_create_object(env, &result);
    napi_set_named_property(env, result, "re", re);
    napi_set_named_property(env, result, "im", im);
  } else {
    napi_create_double(env, value.toDouble(), &result);
  }
  return result;
}

napi_value fromTensor(napi_env env, Environment& environment, at::Tensor&& tensor) {
  napi_value result;
  // Operators return an undefined tensor where Python has None.
  if (tensor.defined()) {
    napi_create_double(env, environment.tensors.insert(std::move(tensor)), &result);
  } else {
    napi_get_null(env, &result);
  }
  return result;
}

napi_value fromIValue(napi_env env, Environment& environment, c10::IValue&& value) {
  if (value.isTensor()) return fromTensor(env, environment, std::move(value).toTensor());
  if (value.isNone()) return fromTensor(env, environment, at::Tensor());
  if (value.isInt()) return fromInt(env, value.toInt());
  if (value.isUnsigned()) return fromScalar(env, at::Scalar(value.toUInt()));  // beyond int64
  if (value.isSymInt()) return fromInt(env, value.toSymInt().guard_int(__FILE__, __LINE__));
  if (value.isScalar()) return fromScalar(env, value.toScalar());
  if (value.isString()) return fromString(env, value.toStringRef());
  if (value.isDevice()) return fromString(env, value.toDevice().str());
  if (value.isList()) {
    const auto list = value.toList();
    napi_value array;
    napi_create_array_with_length(env, list.size(), &array);
    for (uint32_t i = 0; i < list.size(); ++i) napi_set_element(env, array, i, fromIValue(env, environment, c10::IValue(list.get(i))));
    return array;
  }
  throw ValueError("a result of type " + value.tagKind() + " cannot be given to JavaScript");
}

std::string describeValue(napi_env env, napi_value value) {
  napi_value text;
  const auto printed = [&] {
    std::string result = napi_coerce_to_string(env, value, &text) == napi_ok ? toString(env, text, "a string") : "";
    return result.size() > 60 ? result.substr(0, 57) + "..." : result;
  };
  switch (typeOf(env, value)) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "boolean " + printed();
    case napi_number: return "number " + printed();
    case napi_bigint: return "bigint " + printed() + "n";
    case napi_string: return "string '" + printed() + "'";
    case napi_function: return "a function";
    case napi_symbol: return "a symbol";
    default: {
      bool isArray = false;
      napi_is_array(env, value, &isArray);
      return isArray ? "an array" : "an object";
    }
  }
}

const char* dtypeName(at::ScalarType dtype) {
  for (const auto& [name, value] : dtypes) {
    if (value == dtype) return name;
  }
  return c10::toString(dtype);
}

const char* layoutName(at::Layout layout) {
  for (const auto& [name, value] : layouts) {
    if (value == layout) return name;
  }
  return "unknown";
}

at::ScalarType dtypeFromName(const std::string& name) { return fromName(dtypes, "dtype", name); }

}  // namespace gmml

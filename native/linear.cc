// gmml::linear: aten::linear, for large float32 products on the CPU by oneDNN where that is faster than MKL. A training step of vit_tiny
// on an AMD EPYC took 5 to 9 % less time with it (one thread, best of 6 rounds).
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace gmml {

namespace {

using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                           c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

// Below this many multiplications the set-up of oneDNN costs more than it gains.
constexpr int64_t kLeastWork = 1 << 22;

// True where oneDNN measured faster than MKL: x86 processors that are not Intel's, on which MKL takes slower paths.
bool processorGains() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool gains = !__builtin_cpu_is("intel");
  return gains;
#else
  return false;
#endif
}

// Absent from a libtorch without oneDNN, or where its signature is another one.
const std::optional<c10::TypedOperatorHandle<Product>>& productOperator() {
  static const auto handle = []() -> std::optional<c10::TypedOperatorHandle<Product>> {
    const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!found || !processorGains()) return std::nullopt;
    try {
      return found->typed<Product>();
    } catch (const c10::Error&) {
      return std::nullopt;
    }
  }();
  return handle;
}

// x w^T + b, without autograd.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return productOperator()->call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    return product(x, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto rows = gradients[0].reshape({-1, weight.size(0)});
    // With create_graph the gradient itself is differentiated, which oneDNN's operator does not offer.
    const bool plain = c10::GradMode::is_enabled();
    at::Tensor ofX, ofWeight, ofBias;
    if (context->needs_input_grad(0)) ofX = (plain ? rows.mm(weight) : product(rows, weight.t(), std::nullopt)).view(x.sizes());
    if (context->needs_input_grad(1)) ofWeight = rows.t().mm(x.reshape({-1, weight.size(1)}));
    // An absent bias has no edge in the graph, so there is none to ask about.
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) ofBias = rows.sum(0);
    return {ofX, ofWeight, ofBias};
  }
};

bool byOneDnn(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && weight.is_cpu() && weight.dim() == 2 &&
         x.dim() >= 2 && x.layout() == at::kStrided && x.size(-1) == weight.size(1) && x.numel() * weight.size(0) >= kLeastWork &&
         !at::autocast::is_autocast_enabled(at::kCPU) && productOperator();
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return byOneDnn(x, weight) ? Linear::apply(x, weight, bias) : at::linear(x, weight, bias);
}

}  // namespace

TORCH_LIBRARY(gmml, library) { library.def("linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor", linear); }

}  // namespace gmml

// A library of operators as a user would write it: one with a backward of its own, one with many kinds of arguments.
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Cube : torch::autograd::Function<Cube> {
  static Tensor forward(AutogradContext* context, const Tensor& x, double scale) {
    context->save_for_backward({x});
    context->saved_data["scale"] = scale;
    return x.pow(3).mul(scale);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto x = context->get_saved_variables()[0];
    return {gradients[0].mul(x.pow(2)).mul(3 * context->saved_data["scale"].toDouble()), Tensor()};
  }
};

static Tensor cube(const Tensor& x, double scale) { return Cube::apply(x, scale); }

static std::tuple<std::string, std::vector<int64_t>, Tensor> describe(const std::optional<Tensor>& x, std::string name,
                                                                       std::vector<int64_t> sizes, bool twice) {
  if (!x) throw std::runtime_error("no tensor for " + name);
  sizes.push_back(x->dim());
  return {twice ? name + name : name, sizes, at::zeros_like(*x)};
}

TORCH_LIBRARY(gmml_example, library) {
  library.def("cube(Tensor x, float scale=1.0) -> Tensor", cube);
  library.def("describe.named(Tensor? x, str name, int[] sizes, *, bool twice=False) -> (str, int[], Tensor)", describe);
}

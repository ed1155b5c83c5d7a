// Gradient checkpointing. A region of the forward pass that keeps no activations is one node in the graph, with the region's inputs.
// The engine never runs such a node: a pass is driven from JavaScript, which recomputes one region at a time. The graph that this makes
// takes the node's place, and the engine goes on through it. So libtorch never calls JavaScript.
#include "checkpoint.h"

#include "arguments.h"
#include "autograd.h"
#include "exports.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones_like.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace gmml {

namespace {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::Engine;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using NodePtr = decltype(Edge::function);  // shared_ptr or intrusive_ptr, by the version of libtorch

// One region: what it was called with, and the parameters that must not change until it is recomputed.
class CheckpointNode final : public Node {
 public:
  CheckpointNode(double region, std::shared_ptr<FreedRegions> freed, const std::vector<at::Tensor>& inputs,
                 std::vector<at::Tensor> guarded)
      : region(region), freed_(std::move(freed)), guarded_(std::move(guarded)) {
    for (const auto& input : inputs) {
      saved_.emplace_back(input, false);
      add_next_edge(torch::autograd::impl::gradient_edge(input));
    }
    for (const auto& tensor : guarded_) versions_.push_back(tensor._version());
  }
  ~CheckpointNode() override {
    const std::lock_guard<std::mutex> lock(freed_->mutex);
    freed_->regions.push_back(region);
  }

  std::string name() const override { return "CheckpointBackward"; }

  std::vector<at::Tensor> unpack() const {
    if (released_) throw ValueError("Trying to backward through the graph a second time: a checkpointed region was freed by the first "
                                    "(give retainGraph: true to that one)");
    for (size_t i = 0; i < guarded_.size(); ++i) {
      if (static_cast<int64_t>(guarded_[i]._version()) != versions_[i]) {
        throw ValueError("a parameter of a checkpointed region has been modified by an inplace operation before the region was "
                         "recomputed: " + describeTensor(guarded_[i]));
      }
    }
    std::vector<at::Tensor> inputs;
    for (const auto& saved : saved_) inputs.push_back(saved.unpack());
    return inputs;
  }

  void release_variables() override {
    released_ = true;
    for (auto& saved : saved_) saved.reset_data();
    guarded_.clear();
  }

  const double region;

 protected:
  variable_list apply(variable_list&&) override {
    throw ValueError("a checkpointed region can be differentiated by backward() and grad() only, not by an operator");
  }

 private:
  std::shared_ptr<FreedRegions> freed_;
  std::vector<SavedVariable> saved_;
  std::vector<at::Tensor> guarded_;
  std::vector<int64_t> versions_;
  bool released_ = false;
};

template <typename Pointer, typename... Args>
Pointer makeNode(Args&&... args) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<Node>>) {
    return std::make_shared<CheckpointNode>(std::forward<Args>(args)...);
  } else {
    return c10::make_intrusive<CheckpointNode>(std::forward<Args>(args)...);
  }
}

using Nodes = std::unordered_set<Node*>;

// Adds all nodes that a gradient at `from` flows to, `from` included.
void reach(Node* from, Nodes& found) {
  std::vector<Node*> open{from};
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (!found.insert(node).second) continue;
    for (const auto& edge : node->next_edges()) {
      if (edge.is_valid()) open.push_back(edge.function.get());
    }
  }
}

// Makes nodes ends of the graph for a while: the engine would run those from which another end can be reached.
class Ends {
 public:
  ~Ends() {
    for (auto& [node, edges] : edges_) node->next_edges() = std::move(edges);
    for (auto& [node, hooks] : hooks_) node->retains_grad_hooks() = std::move(hooks);
  }
  void add(Node* node) {
    if (!node->next_edges().empty()) edges_.emplace_back(node, std::exchange(node->next_edges(), {}));
    // The hooks of retainGrad() see the gradient when it is complete and goes on, not now that it is set aside.
    auto& hooks = node->retains_grad_hooks();
    if (!hooks.empty()) hooks_.emplace_back(node, std::exchange(hooks, {}));
  }

 private:
  std::vector<std::pair<Node*, torch::autograd::edge_list>> edges_;
  std::vector<std::pair<Node*, std::remove_reference_t<decltype(std::declval<Node>().retains_grad_hooks())>>> hooks_;
};

}  // namespace

// A backward pass in steps. `pending_` holds the gradients that have arrived at an edge and not gone on. Each step runs the engine over
// those nodes that no region ahead can still send gradients to, up to the next regions; so every node runs once, with its whole gradient.
class GradientPass {
 public:
  GradientPass(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& gradients, bool keepGraph, bool createGraph)
      : keepGraph_(keepGraph), createGraph_(createGraph) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto edge = torch::autograd::impl::gradient_edge(outputs[i]);
      if (!edge.is_valid()) {
        throw ValueError("element " + std::to_string(i) + " of tensors does not require grad and does not have a grad_fn");
      }
      const bool given = i < gradients.size() && gradients[i].defined();
      if (!given && outputs[i].numel() != 1) throw ValueError("grad can be implicitly created only for scalar outputs");
      add(edge, given ? gradients[i] : at::ones_like(outputs[i], at::MemoryFormat::Preserve));
    }
  }

  // Gives the gradients of these tensors instead of accumulating those of leaves.
  void want(const std::vector<at::Tensor>& inputs) {
    accumulate_ = false;
    for (const auto& input : inputs) {
      const auto edge = torch::autograd::impl::gradient_edge(input);
      if (!edge.is_valid()) throw ValueError("One of the differentiated Tensors does not require grad");
      wanted_.push_back(edge);
      wantedNodes_.insert(edge.function.get());
    }
  }

  // Runs as far as possible without recomputing. Null when nothing is left to recompute.
  const CheckpointNode* advance() {
    while (auto* region = runPhase()) {
      arrived_.assign(region->num_inputs(), at::Tensor());
      bool any = false;
      for (auto entry = pending_.begin(); entry != pending_.end();) {
        if (entry->first.function.get() != region) {
          ++entry;
          continue;
        }
        any = true;
        region_ = entry->first.function;
        arrived_[entry->first.input_nr] = entry->second;
        if (std::find(wanted_.begin(), wanted_.end(), entry->first) != wanted_.end()) results_[entry->first] = entry->second;
        entry = pending_.erase(entry);
      }
      if (!any) continue;  // undefined gradients only: nothing flows through it
      for (const auto& [_, hook] : region->retains_grad_hooks()) arrived_ = (*hook)(arrived_);
      return region;
    }
    region_ = nullptr;
    return nullptr;
  }

  // The recomputed outputs of the region that advance() stopped at: its gradients flow on into their graph.
  void expand(const std::vector<at::Tensor>& outputs) {
    if (!region_) throw ValueError("no region is being recomputed");
    const auto region = std::exchange(region_, nullptr);
    if (outputs.size() != arrived_.size()) {
      throw ValueError("the recomputation of a checkpointed region gave " + std::to_string(outputs.size()) + " tensors instead of " +
                       std::to_string(arrived_.size()));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto& metadata = region->input_metadata(i);
      const auto& output = outputs[i];
      if (output.sym_sizes() != metadata.shape_as_dim_vector() || output.scalar_type() != c10::typeMetaToScalarType(metadata.dtype())) {
        throw ValueError("the recomputation of a checkpointed region gave another shape or dtype: " + describeTensor(output));
      }
      const auto edge = torch::autograd::impl::gradient_edge(output);
      if (arrived_[i].defined() && edge.is_valid()) add(edge, std::move(arrived_[i]));
    }
    if (!keepGraph_) region->release_variables();
  }

  // After the last region: accumulates into the leaves, or gives the gradients that were wanted.
  std::vector<at::Tensor> finish() {
    std::vector<at::Tensor> gradients;
    for (const auto& wanted : wanted_) {
      const auto pending = pending_.find(wanted);
      const auto result = results_.find(wanted);
      gradients.push_back(pending != pending_.end() ? pending->second : result != results_.end() ? result->second : at::Tensor());
    }
    if (!accumulate_) return gradients;
    const at::AutoGradMode mode(createGraph_);
    torch::autograd::edge_list hooked;
    variable_list hookedGradients;
    for (const auto& [edge, gradient] : pending_) {
      if (!isLeaf(edge.function.get())) throw ValueError("the backward pass has not come to its end");
    }
    for (auto& [edge, gradient] : pending_) {
      if (edge.function->post_hooks().empty()) {
        // Not through the engine, which would keep a reference: a gradient that nobody else holds becomes `.grad` without a copy.
        variable_list moved;
        moved.push_back(std::move(gradient));
        (*edge.function)(std::move(moved));
      } else {
        hooked.push_back(edge);
        hookedGradients.push_back(std::move(gradient));
      }
    }
    pending_.clear();
    if (!hooked.empty()) Engine::get_default_engine().execute(hooked, hookedGradients, keepGraph_, createGraph_, true);
    return gradients;
  }

 private:
  static bool isLeaf(Node* node) { return dynamic_cast<AccumulateGrad*>(node) != nullptr; }

  void add(const Edge& edge, at::Tensor gradient) {
    auto& sum = pending_[edge];
    const at::AutoGradMode mode(createGraph_);
    sum = sum.defined() ? sum + gradient : std::move(gradient);
  }

  // What lies ahead of the pending gradients.
  struct Survey {
    Nodes ahead;
    Nodes deferred;                  // those of `ahead` that wait for the next region
    CheckpointNode* next = nullptr;  // the next region
  };

  Survey survey() const {
    Survey result;
    for (const auto& [edge, gradient] : pending_) reach(edge.function.get(), result.ahead);
    std::vector<CheckpointNode*> regions;
    for (auto* node : result.ahead) {
      if (auto* region = dynamic_cast<CheckpointNode*>(node)) regions.push_back(region);
    }
    for (auto* region : regions) {
      for (const auto& edge : region->next_edges()) {
        if (edge.is_valid()) reach(edge.function.get(), result.deferred);
      }
    }
    for (auto* region : regions) {
      if (result.deferred.count(region)) continue;
      if (!result.next || region->sequence_nr() > result.next->sequence_nr()) result.next = region;
    }
    if (!result.next) return result;
    // The engine takes the nodes that were made last first, and so sums gradients in that order: nodes older than the region wait too.
    Nodes older = result.deferred;
    for (auto* node : result.ahead) {
      if (node->sequence_nr() < result.next->sequence_nr()) reach(node, older);
    }
    // The numbers of nodes that another thread made (second derivatives on a GPU) say nothing: then the order of the sum is another.
    if (!older.count(result.next)) result.deferred = std::move(older);
    return result;
  }

  CheckpointNode* runPhase() {
    const auto [ahead, deferred, next] = survey();
    const auto runs = [&deferred = deferred](Node* node) {
      return !deferred.count(node) && !isLeaf(node) && !dynamic_cast<CheckpointNode*>(node);
    };
    std::unordered_set<Edge> stops;
    for (auto* node : ahead) {
      if (!runs(node)) continue;
      for (const auto& edge : node->next_edges()) {
        if (!edge.is_valid() || runs(edge.function.get())) continue;
        if (!accumulate_ && isLeaf(edge.function.get()) && !wantedNodes_.count(edge.function.get())) continue;
        stops.insert(edge);
      }
    }
    // Of a tensor that is wanted the gradient is taken on the way.
    for (const auto& wanted : wanted_) {
      if (ahead.count(wanted.function.get()) && runs(wanted.function.get())) stops.insert(wanted);
    }
    torch::autograd::edge_list roots;
    variable_list gradients;
    for (auto entry = pending_.begin(); entry != pending_.end();) {
      if (!runs(entry->first.function.get())) {
        ++entry;
        continue;
      }
      roots.push_back(entry->first);
      gradients.push_back(std::move(entry->second));
      entry = pending_.erase(entry);
    }
    if (roots.empty() || stops.empty()) return next;
    const torch::autograd::edge_list captured(stops.begin(), stops.end());
    Ends ends;
    for (const auto& edge : captured) {
      Node* node = edge.function.get();
      if (runs(node)) continue;
      ends.add(node);
      // What has arrived before comes first in the sum, as it would in a single run.
      const auto before = pending_.find(edge);
      if (before == pending_.end()) continue;
      roots.push_back(edge);
      gradients.push_back(std::move(before->second));
      pending_.erase(before);
    }
    auto found = Engine::get_default_engine().execute(roots, gradients, keepGraph_, createGraph_, false, captured);
    for (size_t i = 0; i < captured.size(); ++i) {
      if (!found[i].defined()) continue;
      if (runs(captured[i].function.get())) {
        results_[captured[i]] = std::move(found[i]);
      } else {
        pending_[captured[i]] = std::move(found[i]);
      }
    }
    return next;
  }

  const bool keepGraph_, createGraph_;
  bool accumulate_ = true;
  std::vector<Edge> wanted_;
  Nodes wantedNodes_;
  std::unordered_map<Edge, at::Tensor> pending_, results_;
  NodePtr region_ = nullptr;          // being recomputed
  std::vector<at::Tensor> arrived_;   // the gradients of its outputs
};

namespace {

Checkpoints& checkpointsOf(const Napi::CallbackInfo& info) { return environmentOf(info).checkpoints; }

GradientPass& passAt(const Napi::CallbackInfo& info) {
  auto& passes = checkpointsOf(info).passes;
  const double id = numberAt(info, 0);
  const auto pass = id >= 0 && id <= UINT32_MAX ? passes.find(static_cast<uint32_t>(id)) : passes.end();
  if (pass == passes.end()) refuseAt(info, 0, "a backward pass that has begun");
  return *pass->second;
}

Napi::Array toHandles(const Napi::CallbackInfo& info, const std::vector<at::Tensor>& tensors) {
  auto result = Napi::Array::New(info.Env(), tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) result.Set(i, toHandle(info, tensors[i]));
  return result;
}

// checkpointRegion(region, inputs, guarded, outputs): the outputs as results of one node.
Napi::Value checkpointRegion(const Napi::CallbackInfo& info) {
  const auto outputs = tensorsAt(info, 3);
  for (const auto& output : outputs) {
    if (!at::isFloatingType(output.scalar_type()) && !at::isComplexType(output.scalar_type())) {
      throw ValueError("the result of a checkpointed region must be floating-point or complex: " + describeTensor(output));
    }
  }
  const auto node = makeNode<NodePtr>(numberAt(info, 0), checkpointsOf(info).freed, tensorsAt(info, 1), tensorsAt(info, 2));
  std::vector<at::Tensor> results;
  for (const auto& output : outputs) {
    auto result = output.detach();  // a tensor of its own, also where the region gives back an input
    torch::autograd::create_gradient_edge(result, node);
    results.push_back(std::move(result));
  }
  return toHandles(info, results);
}

Napi::Value freedRegions(const Napi::CallbackInfo& info) {
  auto& freed = *checkpointsOf(info).freed;
  std::vector<double> regions;
  {
    const std::lock_guard<std::mutex> lock(freed.mutex);
    regions.swap(freed.regions);
  }
  auto result = Napi::Array::New(info.Env(), regions.size());
  for (uint32_t i = 0; i < regions.size(); ++i) result.Set(i, regions[i]);
  return result;
}

// beginPass(outputs, gradients | null, inputs | null, keepGraph, createGraph): the number of the pass.
Napi::Value beginPass(const Napi::CallbackInfo& info) {
  const auto gradients = info[1].IsNull() ? std::vector<at::Tensor>() : tensorsAt(info, 1, true);
  const auto outputs = tensorsAt(info, 0);
  checkGradients(outputs, gradients);
  auto pass = std::make_shared<GradientPass>(outputs, gradients, boolAt(info, 3), boolAt(info, 4));
  if (!info[2].IsNull()) pass->want(tensorsAt(info, 2));
  auto& checkpoints = checkpointsOf(info);
  const auto id = checkpoints.nextPass++;
  checkpoints.passes.emplace(id, std::move(pass));
  return Napi::Number::New(info.Env(), id);
}

Napi::Value advancePass(const Napi::CallbackInfo& info) {
  const auto* region = passAt(info).advance();
  if (!region) return info.Env().Null();
  const auto inputs = region->unpack();
  auto result = Napi::Object::New(info.Env());
  result.Set("region", region->region);
  result.Set("inputs", toHandles(info, inputs));
  return result;
}

Napi::Value expandPass(const Napi::CallbackInfo& info) {
  passAt(info).expand(tensorsAt(info, 1));
  return info.Env().Undefined();
}

Napi::Value finishPass(const Napi::CallbackInfo& info) { return toHandles(info, passAt(info).finish()); }

Napi::Value endPass(const Napi::CallbackInfo& info) {
  passAt(info);
  checkpointsOf(info).passes.erase(static_cast<uint32_t>(numberAt(info, 0)));
  return info.Env().Undefined();
}

}  // namespace

void initCheckpoint(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"checkpointRegion", checkpointRegion>(env, exports, environment);
  exportFunction<"freedRegions", freedRegions>(env, exports, environment);
  exportFunction<"beginPass", beginPass>(env, exports, environment);
  exportFunction<"advancePass", advancePass>(env, exports, environment);
  exportFunction<"expandPass", expandPass>(env, exports, environment);
  exportFunction<"finishPass", finishPass>(env, exports, environment);
  exportFunction<"endPass", endPass>(env, exports, environment);
}

}  // namespace gmml

// A part of a forward pass whose inner values are not kept but made again in the backward pass (Chen et al., 2016,
// arXiv 1604.06174). The part is a closure of the caller's, who also sees to the generators.
#include <torch/csrc/autograd/autograd.h>

#include <stdexcept>
#include <string>

#include "common.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

thread_local std::string failure;

using Run = int (*)(void* closure, Tensor* const* inputs, size_t n, void* sink);
using Drop = void (*)(void* closure);

// Lives as long as the graph.
struct Closure : torch::CustomClassHolder {
  void* closure;
  Run run;
  Drop drop;
  Closure(void* c, Run r, Drop d) : closure(c), run(r), drop(d) {}
  ~Closure() override { drop(closure); }

  variable_list call(const variable_list& inputs) const {
    // The callee comes to own its inputs.
    std::vector<Tensor*> given;
    for (const auto& x : inputs) given.push_back(new Tensor(x));
    variable_list out;
    if (run(closure, given.data(), given.size(), &out)) throw std::runtime_error(failure);
    return out;
  }
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  // The first input is nobody's: it requires a gradient, so that there is a backward pass even where only parameters
  // inside the closure do.
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, c10::intrusive_ptr<Closure> part) {
    variable_list own(inputs.begin() + 1, inputs.end());
    ctx->save_for_backward(own);
    auto out = part->call(own);
    ctx->saved_data["part"] = at::IValue::make_capsule(std::move(part));
    ctx->set_materialize_grads(false);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    variable_list inputs;
    for (const auto& x : ctx->get_saved_variables())
      inputs.push_back(x.detach().set_requires_grad(x.requires_grad()));
    auto part = c10::static_intrusive_pointer_cast<Closure>(ctx->saved_data["part"].toCapsule());
    variable_list ends, into;
    {
      at::AutoGradMode on(true);
      auto out = part->call(inputs);
      for (size_t i = 0; i < out.size(); ++i) {
        if (!grads[i].defined() || !out[i].requires_grad()) continue;
        ends.push_back(out[i]);
        into.push_back(grads[i]);
      }
    }
    if (!ends.empty()) torch::autograd::backward(ends, into);
    variable_list result{Tensor()};
    for (const auto& x : inputs) result.push_back(x.grad());
    result.push_back(Tensor());
    return result;
  }
};

}  // namespace
}  // namespace ragduet

extern "C" void rd_emit(void* sink, Tensor* t) { static_cast<variable_list*>(sink)->push_back(*t); }

extern "C" void rd_fail(const char* message) { ragduet::failure = message; }

// Takes `closure` over in any case. outputs has room for `capacity` of them; made: how many there are.
extern "C" int rd_checkpoint(Tensor* const* inputs, size_t n, void* closure, ragduet::Run run, ragduet::Drop drop,
                             Tensor** outputs, size_t capacity, size_t* made) {
  return ragduet::guarded([&] {
    auto part = c10::make_intrusive<ragduet::Closure>(closure, run, drop);
    auto given = ragduet::collect(inputs, n);
    given.insert(given.begin(), at::empty({0}).set_requires_grad(true));
    auto out = ragduet::Checkpoint::apply(at::TensorList(given), std::move(part));
    TORCH_CHECK(out.size() <= capacity, "checkpoint: ", out.size(), " outputs, at most ", capacity);
    *made = out.size();
    for (size_t i = 0; i < out.size(); ++i) outputs[i] = new Tensor(out[i]);
  });
}

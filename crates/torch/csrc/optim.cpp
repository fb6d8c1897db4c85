// ATen's fused AdamW (one kernel over a list of tensors, CPU and CUDA) and list-wise gradient norms, which tch
// does not bind.
#include "common.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>

using at::Tensor;

extern "C" int rd_fused_adamw(Tensor* const* params, Tensor* const* grads, Tensor* const* exp_avgs,
                              Tensor* const* exp_avg_sqs, Tensor* const* steps, size_t n, double lr,
                              double beta1, double beta2, double weight_decay, double eps) {
  return ragduet::guarded([&] {
    at::NoGradGuard no_grad;
    auto counts = ragduet::collect(steps, n);
    // The kernel reads the step number; counting is its caller's part.
    at::_foreach_add_(counts, 1);
    auto changed = ragduet::collect(params, n);
    at::_fused_adamw_(changed, ragduet::collect(grads, n), ragduet::collect(exp_avgs, n),
                      ragduet::collect(exp_avg_sqs, n), {}, counts, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
    // The fused kernel does not count as a change in place; what was derived from the old values must notice.
    for (auto& p : changed) p.unsafeGetTensorImpl()->bump_version();
  });
}

// The 2-norm over all the gradients together (they may lie in several dtypes, on one device).
extern "C" int rd_grad_norm(Tensor* const* grads, size_t n, double* norm) {
  return ragduet::guarded([&] {
    at::NoGradGuard no_grad;
    if (n == 0) {
      *norm = 0.0;
      return;
    }
    auto norms = at::_foreach_norm(ragduet::collect(grads, n), 2);
    for (auto& x : norms) x = x.to(at::kFloat);
    *norm = at::stack(norms).norm().item<double>();
  });
}

extern "C" int rd_scale_grads(Tensor* const* grads, size_t n, double factor) {
  return ragduet::guarded([&] {
    at::NoGradGuard no_grad;
    if (n) at::_foreach_mul_(ragduet::collect(grads, n), factor);
  });
}

// As zero_grad(set_to_none=True): a parameter without a gradient this time is not stepped by stale momentum.
extern "C" int rd_clear_grads(Tensor* const* params, size_t n) {
  return ragduet::guarded([&] {
    for (size_t i = 0; i < n; ++i) params[i]->mutable_grad().reset();
  });
}

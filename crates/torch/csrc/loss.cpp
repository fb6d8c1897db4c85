// Cross-entropy of a linear layer's outputs, chunk by chunk over the rows, so that the logits of the whole batch
// never exist. Products in f32 or bf16, everything on the logits in f32. Gradients made in the forward pass are the
// idea of Liger Kernel (Hsu et al., 2024, arXiv 2410.10989).
#include <ATen/Parallel.h>

#include <limits>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

// One row of logits. Sets its loss; with `up` (the loss's incoming gradient) the row becomes its own gradient.
template <typename T>
RD_INLINE void loss_row(T* row, float* buf, int64_t n, int64_t target, const float* up, float scale, float* nll,
                        float* hit) {
  float top = -std::numeric_limits<float>::infinity(), total = 0.0f;
  for (int64_t j = 0; j < n; ++j) buf[j] = load<T>(row[j]) * scale;
  RD_REDUCE(max : top)
  for (int64_t j = 0; j < n; ++j) top = buf[j] > top ? buf[j] : top;
  RD_REDUCE(+ : total)
  for (int64_t j = 0; j < n; ++j) total += fast_exp(buf[j] - top);
  const float lse = top + __builtin_logf(total), at_target = buf[target];
  *hit = at_target >= top ? 1.0f : 0.0f;
  *nll = lse - at_target;
  if (!up) return;
  const float g = *up * scale;
  for (int64_t j = 0; j < n; ++j) row[j] = store<T>(g * fast_exp(buf[j] - lse));
  row[target] = store<T>(g * (fast_exp(at_target - lse) - 1.0f));
}

// A row with a negative target has no loss and no gradient.
#define RD_LOSS_ROWS(NAME, T)                                                                                    \
  RD_CLONES void NAME(T* rows, float* buf, int64_t n, const int64_t* targets, const float* up, float scale,      \
                      float* nll, float* hit, int64_t from, int64_t to) {                                        \
    for (int64_t i = from; i < to; ++i) {                                                                        \
      if (targets[i] < 0) {                                                                                      \
        nll[i] = hit[i] = 0.0f;                                                                                  \
        for (int64_t j = 0; j < n; ++j) rows[i * n + j] = store<T>(0.0f);                                        \
      } else {                                                                                                   \
        loss_row<T>(rows + i * n, buf, n, targets[i], up ? up + i : nullptr, scale, nll + i, hit + i);           \
      }                                                                                                          \
    }                                                                                                            \
  }
RD_LOSS_ROWS(loss_rows_f32, float)
RD_LOSS_ROWS(loss_rows_bf16, uint16_t)

void rows_cpu(const Tensor& logits, const Tensor& targets, const Tensor& up, float scale, const Tensor& nll,
              const Tensor& hit) {
  const int64_t n = logits.size(1);
  const auto* u = up.defined() ? up.const_data_ptr<float>() : nullptr;
  auto *l = nll.mutable_data_ptr<float>(), *h = hit.mutable_data_ptr<float>();
  const auto* t = targets.const_data_ptr<int64_t>();
  const bool bf16 = logits.scalar_type() == at::kBFloat16;
  void* data = logits.mutable_data_ptr();
  at::parallel_for(0, logits.size(0), 1, [&](int64_t from, int64_t to) {
    std::vector<float> buf(n);
    if (bf16)
      loss_rows_bf16(static_cast<uint16_t*>(data), buf.data(), n, t, u, scale, l, h, from, to);
    else
      loss_rows_f32(static_cast<float*>(data), buf.data(), n, t, u, scale, l, h, from, to);
  });
}

// The same in ATen operators, for other devices; returns the gradient.
Tensor rows_aten(const Tensor& logits, const Tensor& targets, const Tensor& up, float scale, const Tensor& nll,
                 const Tensor& hit) {
  auto z = logits.to(at::kFloat) * scale;
  auto used = targets.ge(0).to(at::kFloat);
  auto place = targets.clamp_min(0).unsqueeze(1);
  auto lse = at::logsumexp(z, {1});
  auto at_target = z.gather(1, place).squeeze(1);
  nll.copy_((lse - at_target) * used);
  hit.copy_(at_target.ge(z.amax({1})).to(at::kFloat) * used);
  if (!up.defined()) return {};
  auto g = (up * used * scale).unsqueeze(1);
  auto d = (z - lse.unsqueeze(1)).exp().mul_(g);
  return d.scatter_add_(1, place, -g).to(logits.scalar_type());
}

struct Parts {
  Tensor nll, hit, d_hidden, d_weight;
};

// Without `up` only losses; with it also gradients.
Parts pass(const Tensor& hidden, const Tensor& weight, const Tensor& targets, const Tensor& up, double scale,
           bool bf16, int64_t chunk) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto type = bf16 ? at::kBFloat16 : at::kFloat;
  const int64_t n = hidden.size(0);
  const float factor = static_cast<float>(scale);
  auto w = weight.to(type);
  auto f32 = hidden.options().dtype(at::kFloat);
  Parts out{at::empty({n}, f32), at::empty({n}, f32), {}, {}};
  if (up.defined()) {
    out.d_hidden = at::empty_like(hidden);
    out.d_weight = at::zeros(weight.sizes(), f32);
  }
  for (int64_t first = 0; first < n; first += chunk) {
    const int64_t rows = std::min(chunk, n - first);
    auto h = hidden.narrow(0, first, rows).to(type);
    auto logits = at::mm(h, w.t());
    auto t = targets.narrow(0, first, rows), u = up.defined() ? up.narrow(0, first, rows) : Tensor();
    auto nll = out.nll.narrow(0, first, rows), hit = out.hit.narrow(0, first, rows);
    if (logits.device().is_cpu())
      rows_cpu(logits, t, u, factor, nll, hit);
    else
      logits = rows_aten(logits, t, u, factor, nll, hit);
    if (!up.defined()) continue;
    out.d_hidden.narrow(0, first, rows).copy_(at::mm(logits, w));
    if (bf16)
      out.d_weight.add_(at::mm(logits.t(), h));
    else
      out.d_weight.addmm_(logits.t(), h);
  }
  return out;
}

// Losses per row; the backward pass makes the logits again.
struct RowLoss : torch::autograd::Function<RowLoss> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                               const Tensor& targets, double scale, bool bf16, int64_t chunk) {
    auto p = pass(hidden, weight, targets, {}, scale, bf16, chunk);
    ctx->save_for_backward({hidden, weight, targets});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["bf16"] = bf16;
    ctx->saved_data["chunk"] = chunk;
    ctx->mark_non_differentiable({p.hit});
    return {p.nll, p.hit};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    auto p = pass(s[0], s[1], s[2], grads[0].to(at::kFloat).contiguous(), ctx->saved_data["scale"].toDouble(),
                  ctx->saved_data["bf16"].toBool(), ctx->saved_data["chunk"].toInt());
    return {p.d_hidden, p.d_weight, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace ragduet

// hidden [n, h] and weight [vocab, h] f32, targets [n] i64 (negative: no loss), logits multiplied by scale.
// nll [n] f32; hit [n]: 1 where the target is the likeliest.
extern "C" int rd_linear_cross_entropy(Tensor* hidden, Tensor* weight, Tensor* targets, double scale, int bf16,
                                       int64_t chunk, Tensor** nll, Tensor** hit) {
  return ragduet::guarded([&] {
    TORCH_CHECK(hidden->dim() == 2 && weight->dim() == 2 && hidden->size(1) == weight->size(1),
                "linear_cross_entropy: hidden is ", hidden->sizes(), " but the weight is ", weight->sizes());
    TORCH_CHECK(targets->dim() == 1 && targets->size(0) == hidden->size(0) && targets->scalar_type() == at::kLong,
                "linear_cross_entropy: one i64 target for each of ", hidden->size(0), " rows, got ",
                targets->sizes());
    TORCH_CHECK(hidden->scalar_type() == at::kFloat && weight->scalar_type() == at::kFloat,
                "linear_cross_entropy: hidden and weight must be f32");
    // The CPU loop reads the logit at the target.
    TORCH_CHECK(targets->numel() == 0 || targets->max().item<int64_t>() < weight->size(0),
                "linear_cross_entropy: a target is outside the vocabulary of ", weight->size(0));
    auto out = ragduet::RowLoss::apply(*hidden, *weight, targets->contiguous(), scale, bf16 != 0, chunk);
    *nll = new Tensor(out[0]);
    *hit = new Tensor(out[1]);
  });
}

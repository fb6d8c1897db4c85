// Cross-entropy of a linear layer's outputs. Products in f32 or bf16, everything on the logits in f32. Logits that fit a
// budget are kept for the backward pass, which turns them into their gradient in place. More of them never exist at
// once: they are made chunk by chunk over the rows, and again in the backward pass.
#include <ATen/Parallel.h>

#include <limits>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

// What a row's loss is: scale * (logits + bias), label smoothing (Szegedy et al., 2016, arXiv 1512.00567).
struct Terms {
  const float* bias;  // or null
  float scale, smoothing;
};

template <typename T>
RD_INLINE void spread(const T* row, float* buf, int64_t n, Terms t) {
  if (t.bias)
    for (int64_t j = 0; j < n; ++j) buf[j] = (load<T>(row[j]) + t.bias[j]) * t.scale;
  else
    for (int64_t j = 0; j < n; ++j) buf[j] = load<T>(row[j]) * t.scale;
}

// One row of logits: its loss, whether the target is the likeliest, and the log of its sum of exponentials.
template <typename T>
RD_INLINE void loss_row(const T* row, float* buf, int64_t n, int64_t target, Terms t, float* loss, float* hit,
                        float* lse) {
  float top = -std::numeric_limits<float>::infinity(), total = 0.0f;
  spread<T>(row, buf, n, t);
  RD_REDUCE(max : top)
  for (int64_t j = 0; j < n; ++j) top = buf[j] > top ? buf[j] : top;
  RD_REDUCE(+ : total)
  for (int64_t j = 0; j < n; ++j) total += fast_exp(buf[j] - top);
  *lse = top + __builtin_logf(total);
  *hit = buf[target] >= top ? 1.0f : 0.0f;
  *loss = *lse - buf[target];
  if (t.smoothing > 0.0f) {
    // The mean of -log p over the vocabulary; lanes of f32 are precise enough for a mean of that many.
    float sum = 0.0f;
    RD_REDUCE(+ : sum)
    for (int64_t j = 0; j < n; ++j) sum += *lse - buf[j];
    *loss += t.smoothing * (sum / static_cast<float>(n) - *loss);
  }
}

// A row of logits becomes the gradient of the sum of up * loss.
template <typename T>
RD_INLINE void grad_row(T* row, float* buf, int64_t n, int64_t target, Terms t, float up, float lse) {
  const float g = up * t.scale, each = t.smoothing / static_cast<float>(n);
  spread<T>(row, buf, n, t);
  const float at_target = fast_exp(buf[target] - lse);
  for (int64_t j = 0; j < n; ++j) row[j] = store<T>(g * (fast_exp(buf[j] - lse) - each));
  row[target] = store<T>(g * (at_target - each - (1.0f - t.smoothing)));
}

// A row with a negative target has no loss and no gradient.
#define RD_LOSS_ROWS(SUFFIX, T)                                                                                      \
  RD_CLONES void loss_rows_##SUFFIX(const T* rows, float* buf, int64_t n, const int64_t* targets, Terms t,           \
                                    float* loss, float* hit, float* lse, int64_t from, int64_t to) {                 \
    for (int64_t i = from; i < to; ++i) {                                                                            \
      if (targets[i] < 0)                                                                                            \
        loss[i] = hit[i] = lse[i] = 0.0f;                                                                            \
      else                                                                                                           \
        loss_row<T>(rows + i * n, buf, n, targets[i], t, loss + i, hit + i, lse + i);                                \
    }                                                                                                                \
  }                                                                                                                  \
  RD_CLONES void grad_rows_##SUFFIX(T* rows, float* buf, int64_t n, const int64_t* targets, Terms t, const float* up, \
                                    const float* lse, int64_t from, int64_t to) {                                    \
    for (int64_t i = from; i < to; ++i) {                                                                            \
      if (targets[i] < 0)                                                                                            \
        std::fill(rows + i * n, rows + (i + 1) * n, T{0});                                                           \
      else                                                                                                           \
        grad_row<T>(rows + i * n, buf, n, targets[i], t, up[i], lse[i]);                                             \
    }                                                                                                                \
  }
RD_LOSS_ROWS(f32, float)
RD_LOSS_ROWS(bf16, uint16_t)

// What a call is about. bias may be undefined.
struct Job {
  Tensor hidden, weight, bias, targets;
  double scale, smoothing;
  bool bf16;
  int64_t chunk;

  at::ScalarType type() const { return bf16 ? at::kBFloat16 : at::kFloat; }
  Terms terms() const {
    return {bias.defined() ? bias.const_data_ptr<float>() : nullptr, static_cast<float>(scale),
            static_cast<float>(smoothing)};
  }
};

// Per row, f32.
struct Rows {
  Tensor loss, hit, lse;
  Rows narrow(int64_t first, int64_t n) const {
    return {loss.narrow(0, first, n), hit.narrow(0, first, n), lse.narrow(0, first, n)};
  }
};

template <typename F>
void each_row(const Tensor& logits, F&& f) {
  const int64_t n = logits.size(1);
  at::parallel_for(0, logits.size(0), 1, [&](int64_t from, int64_t to) {
    std::vector<float> buf(n);
    f(buf.data(), from, to);
  });
}

// scale * (logits + bias) in f32, for other devices than the CPU.
Tensor spread_aten(const Job& job, const Tensor& logits) {
  auto z = logits.to(at::kFloat);
  return (job.bias.defined() ? z + job.bias : z) * job.scale;
}

void losses(const Job& job, const Tensor& logits, const Tensor& targets, const Rows& rows) {
  if (!logits.device().is_cpu()) {
    auto z = spread_aten(job, logits);
    auto used = targets.ge(0).to(at::kFloat);
    auto lse = at::logsumexp(z, {1}), at_target = z.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
    auto loss = lse - at_target;
    rows.loss.copy_((loss + job.smoothing * (lse - z.mean(1) - loss)) * used);
    rows.hit.copy_(at_target.ge(z.amax({1})).to(at::kFloat) * used);
    rows.lse.copy_(lse);
    return;
  }
  const auto* t = targets.const_data_ptr<int64_t>();
  auto *loss = rows.loss.mutable_data_ptr<float>(), *hit = rows.hit.mutable_data_ptr<float>(),
       *lse = rows.lse.mutable_data_ptr<float>();
  each_row(logits, [&](float* buf, int64_t from, int64_t to) {
    if (job.bf16)
      loss_rows_bf16(static_cast<const uint16_t*>(logits.const_data_ptr()), buf, logits.size(1), t, job.terms(), loss,
                     hit, lse, from, to);
    else
      loss_rows_f32(logits.const_data_ptr<float>(), buf, logits.size(1), t, job.terms(), loss, hit, lse, from, to);
  });
}

// The gradient of sum(up * loss) in place of the logits (in their place on the CPU).
Tensor gradient(const Job& job, const Tensor& logits, const Tensor& targets, const Tensor& up, const Tensor& lse) {
  if (!logits.device().is_cpu()) {
    auto g = (up * targets.ge(0).to(at::kFloat) * job.scale).unsqueeze(1);
    auto d = (spread_aten(job, logits) - lse.unsqueeze(1)).exp_().sub_(job.smoothing / logits.size(1)).mul_(g);
    d.scatter_add_(1, targets.clamp_min(0).unsqueeze(1), g * (job.smoothing - 1.0));
    return d.to(logits.scalar_type());
  }
  const auto* t = targets.const_data_ptr<int64_t>();
  const auto *u = up.const_data_ptr<float>(), *l = lse.const_data_ptr<float>();
  void* data = logits.mutable_data_ptr();
  each_row(logits, [&](float* buf, int64_t from, int64_t to) {
    if (job.bf16)
      grad_rows_bf16(static_cast<uint16_t*>(data), buf, logits.size(1), t, job.terms(), u, l, from, to);
    else
      grad_rows_f32(static_cast<float*>(data), buf, logits.size(1), t, job.terms(), u, l, from, to);
  });
  return logits;
}

// Of what a chunk's gradient of logits is made.
struct Grads {
  Tensor hidden, weight, bias;
};

void add_grads(const Job& job, const Tensor& g, const Tensor& h, const Tensor& w, const Tensor& d_hidden, Grads& out) {
  d_hidden.copy_(at::mm(g, w));
  if (!out.weight.defined())
    out.weight = at::mm(g.t(), h).to(at::kFloat);
  else if (job.bf16)
    out.weight.add_(at::mm(g.t(), h));
  else
    out.weight.addmm_(g.t(), h);
  if (!job.bias.defined()) return;
  auto b = g.sum(0, false, at::kFloat);
  out.bias = out.bias.defined() ? out.bias.add_(b) : b;
}

// kept: room for the logits, or undefined.
Rows forward_pass(const Job& job, const Tensor& w, Tensor* kept) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t n = job.hidden.size(0);
  const auto f32 = job.hidden.options().dtype(at::kFloat);
  Rows out{at::empty({n}, f32), at::empty({n}, f32), at::empty({n}, f32)};
  const int64_t chunk = kept ? std::max<int64_t>(n, 1) : job.chunk;
  for (int64_t first = 0; first < n; first += chunk) {
    const int64_t rows = std::min(chunk, n - first);
    auto logits = at::mm(job.hidden.narrow(0, first, rows).to(job.type()), w.t());
    losses(job, logits, job.targets.narrow(0, first, rows), out.narrow(first, rows));
    if (kept) *kept = logits;
  }
  return out;
}

Grads backward_pass(const Job& job, const Tensor& w, const Tensor& kept, const Tensor& up, const Tensor& lse) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t n = job.hidden.size(0), chunk = kept.defined() ? std::max<int64_t>(n, 1) : job.chunk;
  Grads out{at::empty_like(job.hidden), {}, {}};
  for (int64_t first = 0; first < n; first += chunk) {
    const int64_t rows = std::min(chunk, n - first);
    auto part = [&](const Tensor& t) { return t.narrow(0, first, rows); };
    auto h = part(job.hidden).to(job.type());
    auto logits = kept.defined() ? kept : at::mm(h, w.t());
    auto g = gradient(job, logits, part(job.targets), part(up), part(lse));
    add_grads(job, g, h, w, part(out.hidden), out);
  }
  if (n == 0) {
    out.weight = at::zeros_like(job.weight);
    if (job.bias.defined()) out.bias = at::zeros_like(job.bias);
  }
  return out;
}

struct RowLoss : torch::autograd::Function<RowLoss> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                               const Tensor& targets, double scale, double smoothing, bool bf16, int64_t chunk,
                               bool keep) {
    const Job job{hidden, weight, bias.numel() ? bias : Tensor(), targets, scale, smoothing, bf16, chunk};
    auto w = weight.to(job.type());
    Tensor kept;
    auto rows = forward_pass(job, w, keep ? &kept : nullptr);
    // The weight's bf16 copy is kept with the logits only: it is small beside them.
    ctx->save_for_backward({hidden, weight, bias, targets, rows.lse, kept, kept.defined() ? w : Tensor()});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["smoothing"] = smoothing;
    ctx->saved_data["bf16"] = bf16;
    ctx->saved_data["chunk"] = chunk;
    ctx->saved_data["used"] = false;
    ctx->mark_non_differentiable({rows.hit});
    return {rows.loss, rows.hit};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    const Job job{s[0], s[1], s[2].numel() ? s[2] : Tensor(), s[3], ctx->saved_data["scale"].toDouble(),
                  ctx->saved_data["smoothing"].toDouble(), ctx->saved_data["bf16"].toBool(),
                  ctx->saved_data["chunk"].toInt()};
    // A second backward through the same graph finds the kept logits changed, and makes them again.
    const bool fresh = s[5].defined() && !ctx->saved_data["used"].toBool();
    ctx->saved_data["used"] = true;
    auto d = backward_pass(job, fresh ? s[6] : s[1].to(job.type()), fresh ? s[5] : Tensor(),
                           grads[0].to(at::kFloat).contiguous(), s[4]);
    return {d.hidden, d.weight, d.bias, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace ragduet

// hidden [n, h], weight [vocab, h] and bias [vocab] (or null) f32, targets [n] i64 (negative: no loss), logits
// scale * (hidden weight^T + bias). keep: the most logits that are kept for the backward pass. loss [n] f32; hit [n]: 1
// where the target is the likeliest.
extern "C" int rd_linear_cross_entropy(Tensor* hidden, Tensor* weight, Tensor* bias, Tensor* targets, double scale,
                                       double smoothing, int bf16, int64_t chunk, int64_t keep, Tensor** loss,
                                       Tensor** hit) {
  return ragduet::guarded([&] {
    TORCH_CHECK(hidden->dim() == 2 && weight->dim() == 2 && hidden->size(1) == weight->size(1),
                "linear_cross_entropy: hidden is ", hidden->sizes(), " but the weight is ", weight->sizes());
    TORCH_CHECK(targets->dim() == 1 && targets->size(0) == hidden->size(0) && targets->scalar_type() == at::kLong,
                "linear_cross_entropy: one i64 target for each of ", hidden->size(0), " rows, got ",
                targets->sizes());
    TORCH_CHECK(hidden->scalar_type() == at::kFloat && weight->scalar_type() == at::kFloat,
                "linear_cross_entropy: hidden and weight must be f32");
    TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == weight->size(0) && bias->scalar_type() == at::kFloat),
                "linear_cross_entropy: an f32 bias for each of ", weight->size(0), " tokens");
    // The CPU loop reads the logit at the target.
    TORCH_CHECK(targets->numel() == 0 || targets->max().item<int64_t>() < weight->size(0),
                "linear_cross_entropy: a target is outside the vocabulary of ", weight->size(0));
    // Autograd functions take no undefined inputs: no bias is an empty one.
    auto b = bias ? bias->contiguous() : at::empty({0}, weight->options());
    const bool kept = at::GradMode::is_enabled() && hidden->size(0) * weight->size(0) <= keep;
    auto out = ragduet::RowLoss::apply(*hidden, *weight, b, targets->contiguous(), scale, smoothing, bf16 != 0, chunk,
                                       kept);
    *loss = new Tensor(out[0]);
    *hit = new Tensor(out[1]);
  });
}

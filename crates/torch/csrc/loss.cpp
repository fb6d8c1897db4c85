// Cross-entropy of a linear layer's outputs. Products in f32 or bf16, everything on the logits in f32. Logits that fit a
// budget are kept for the backward pass, which turns them into their gradient in place. Where there are more, only those
// of a part of the vocabulary exist at a time; the softmax is summed up over the parts, and the backward pass makes them
// again. Parts of the vocabulary, not of the rows: each part of the weight is read, and its gradient written, once.
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
  float scale, smoothing, each;  // each: smoothing / vocabulary
};

// Per row, over the parts of the vocabulary so far: the greatest logit, the sum of exponentials below it, the target's
// logit, the sum of logits. f32.
struct Sums {
  Tensor top, total, at_target, sum;
  Sums narrow(int64_t first, int64_t n) const {
    return {top.narrow(0, first, n), total.narrow(0, first, n), at_target.narrow(0, first, n), sum.narrow(0, first, n)};
  }
};

template <typename T>
RD_INLINE void spread(const T* row, float* buf, int64_t n, Terms t) {
  if (t.bias)
    for (int64_t j = 0; j < n; ++j) buf[j] = (load<T>(row[j]) + t.bias[j]) * t.scale;
  else
    for (int64_t j = 0; j < n; ++j) buf[j] = load<T>(row[j]) * t.scale;
}

// A part of a row of logits, n > 0 of them; `target` is counted from its start and may lie outside.
template <typename T>
RD_INLINE void add_row(const T* row, float* buf, int64_t n, int64_t target, Terms t, float* top_of, float* total_of,
                       float* at_target, float* sum_of) {
  float top = -std::numeric_limits<float>::infinity(), total = 0.0f, sum = 0.0f;
  spread<T>(row, buf, n, t);
  RD_REDUCE(max : top)
  for (int64_t j = 0; j < n; ++j) top = buf[j] > top ? buf[j] : top;
  top = top > *top_of ? top : *top_of;
  RD_REDUCE(+ : total)
  for (int64_t j = 0; j < n; ++j) total += fast_exp(buf[j] - top);
  if (*total_of > 0.0f) total += *total_of * fast_exp(*top_of - top);
  if (t.smoothing > 0.0f) {
    RD_REDUCE(+ : sum)
    for (int64_t j = 0; j < n; ++j) sum += buf[j];
    *sum_of += sum;
  }
  if (target >= 0 && target < n) *at_target = buf[target];
  *top_of = top;
  *total_of = total;
}

// A part of a row of logits becomes the gradient of the sum of up * loss.
template <typename T>
RD_INLINE void grad_row(T* row, float* buf, int64_t n, int64_t target, Terms t, float up, float lse) {
  const float g = up * t.scale;
  spread<T>(row, buf, n, t);
  for (int64_t j = 0; j < n; ++j) row[j] = store<T>(g * (fast_exp(buf[j] - lse) - t.each));
  if (target >= 0 && target < n)
    row[target] = store<T>(g * (fast_exp(buf[target] - lse) - t.each - (1.0f - t.smoothing)));
}

// A row with a negative target has no loss and no gradient. `first`: the part's first token.
#define RD_LOSS_ROWS(SUFFIX, T)                                                                                      \
  RD_CLONES void add_rows_##SUFFIX(const T* rows, float* buf, int64_t n, const int64_t* targets, int64_t first,      \
                                   Terms t, float* top, float* total, float* at_target, float* sum, int64_t from,    \
                                   int64_t to) {                                                                     \
    for (int64_t i = from; i < to; ++i)                                                                              \
      if (targets[i] >= 0)                                                                                           \
        add_row<T>(rows + i * n, buf, n, targets[i] - first, t, top + i, total + i, at_target + i, sum + i);         \
  }                                                                                                                  \
  RD_CLONES void grad_rows_##SUFFIX(T* rows, float* buf, int64_t n, const int64_t* targets, int64_t first, Terms t,  \
                                    const float* up, const float* lse, int64_t from, int64_t to) {                   \
    for (int64_t i = from; i < to; ++i) {                                                                            \
      if (targets[i] < 0)                                                                                            \
        std::fill(rows + i * n, rows + (i + 1) * n, T{0});                                                           \
      else                                                                                                           \
        grad_row<T>(rows + i * n, buf, n, targets[i] - first, t, up[i], lse[i]);                                     \
    }                                                                                                                \
  }
RD_LOSS_ROWS(f32, float)
RD_LOSS_ROWS(bf16, uint16_t)

// Rows that are computed together where logits are not kept: enough for the products to be efficient.
constexpr int64_t kLossRows = 4096;

// What a call is about. bias may be undefined. chunk: the most logits at a time. plain: in ATen operators, as all
// devices but the CPU do it.
struct Job {
  Tensor hidden, weight, bias, targets;
  double scale, smoothing;
  bool bf16;
  int64_t chunk;
  bool plain;

  at::ScalarType type() const { return bf16 ? at::kBFloat16 : at::kFloat; }
  int64_t vocab() const { return weight.size(0); }
  // Tokens of a part of the vocabulary, for so many rows.
  int64_t part(int64_t rows) const { return std::max<int64_t>(32, chunk / std::max<int64_t>(rows, 1) / 32 * 32); }
  Terms terms(int64_t first) const {
    return {bias.defined() ? bias.const_data_ptr<float>() + first : nullptr, static_cast<float>(scale),
            static_cast<float>(smoothing), static_cast<float>(smoothing / static_cast<double>(vocab()))};
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

// scale * (logits + bias) in f32.
Tensor spread_aten(const Job& job, const Tensor& logits, int64_t first) {
  auto z = logits.to(at::kFloat);
  return (job.bias.defined() ? z + job.bias.narrow(0, first, logits.size(1)) : z) * job.scale;
}

// 1 where a row's target is in the part, and its place there (else 0).
std::pair<Tensor, Tensor> place_aten(const Tensor& targets, int64_t first, int64_t n) {
  auto place = targets - first;
  auto inside = place.ge(0).logical_and(place.lt(n)).logical_and(targets.ge(0));
  return {inside, place.clamp(0, n - 1).unsqueeze(1)};
}

// Logits of tokens first.. join the sums.
void add_part(const Job& job, const Tensor& logits, const Tensor& targets, int64_t first, const Sums& s) {
  if (job.plain) {
    auto z = spread_aten(job, logits, first);
    auto [inside, place] = place_aten(targets, first, logits.size(1));
    auto top = at::maximum(s.top, z.amax({1}));
    s.total.copy_(s.total * (s.top - top).exp() + (z - top.unsqueeze(1)).exp().sum(1));
    s.top.copy_(top);
    s.sum.add_(z.sum(1));
    s.at_target.copy_(at::where(inside, z.gather(1, place).squeeze(1), s.at_target));
    return;
  }
  const auto* t = targets.const_data_ptr<int64_t>();
  auto *top = s.top.mutable_data_ptr<float>(), *total = s.total.mutable_data_ptr<float>(),
       *at_target = s.at_target.mutable_data_ptr<float>(), *sum = s.sum.mutable_data_ptr<float>();
  each_row(logits, [&](float* buf, int64_t from, int64_t to) {
    if (job.bf16)
      add_rows_bf16(static_cast<const uint16_t*>(logits.const_data_ptr()), buf, logits.size(1), t, first,
                    job.terms(first), top, total, at_target, sum, from, to);
    else
      add_rows_f32(logits.const_data_ptr<float>(), buf, logits.size(1), t, first, job.terms(first), top, total,
                   at_target, sum, from, to);
  });
}

// The gradient of sum(up * loss) at logits of tokens first.., in their place unless `plain`.
Tensor gradient(const Job& job, const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& up,
                const Tensor& lse) {
  if (job.plain) {
    auto g = (up * targets.ge(0).to(at::kFloat) * job.scale).unsqueeze(1);
    auto [inside, place] = place_aten(targets, first, logits.size(1));
    auto d = (spread_aten(job, logits, first) - lse.unsqueeze(1)).exp_();
    d.sub_(job.smoothing / static_cast<double>(job.vocab())).mul_(g);
    d.scatter_add_(1, place, g * (job.smoothing - 1.0) * inside.to(at::kFloat).unsqueeze(1));
    return d.to(logits.scalar_type());
  }
  const auto* t = targets.const_data_ptr<int64_t>();
  const auto *u = up.const_data_ptr<float>(), *l = lse.const_data_ptr<float>();
  void* data = logits.mutable_data_ptr();
  each_row(logits, [&](float* buf, int64_t from, int64_t to) {
    if (job.bf16)
      grad_rows_bf16(static_cast<uint16_t*>(data), buf, logits.size(1), t, first, job.terms(first), u, l, from, to);
    else
      grad_rows_f32(static_cast<float*>(data), buf, logits.size(1), t, first, job.terms(first), u, l, from, to);
  });
  return logits;
}

// Per row, f32.
struct Rows {
  Tensor loss, hit, lse;
};

Rows finished(const Job& job, const Sums& s) {
  auto used = job.targets.ge(0);
  auto lse = s.top + s.total.log(), loss = lse - s.at_target;
  if (job.smoothing > 0) loss = loss + job.smoothing * (lse - s.sum / static_cast<double>(job.vocab()) - loss);
  auto none = at::zeros_like(loss);
  return {at::where(used, loss, none), used.logical_and(s.at_target.ge(s.top)).to(at::kFloat),
          at::where(used, lse, none)};
}

// kept, kept_weight: where the logits and the weight in the compute dtype go, or null.
Rows forward_pass(const Job& job, Tensor* kept, Tensor* kept_weight) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t n = job.hidden.size(0);
  const auto f32 = job.hidden.options().dtype(at::kFloat);
  Sums sums{at::full({n}, -std::numeric_limits<float>::infinity(), f32), at::zeros({n}, f32), at::zeros({n}, f32),
            at::zeros({n}, f32)};
  if (kept) {
    *kept_weight = job.weight.to(job.type());
    *kept = at::mm(job.hidden.to(job.type()), kept_weight->t());
    if (n && job.vocab()) add_part(job, *kept, job.targets, 0, sums);
    return finished(job, sums);
  }
  for (int64_t row = 0; row < n; row += kLossRows) {
    const int64_t rows = std::min(kLossRows, n - row), part = job.part(rows);
    auto h = job.hidden.narrow(0, row, rows).to(job.type());
    for (int64_t first = 0; first < job.vocab(); first += part) {
      auto w = job.weight.narrow(0, first, std::min(part, job.vocab() - first)).to(job.type());
      add_part(job, at::mm(h, w.t()), job.targets.narrow(0, row, rows), first, sums.narrow(row, rows));
    }
  }
  return finished(job, sums);
}

// Undefined where nobody asks for it.
struct Grads {
  Tensor hidden, weight, bias;
};

struct LossGrads {
  bool hidden, weight, bias;
};

Grads of_kept(const Job& job, LossGrads wanted, const Tensor& logits, const Tensor& w, const Tensor& up,
              const Tensor& lse) {
  auto g = gradient(job, logits, job.targets, 0, up, lse);
  Grads out;
  if (wanted.hidden) out.hidden = at::mm(g, w).to(at::kFloat);
  if (wanted.weight) out.weight = at::mm(g.t(), job.hidden.to(job.type())).to(at::kFloat);
  if (wanted.bias) out.bias = g.sum(0, false, at::kFloat);
  return out;
}

// The logits are made again, part by part.
Grads made_again(const Job& job, LossGrads wanted, const Tensor& up, const Tensor& lse) {
  const int64_t n = job.hidden.size(0);
  auto zeros = [](const Tensor& like) { return at::zeros(like.sizes(), like.options()); };
  Grads out;
  if (wanted.hidden) out.hidden = zeros(job.hidden);
  if (wanted.weight) out.weight = n > 0 && n <= kLossRows ? at::empty_like(job.weight) : zeros(job.weight);
  if (wanted.bias) out.bias = zeros(job.bias);
  for (int64_t row = 0; row < n; row += kLossRows) {
    const int64_t rows = std::min(kLossRows, n - row), part = job.part(rows);
    auto cut = [&](const Tensor& t) { return t.narrow(0, row, rows); };
    auto h = cut(job.hidden).to(job.type());
    for (int64_t first = 0; first < job.vocab(); first += part) {
      const int64_t width = std::min(part, job.vocab() - first);
      auto w = job.weight.narrow(0, first, width).to(job.type());
      auto g = gradient(job, at::mm(h, w.t()), cut(job.targets), first, cut(up), cut(lse));
      if (wanted.hidden && job.bf16) cut(out.hidden).add_(at::mm(g, w));
      if (wanted.hidden && !job.bf16) cut(out.hidden).addmm_(g, w);
      if (wanted.weight) {
        auto d = at::mm(g.t(), h), to = out.weight.narrow(0, first, width);
        n <= kLossRows ? to.copy_(d) : to.add_(d);
      }
      if (wanted.bias) out.bias.narrow(0, first, width).add_(g.sum(0, false, at::kFloat));
    }
  }
  return out;
}

struct RowLoss : torch::autograd::Function<RowLoss> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                               const Tensor& targets, double scale, double smoothing, bool bf16, int64_t chunk,
                               bool keep, bool plain) {
    const Job job{hidden, weight, bias.numel() ? bias : Tensor(), targets, scale, smoothing, bf16, chunk, plain};
    Tensor kept, w;
    auto rows = forward_pass(job, keep ? &kept : nullptr, &w);
    ctx->save_for_backward({hidden, weight, bias, targets, rows.lse, kept, w});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["smoothing"] = smoothing;
    ctx->saved_data["bf16"] = bf16;
    ctx->saved_data["chunk"] = chunk;
    ctx->saved_data["plain"] = plain;
    ctx->saved_data["used"] = false;
    ctx->mark_non_differentiable({rows.hit});
    return {rows.loss, rows.hit};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    const Job job{s[0], s[1], s[2].numel() ? s[2] : Tensor(), s[3], ctx->saved_data["scale"].toDouble(),
                  ctx->saved_data["smoothing"].toDouble(), ctx->saved_data["bf16"].toBool(),
                  ctx->saved_data["chunk"].toInt(), ctx->saved_data["plain"].toBool()};
    // A second backward through the same graph finds the kept logits changed, and makes them again.
    const bool fresh = s[5].defined() && !ctx->saved_data["used"].toBool();
    ctx->saved_data["used"] = true;
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto up = grads[0].to(at::kFloat).contiguous();
    // A frozen vocabulary matrix (adapters) costs no product and no gradient of its size.
    const LossGrads wanted{ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                        job.bias.defined() && ctx->needs_input_grad(2)};
    auto d = fresh ? of_kept(job, wanted, s[5], s[6], up, s[4]) : made_again(job, wanted, up, s[4]);
    variable_list result{d.hidden, d.weight, d.bias};
    result.resize(10);
    return result;
  }
};

}  // namespace
}  // namespace ragduet

// hidden [n, h], weight [vocab, h] and bias [vocab] (or null) f32, targets [n] i64 (negative: no loss), logits
// scale * (hidden weight^T + bias). keep: the most logits that are kept for the backward pass. loss [n] f32; hit [n]: 1
// where the target is the likeliest. plain: in ATen operators.
extern "C" int rd_linear_cross_entropy(Tensor* hidden, Tensor* weight, Tensor* bias, Tensor* targets, double scale,
                                       double smoothing, int bf16, int64_t chunk, int64_t keep, int plain,
                                       Tensor** loss, Tensor** hit) {
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
    // The CPU loop reads the logit at the target. Elsewhere the check would wait for the device; such a row has an
    // infinite loss there, which stops a run.
    TORCH_CHECK(targets->numel() == 0 || !targets->device().is_cpu() ||
                    targets->max().item<int64_t>() < weight->size(0),
                "linear_cross_entropy: a target is outside the vocabulary of ", weight->size(0));
    // Autograd functions take no undefined inputs: no bias is an empty one.
    auto b = bias ? bias->contiguous() : at::empty({0}, weight->options());
    const bool kept = at::GradMode::is_enabled() && hidden->size(0) * weight->size(0) <= keep;
    auto out = ragduet::RowLoss::apply(*hidden, *weight, b, targets->contiguous(), scale, smoothing, bf16 != 0, chunk,
                                       kept, plain != 0 || !hidden->device().is_cpu());
    *loss = new Tensor(out[0]);
    *hit = new Tensor(out[1]);
  });
}

// Attention over packed rows: sequences lie one after another in [tokens, heads, head_dim], and only attention
// sees their borders. No padding is computed anywhere.
//
// CUDA: ATen's flash kernel with cumulative lengths (f16, bf16); f32 goes sequence by sequence.
// CPU: sequence by sequence, in parallel; ATen's flash kernel without dropout, and matrix products with a fused
// softmax + dropout (its mask made again, not kept, in the backward pass) with it.
//
// k and v may have fewer heads, each for a run of query heads (Ainslie et al., 2023, arXiv 2305.13245). The kernel
// without dropout sees key heads as its batch and repeats them with a stride of 0, so nothing is copied.
#include <ATen/Parallel.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include <algorithm>
#include <atomic>
#include <limits>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

// Which keys row i sees.
struct Reach {
  bool causal;
  int64_t window;  // keys at most this far away; < 0: no bound
  RD_INLINE int64_t from(int64_t i) const { return window >= 0 && i > window ? i - window : 0; }
  RD_INLINE int64_t to(int64_t i, int64_t n) const {
    int64_t end = causal ? i + 1 : n;
    return window >= 0 && i + window + 1 < end ? i + window + 1 : end;
  }
};

struct Dropout {
  uint64_t seed;
  uint32_t threshold;
  float inv_keep;
};

// The parts of one row, each a loop over plain arrays: inlined into the loop over rows they stay scalar.
#define RD_SOFTMAX_ROW(SUFFIX, T)                                                                          \
  /* buf = scale * s; returns the largest. */                                                              \
  RD_CLONES float scaled_##SUFFIX(const T* __restrict s, float* __restrict buf, int64_t n, float scale) {  \
    float top = -std::numeric_limits<float>::infinity();                                                   \
    RD_REDUCE(max : top)                                                                                   \
    for (int64_t j = 0; j < n; ++j) {                                                                      \
      float v = load<T>(s[j]) * scale;                                                                     \
      buf[j] = v;                                                                                          \
      top = v > top ? v : top;                                                                             \
    }                                                                                                      \
    return top;                                                                                            \
  }                                                                                                        \
  /* s = dropped probabilities. `column` is the first one's number. */                                     \
  RD_CLONES void dropped_##SUFFIX(const float* __restrict buf, T* __restrict s, int64_t n, float inv,      \
                                  RowSeed seed, uint32_t column, uint32_t threshold) {                     \
    for (int64_t j = 0; j < n; ++j)                                                                        \
      s[j] = store<T>(buf[j] * keep_factor(seed, column + static_cast<uint32_t>(j), threshold, inv));      \
  }                                                                                                        \
  /* p = probabilities, d = gradient of them, s = dropped probabilities; returns sum(p * d). */            \
  RD_CLONES float undropped_##SUFFIX(T* __restrict s, const T* __restrict g, float* __restrict p,          \
                                     float* __restrict d, int64_t n, float scale, float lse, RowSeed seed, \
                                     uint32_t column, Dropout drop) {                                      \
    float delta = 0.0f;                                                                                    \
    RD_REDUCE(+ : delta)                                                                                   \
    for (int64_t j = 0; j < n; ++j) {                                                                      \
      float e = fast_exp(load<T>(s[j]) * scale - lse);                                                     \
      float keep =                                                                                         \
          keep_factor(seed, column + static_cast<uint32_t>(j), drop.threshold, drop.inv_keep);             \
      float v = load<T>(g[j]) * keep;                                                                      \
      p[j] = e;                                                                                            \
      d[j] = v;                                                                                            \
      s[j] = store<T>(e * keep);                                                                           \
      delta += e * v;                                                                                      \
    }                                                                                                      \
    return delta;                                                                                          \
  }                                                                                                        \
  /* g = gradient of the unscaled scores. */                                                               \
  RD_CLONES void score_grad_##SUFFIX(const float* __restrict p, const float* __restrict d,                 \
                                     T* __restrict g, int64_t n, float delta, float scale) {               \
    for (int64_t j = 0; j < n; ++j) g[j] = store<T>(p[j] * (d[j] - delta) * scale);                        \
  }
RD_SOFTMAX_ROW(f32, float)
RD_SOFTMAX_ROW(bf16, uint16_t)

#define RD_SOFTMAX(SUFFIX, T)                                                                              \
  /* In place: scores -> dropped probabilities; lse[i] = log of the row's sum of exponentials. */          \
  void softmax_##SUFFIX(T* s, float* lse, float* buf, int64_t rows, int64_t n, float scale, Reach reach,   \
                        Dropout drop, uint64_t first_row) {                                                \
    for (int64_t i = 0; i < rows; ++i) {                                                                   \
      T* row = s + i * n;                                                                                  \
      const int64_t lo = reach.from(i), hi = reach.to(i, n), seen = hi - lo;                               \
      const float top = scaled_##SUFFIX(row + lo, buf, seen, scale);                                       \
      const float total = exponentials(buf, seen, top);                                                    \
      lse[i] = top + __builtin_logf(total);                                                                \
      const RowSeed seed = row_seed(drop.seed, first_row + static_cast<uint64_t>(i));                      \
      std::fill(row, row + lo, T{0});                                                                      \
      dropped_##SUFFIX(buf, row + lo, seen, drop.inv_keep / total, seed, static_cast<uint32_t>(lo),        \
                       drop.threshold);                                                                    \
      std::fill(row + hi, row + n, T{0});                                                                  \
    }                                                                                                      \
  }                                                                                                        \
  /* In place: scores -> dropped probabilities, gradient of those -> gradient of the unscaled scores. */   \
  void softmax_backward_##SUFFIX(T* s, T* g, const float* lse, float* buf, int64_t rows, int64_t n,        \
                                 float scale, Reach reach, Dropout drop, uint64_t first_row) {             \
    for (int64_t i = 0; i < rows; ++i) {                                                                   \
      T *srow = s + i * n, *grow = g + i * n;                                                              \
      const int64_t lo = reach.from(i), hi = reach.to(i, n), seen = hi - lo;                               \
      const RowSeed seed = row_seed(drop.seed, first_row + static_cast<uint64_t>(i));                      \
      const float delta = undropped_##SUFFIX(srow + lo, grow + lo, buf, buf + n, seen, scale, lse[i],      \
                                             seed, static_cast<uint32_t>(lo), drop);                       \
      score_grad_##SUFFIX(buf, buf + n, grow + lo, seen, delta, scale);                                    \
      for (T* edge : {srow, grow}) {                                                                       \
        std::fill(edge, edge + lo, T{0});                                                                  \
        std::fill(edge + hi, edge + n, T{0});                                                              \
      }                                                                                                    \
    }                                                                                                      \
  }
RD_SOFTMAX(f32, float)
RD_SOFTMAX(bf16, uint16_t)

// One sequence as [heads, length, head_dim], a view.
Tensor slice(const Tensor& packed, int64_t start, int64_t len) {
  return packed.narrow(0, start, len).transpose(0, 1);
}

// [heads, length, head_dim] -> [key heads, query heads of each, length, head_dim], a view.
Tensor grouped(const Tensor& x, int64_t kv_heads) { return x.unflatten(0, {kv_heads, x.size(0) / kv_heads}); }

// [key heads, length, head_dim] repeated to the same shape, a view.
Tensor repeated(const Tensor& x, int64_t times) {
  return x.unsqueeze(1).expand({x.size(0), times, x.size(1), x.size(2)});
}

// The gradient of what was repeated, per query head, as that of the key heads.
Tensor summed(const Tensor& per_query_head, int64_t kv_heads) {
  return per_query_head.size(0) == kv_heads ? per_query_head : grouped(per_query_head, kv_heads).sum(1);
}

Tensor window_mask(int64_t n, Reach reach, const at::TensorOptions& options) {
  auto mask = at::full({n, n}, -std::numeric_limits<float>::infinity(), options.dtype(at::kFloat));
  auto* m = mask.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = reach.from(i); j < reach.to(i, n); ++j) m[i * n + j] = 0.0f;
  return mask.view({1, 1, n, n});
}

// Sequences are handed out one by one: their lengths differ, so fixed shares would leave threads idle.
template <typename F>
void each_sequence(int64_t n, F&& f) {
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), n);
  if (threads <= 1) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (int64_t i = next++; i < n; i = next++) f(i);
  });
}

struct CpuVarlen : torch::autograd::Function<CpuVarlen> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        std::vector<int64_t> offsets, double p, bool causal, double scale, int64_t window) {
    const int64_t n = static_cast<int64_t>(offsets.size()) - 1, heads = q.size(1), kv_heads = k.size(1);
    const int64_t times = heads / kv_heads;
    const Reach reach{causal, window};
    auto out = at::empty(q.sizes(), q.options());
    auto lse = at::empty({heads * q.size(0)}, q.options().dtype(at::kFloat));
    const uint64_t seed = p > 0 ? next_seed() : 0;
    const Dropout drop{seed, drop_threshold(p), static_cast<float>(1.0 / (1.0 - p))};
    each_sequence(n, [&](int64_t i) {
      const int64_t start = offsets[i], len = offsets[i + 1] - start;
      if (len == 0) return;
      auto qi = slice(q, start, len), ki = slice(k, start, len), vi = slice(v, start, len);
      auto lse_i = lse.narrow(0, start * heads, len * heads);
      if (p > 0) {
        ki = repeated(ki, times).flatten(0, 1);
        vi = repeated(vi, times).flatten(0, 1);
        auto s = at::bmm(qi, ki.transpose(1, 2));
        std::vector<float> buf(len);
        for (int64_t h = 0; h < heads; ++h) {
          auto* l = lse_i.mutable_data_ptr<float>() + h * len;
          const uint64_t first = static_cast<uint64_t>((start * heads) + h * len);
          if (s.scalar_type() == at::kBFloat16)
            softmax_bf16(static_cast<uint16_t*>(s.mutable_data_ptr()) + h * len * len, l, buf.data(), len, len,
                         static_cast<float>(scale), reach, drop, first);
          else
            softmax_f32(s.mutable_data_ptr<float>() + h * len * len, l, buf.data(), len, len,
                        static_cast<float>(scale), reach, drop, first);
        }
        slice(out, start, len).copy_(at::bmm(s, vi));
      } else {
        std::optional<Tensor> mask;
        if (window >= 0 && len > window + 1) mask = window_mask(len, reach, q.options());
        auto [o, l] = at::_scaled_dot_product_flash_attention_for_cpu(
            grouped(qi, kv_heads), repeated(ki, times), repeated(vi, times), 0.0, causal && !mask, mask, scale);
        grouped(slice(out, start, len), kv_heads).copy_(o);
        // ATen's [key heads, query heads of each, length].
        lse_i.view({kv_heads, times, len}).copy_(l);
      }
    });
    ctx->save_for_backward({q, k, v, out, lse});
    ctx->saved_data["offsets"] = offsets;
    ctx->saved_data["p"] = p;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["window"] = window;
    ctx->saved_data["seed"] = static_cast<int64_t>(seed);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &lse = saved[4];
    const auto offsets = ctx->saved_data["offsets"].toIntVector();
    const double p = ctx->saved_data["p"].toDouble(), scale = ctx->saved_data["scale"].toDouble();
    const int64_t window = ctx->saved_data["window"].toInt();
    const Reach reach{ctx->saved_data["causal"].toBool(), window};
    const Dropout drop{static_cast<uint64_t>(ctx->saved_data["seed"].toInt()), drop_threshold(p),
                       static_cast<float>(1.0 / (1.0 - p))};
    const int64_t n = static_cast<int64_t>(offsets.size()) - 1, heads = q.size(1), kv_heads = k.size(1);
    const int64_t times = heads / kv_heads;
    auto dout = grads[0].contiguous();
    auto dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options()),
         dv = at::empty(v.sizes(), v.options());
    each_sequence(n, [&](int64_t i) {
      const int64_t start = offsets[i], len = offsets[i + 1] - start;
      if (len == 0) return;
      auto qi = slice(q, start, len), ki = slice(k, start, len), vi = slice(v, start, len),
           doi = slice(dout, start, len);
      auto lse_i = lse.narrow(0, start * heads, len * heads);
      if (p > 0) {
        ki = repeated(ki, times).flatten(0, 1);
        vi = repeated(vi, times).flatten(0, 1);
        auto s = at::bmm(qi, ki.transpose(1, 2)), g = at::bmm(doi, vi.transpose(1, 2));
        std::vector<float> buf(2 * len);
        for (int64_t h = 0; h < heads; ++h) {
          const auto* l = lse_i.const_data_ptr<float>() + h * len;
          const uint64_t first = static_cast<uint64_t>((start * heads) + h * len);
          if (s.scalar_type() == at::kBFloat16)
            softmax_backward_bf16(static_cast<uint16_t*>(s.mutable_data_ptr()) + h * len * len,
                                  static_cast<uint16_t*>(g.mutable_data_ptr()) + h * len * len, l, buf.data(),
                                  len, len, static_cast<float>(scale), reach, drop, first);
          else
            softmax_backward_f32(s.mutable_data_ptr<float>() + h * len * len,
                                 g.mutable_data_ptr<float>() + h * len * len, l, buf.data(), len, len,
                                 static_cast<float>(scale), reach, drop, first);
        }
        slice(dv, start, len).copy_(summed(at::bmm(s.transpose(1, 2), doi), kv_heads));
        slice(dq, start, len).copy_(at::bmm(g, ki));
        slice(dk, start, len).copy_(summed(at::bmm(g.transpose(1, 2), qi), kv_heads));
      } else {
        std::optional<Tensor> mask;
        if (window >= 0 && len > window + 1) mask = window_mask(len, reach, q.options());
        auto [gq, gk, gv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
            grouped(doi, kv_heads), grouped(qi, kv_heads), repeated(ki, times), repeated(vi, times),
            grouped(slice(out, start, len), kv_heads), lse_i.view({kv_heads, times, len}), 0.0,
            reach.causal && !mask, mask, scale);
        grouped(slice(dq, start, len), kv_heads).copy_(gq);
        slice(dk, start, len).copy_(gk.sum(1));
        slice(dv, start, len).copy_(gv.sum(1));
      }
    });
    return {dq, dk, dv, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

struct CudaFlash : torch::autograd::Function<CudaFlash> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& cu, int64_t longest, double p, bool causal, double scale, int64_t window) {
    std::optional<int64_t> left, right;
    if (window >= 0) {
      left = window;
      right = causal ? 0 : window;
    }
    auto [out, lse, rng, unused, debug] = at::_flash_attention_forward(
        q, k, v, cu, cu, longest, longest, p, causal, /*return_debug_mask=*/false, scale, left, right);
    ctx->save_for_backward({q, k, v, out, lse, cu, rng, unused});
    ctx->saved_data["longest"] = longest;
    ctx->saved_data["p"] = p;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    const int64_t longest = ctx->saved_data["longest"].toInt(), window = ctx->saved_data["window"].toInt();
    const bool causal = ctx->saved_data["causal"].toBool();
    std::optional<int64_t> left, right;
    if (window >= 0) {
      left = window;
      right = causal ? 0 : window;
    }
    auto [dq, dk, dv] = at::_flash_attention_backward(
        grads[0].contiguous(), s[0], s[1], s[2], s[3], s[4], s[5], s[5], longest, longest,
        ctx->saved_data["p"].toDouble(), causal, s[6], s[7], ctx->saved_data["scale"].toDouble(), left, right);
    return {dq, dk, dv, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// f32 on CUDA, or any device without a kernel of its own: sequence by sequence through autograd.
Tensor composite(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& offsets, double p,
                 bool causal, double scale, int64_t window) {
  std::vector<int64_t> lengths;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) lengths.push_back(offsets[i + 1] - offsets[i]);
  auto qs = q.split_with_sizes(lengths), ks = k.split_with_sizes(lengths), vs = v.split_with_sizes(lengths);
  std::vector<Tensor> outs;
  for (size_t i = 0; i < lengths.size(); ++i) {
    auto to_heads = [](const Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
    std::optional<Tensor> mask;
    if (window >= 0 && lengths[i] > window + 1)
      mask = window_mask(lengths[i], Reach{causal, window}, at::TensorOptions(at::kCPU))
                 .to(q.device(), q.scalar_type());
    auto o = at::scaled_dot_product_attention(to_heads(qs[i]), to_heads(ks[i]), to_heads(vs[i]), mask, p,
                                              causal && !mask, scale);
    outs.push_back(o.squeeze(0).transpose(0, 1));
  }
  return at::cat(outs);
}

}  // namespace
}  // namespace ragduet

// q: [tokens, heads, head_dim]; k, v: [tokens, kv_heads, head_dim], kv_heads a divisor of heads. offsets: n + 1 host integers from 0 to tokens.
// cu: the same as an int32 tensor on the device, or null on the CPU. window < 0: none.
extern "C" int rd_varlen_attention(Tensor* q, Tensor* k, Tensor* v, const int64_t* offsets, size_t n_offsets,
                                   Tensor* cu, int64_t longest, double p, int causal, double scale,
                                   int64_t window, Tensor** out) {
  return ragduet::guarded([&] {
    TORCH_CHECK(q->dim() == 3 && k->dim() == 3 && k->sizes() == v->sizes() && q->size(0) == k->size(0) &&
                    q->size(2) == k->size(2) && k->size(1) > 0 && q->size(1) % k->size(1) == 0,
                "varlen_attention: q must be [tokens, heads, head_dim], k and v alike with a divisor of the heads, got ",
                q->sizes(), ", ", k->sizes(), ", ", v->sizes());
    std::vector<int64_t> offs(offsets, offsets + n_offsets);
    TORCH_CHECK(!offs.empty() && offs.front() == 0 && offs.back() == q->size(0),
                "varlen_attention: offsets must run from 0 to ", q->size(0));
    const auto type = q->scalar_type();
    const bool half = type == at::kBFloat16 || type == at::kHalf;
    if (q->device().is_cpu() && (type == at::kFloat || type == at::kBFloat16))
      *out = new Tensor(
          ragduet::CpuVarlen::apply(*q, *k, *v, std::move(offs), p, causal != 0, scale, window));
    else {
      const int64_t times = q->size(1) / k->size(1);
      auto wide = [&](Tensor* t) { return times > 1 ? t->repeat_interleave(times, 1) : *t; };
      if (q->device().is_cuda() && half && cu)
        *out = new Tensor(
            ragduet::CudaFlash::apply(*q, wide(k), wide(v), *cu, longest, p, causal != 0, scale, window));
      else
        *out = new Tensor(ragduet::composite(*q, wide(k), wide(v), offs, p, causal != 0, scale, window));
    }
  });
}

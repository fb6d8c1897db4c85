// s = dropout(x) + residual and its RMSNorm (Zhang & Sennrich, 2019, arXiv 1910.07467): one pass on the CPU, with its
// own backward; or the norm alone. ATen would need eight kernels and as many passes over memory.
#include <ATen/Parallel.h>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

// residual may be null.
template <typename T>
RD_INLINE void forward_row(const T* x, const float* residual, const float* w, float* sum, T* normed, float* rstd_out,
                           int64_t n, float eps, RowSeed seed, uint32_t threshold, float inv_keep) {
  float square = 0.0f;
  if (!residual) {
    RD_REDUCE(+ : square)
    for (int64_t j = 0; j < n; ++j) {
      float v = load<T>(x[j]);
      sum[j] = v;
      square += v * v;
    }
  } else if (threshold) {
    RD_REDUCE(+ : square)
    for (int64_t j = 0; j < n; ++j) {
      float v = load<T>(x[j]) * keep_factor(seed, static_cast<uint32_t>(j), threshold, inv_keep) + residual[j];
      sum[j] = v;
      square += v * v;
    }
  } else {
    RD_REDUCE(+ : square)
    for (int64_t j = 0; j < n; ++j) {
      float v = load<T>(x[j]) + residual[j];
      sum[j] = v;
      square += v * v;
    }
  }
  const float rstd = 1.0f / __builtin_sqrtf(square / static_cast<float>(n) + eps);
  for (int64_t j = 0; j < n; ++j) normed[j] = store<T>(sum[j] * rstd * w[j]);
  *rstd_out = rstd;
}

// d_sum and d_residual may be null. dw is this task's accumulator.
template <typename T>
RD_INLINE void backward_row(const float* d_sum, const T* d_normed, const float* sum, const float* w, float rstd, T* dx,
                            float* d_residual, float* dw, int64_t n, RowSeed seed, uint32_t threshold,
                            float inv_keep) {
  float along = 0.0f;
  RD_REDUCE(+ : along)
  for (int64_t j = 0; j < n; ++j) {
    float dy = load<T>(d_normed[j]), xhat = sum[j] * rstd;
    dw[j] += dy * xhat;
    along += dy * w[j] * xhat;
  }
  along /= static_cast<float>(n);
  if (d_residual) {
    for (int64_t j = 0; j < n; ++j) {
      float d = rstd * (load<T>(d_normed[j]) * w[j] - sum[j] * rstd * along) + (d_sum ? d_sum[j] : 0.0f);
      d_residual[j] = d;
      dx[j] = store<T>(d * (threshold ? keep_factor(seed, static_cast<uint32_t>(j), threshold, inv_keep) : 1.0f));
    }
  } else {
    for (int64_t j = 0; j < n; ++j)
      dx[j] = store<T>(rstd * (load<T>(d_normed[j]) * w[j] - sum[j] * rstd * along));
  }
}

#define RD_RMS(SUFFIX, T)                                                                                             \
  RD_CLONES void rms_forward_##SUFFIX(const T* x, const float* residual, const float* w, float* sum, T* normed,       \
                                      float* rstd, int64_t from, int64_t to, int64_t n, float eps, uint64_t seed,     \
                                      uint32_t threshold, float inv_keep) {                                           \
    for (int64_t i = from; i < to; ++i)                                                                               \
      forward_row<T>(x + i * n, residual ? residual + i * n : nullptr, w, sum + i * n, normed + i * n, rstd + i, n,   \
                     eps, row_seed(seed, i), threshold, inv_keep);                                                    \
  }                                                                                                                   \
  RD_CLONES void rms_backward_##SUFFIX(const float* d_sum, const T* d_normed, const float* sum, const float* w,       \
                                       const float* rstd, T* dx, float* d_residual, float* dw, int64_t from,          \
                                       int64_t to, int64_t n, uint64_t seed, uint32_t threshold, float inv_keep) {    \
    for (int64_t i = from; i < to; ++i)                                                                               \
      backward_row<T>(d_sum ? d_sum + i * n : nullptr, d_normed + i * n, sum + i * n, w, rstd[i], dx + i * n,         \
                      d_residual ? d_residual + i * n : nullptr, dw, n, row_seed(seed, i), threshold, inv_keep);      \
  }
RD_RMS(f32, float)
RD_RMS(bf16, uint16_t)

// Rows per parallel task of the backward pass. Fixed, so that dw does not depend on the number of threads.
constexpr int64_t kRmsRows = 256;

struct Made {
  Tensor sum, normed, rstd;
};

// residual may be undefined.
Made forward_pass(const Tensor& x, const Tensor& residual, const Tensor& w, double eps, double p, uint64_t seed) {
  const int64_t n = x.size(-1), rows = n ? x.numel() / n : 0;
  const auto f32 = x.options().dtype(at::kFloat);
  Made out{at::empty(x.sizes(), f32), at::empty_like(x), at::empty({rows}, f32)};
  const float* r = residual.defined() ? residual.const_data_ptr<float>() : nullptr;
  const float inv_keep = static_cast<float>(1.0 / (1.0 - p));
  // A thread less is faster than waking one for a few rows.
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(n, 1)), [&](int64_t from, int64_t to) {
    auto run = [&](auto kernel, const auto* xp, auto* np) {
      kernel(xp, r, w.const_data_ptr<float>(), out.sum.mutable_data_ptr<float>(), np,
             out.rstd.mutable_data_ptr<float>(), from, to, n, static_cast<float>(eps), seed, drop_threshold(p),
             inv_keep);
    };
    if (x.scalar_type() == at::kBFloat16)
      run(rms_forward_bf16, static_cast<const uint16_t*>(x.const_data_ptr()),
          static_cast<uint16_t*>(out.normed.mutable_data_ptr()));
    else
      run(rms_forward_f32, x.const_data_ptr<float>(), out.normed.mutable_data_ptr<float>());
  });
  return out;
}

// d_sum may be undefined. Returns dx, d_residual (where `added`), dw.
variable_list backward_pass(const Tensor& d_sum, const Tensor& d_normed, const Tensor& sum, const Tensor& w,
                            const Tensor& rstd, double p, uint64_t seed, bool added) {
  const int64_t n = sum.size(-1), rows = n ? sum.numel() / n : 0, tasks = (rows + kRmsRows - 1) / kRmsRows;
  auto dx = at::empty(sum.sizes(), d_normed.options());
  auto d_residual = added ? at::empty_like(sum) : Tensor();
  auto dw = at::zeros({tasks, n}, sum.options());
  const float inv_keep = static_cast<float>(1.0 / (1.0 - p));
  at::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      auto run = [&](auto kernel, const auto* dn, auto* dxp) {
        kernel(d_sum.defined() ? d_sum.const_data_ptr<float>() : nullptr, dn, sum.const_data_ptr<float>(),
               w.const_data_ptr<float>(), rstd.const_data_ptr<float>(), dxp,
               added ? d_residual.mutable_data_ptr<float>() : nullptr, dw.mutable_data_ptr<float>() + t * n,
               t * kRmsRows, std::min(rows, (t + 1) * kRmsRows), n, seed, drop_threshold(p), inv_keep);
      };
      if (d_normed.scalar_type() == at::kBFloat16)
        run(rms_backward_bf16, static_cast<const uint16_t*>(d_normed.const_data_ptr()),
            static_cast<uint16_t*>(dx.mutable_data_ptr()));
      else
        run(rms_backward_f32, d_normed.const_data_ptr<float>(), dx.mutable_data_ptr<float>());
    }
  });
  return {dx, d_residual, dw.sum(0)};
}

struct DropoutAddRms : torch::autograd::Function<DropoutAddRms> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& residual, const Tensor& w,
                               double eps, double p) {
    const uint64_t seed = p > 0 ? next_seed() : 0;
    auto made = forward_pass(x.contiguous(), residual.contiguous(), w, eps, p, seed);
    ctx->save_for_backward({made.sum, w, made.rstd});
    ctx->saved_data["seed"] = static_cast<int64_t>(seed);
    ctx->saved_data["p"] = p;
    ctx->saved_data["type"] = x.scalar_type();
    ctx->set_materialize_grads(false);
    // An output may not be saved twice under one identity: hand out a view of the sum.
    return {made.sum.view(made.sum.sizes()), made.normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    const auto type = ctx->saved_data["type"].toScalarType();
    auto d_sum = grads[0].defined() ? grads[0].contiguous() : Tensor();
    auto d_normed = grads[1].defined() ? grads[1].contiguous() : at::zeros(s[0].sizes(), s[0].options().dtype(type));
    auto d = backward_pass(d_sum, d_normed, s[0], s[1], s[2], ctx->saved_data["p"].toDouble(),
                           static_cast<uint64_t>(ctx->saved_data["seed"].toInt()), true);
    return {d[0], d[1], d[2], Tensor(), Tensor()};
  }
};

struct Rms : torch::autograd::Function<Rms> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, double eps) {
    auto made = forward_pass(x.contiguous(), {}, w, eps, 0.0, 0);
    ctx->save_for_backward({made.sum, w, made.rstd});
    return made.normed;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    auto d = backward_pass({}, grads[0].contiguous(), s[0], s[1], s[2], 0.0, 0, false);
    return {d[0], d[2], Tensor()};
  }
};

Tensor composite(const Tensor& x, const Tensor& w, double eps) {
  auto wide = x.to(at::kFloat);
  return (wide * (wide.square().mean(-1, true) + eps).rsqrt() * w).to(x.scalar_type());
}

bool fused(const Tensor& x, const Tensor& w) {
  const auto type = x.scalar_type();
  return x.device().is_cpu() && w.scalar_type() == at::kFloat && w.is_contiguous() &&
         (type == at::kFloat || type == at::kBFloat16);
}

}  // namespace
}  // namespace ragduet

// x [.., n] f32 or bf16, w [n] f32.
extern "C" int rd_rms_norm(Tensor* x, Tensor* w, double eps, Tensor** out) {
  return ragduet::guarded([&] {
    if (!ragduet::fused(*x, *w))
      *out = new Tensor(ragduet::composite(*x, *w, eps));
    else if (at::GradMode::is_enabled())
      *out = new Tensor(ragduet::Rms::apply(*x, *w, eps));
    else
      *out = new Tensor(ragduet::forward_pass(x->contiguous(), {}, *w, eps, 0.0, 0).normed);
  });
}

// residual: x's shape, f32. sum f32, normed in x's dtype.
extern "C" int rd_dropout_add_rms_norm(Tensor* x, Tensor* residual, Tensor* w, double eps, double p, Tensor** sum,
                                       Tensor** normed) {
  return ragduet::guarded([&] {
    TORCH_CHECK(x->sizes() == residual->sizes(), "dropout_add_rms_norm: x is ", x->sizes(), " but the residual is ",
                residual->sizes());
    if (!ragduet::fused(*x, *w) || residual->scalar_type() != at::kFloat) {
      auto s = *residual + (p > 0 ? at::dropout(*x, p, true) : *x).to(at::kFloat);
      *normed = new Tensor(ragduet::composite(s, *w, eps).to(x->scalar_type()));
      *sum = new Tensor(s);
    } else if (at::GradMode::is_enabled()) {
      auto out = ragduet::DropoutAddRms::apply(*x, *residual, *w, eps, p);
      *sum = new Tensor(out[0]);
      *normed = new Tensor(out[1]);
    } else {
      const uint64_t seed = p > 0 ? ragduet::next_seed() : 0;
      auto made = ragduet::forward_pass(x->contiguous(), residual->contiguous(), *w, eps, p, seed);
      *sum = new Tensor(made.sum);
      *normed = new Tensor(made.normed);
    }
  });
}

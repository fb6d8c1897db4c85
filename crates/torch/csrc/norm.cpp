// dropout(x) + residual, then LayerNorm: one pass on the CPU, with its own backward.
//
// x comes in the compute dtype (f32 or bf16), residual and parameters in f32. Two outputs:
//   carry: f32, the next residual: the normalised rows (post-norm models) or the sum itself (pre-norm models);
//   normed: the normalised rows in the compute dtype, for the next matrix product.
// ATen would need four kernels (dropout, add, layer_norm, to) and as many passes over memory.
#include <ATen/Parallel.h>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

template <typename T>
RD_INLINE void forward_row(const T* x, const float* residual, const float* w, const float* b, float* sum,
                           float* carry, T* normed, float* mean_out, float* rstd_out, int64_t n, float eps,
                           RowSeed seed, uint32_t threshold, float inv_keep, bool pre_norm) {
  float total = 0.0f;
  if (threshold) {
    RD_REDUCE(+ : total)
    for (int64_t j = 0; j < n; ++j) {
      float v = load<T>(x[j]) * keep_factor(seed, static_cast<uint32_t>(j), threshold, inv_keep) + residual[j];
      sum[j] = v;
      total += v;
    }
  } else {
    RD_REDUCE(+ : total)
    for (int64_t j = 0; j < n; ++j) {
      float v = load<T>(x[j]) + residual[j];
      sum[j] = v;
      total += v;
    }
  }
  float mean = total / static_cast<float>(n);
  float square = 0.0f;
  RD_REDUCE(+ : square)
  for (int64_t j = 0; j < n; ++j) {
    float d = sum[j] - mean;
    square += d * d;
  }
  float rstd = 1.0f / __builtin_sqrtf(square / static_cast<float>(n) + eps);
  if (pre_norm) {
    for (int64_t j = 0; j < n; ++j) {
      float y = (sum[j] - mean) * rstd * w[j] + (b ? b[j] : 0.0f);
      carry[j] = sum[j];
      normed[j] = store<T>(y);
    }
  } else {
    for (int64_t j = 0; j < n; ++j) {
      float y = (sum[j] - mean) * rstd * w[j] + (b ? b[j] : 0.0f);
      carry[j] = y;
      normed[j] = store<T>(y);
    }
  }
  *mean_out = mean;
  *rstd_out = rstd;
}

// d_carry or d_normed may be null. dw and db are this thread's accumulators.
template <typename T>
RD_INLINE void backward_row(const float* d_carry, const T* d_normed, const float* sum, const float* w,
                            float mean, float rstd, T* dx, float* d_residual, float* dw, float* db,
                            float* scratch, int64_t n, RowSeed seed, uint32_t threshold, float inv_keep,
                            bool pre_norm) {
  float s1 = 0.0f, s2 = 0.0f;
  const float* into_norm = pre_norm ? nullptr : d_carry;
  RD_REDUCE(+ : s1, s2)
  for (int64_t j = 0; j < n; ++j) {
    float dy = (d_normed ? load<T>(d_normed[j]) : 0.0f) + (into_norm ? into_norm[j] : 0.0f);
    float xhat = (sum[j] - mean) * rstd;
    dw[j] += dy * xhat;
    db[j] += dy;
    float g = dy * w[j];
    scratch[j] = g;
    s1 += g;
    s2 += g * xhat;
  }
  s1 /= static_cast<float>(n);
  s2 /= static_cast<float>(n);
  const float* past_norm = pre_norm ? d_carry : nullptr;
  for (int64_t j = 0; j < n; ++j) {
    float xhat = (sum[j] - mean) * rstd;
    float d = rstd * (scratch[j] - s1 - xhat * s2) + (past_norm ? past_norm[j] : 0.0f);
    d_residual[j] = d;
    float keep = threshold ? keep_factor(seed, static_cast<uint32_t>(j), threshold, inv_keep) : 1.0f;
    dx[j] = store<T>(d * keep);
  }
}

#define RD_NORM_FORWARD(NAME, T)                                                                              \
  RD_CLONES void NAME(const T* x, const float* residual, const float* w, const float* b, float* sum,          \
                      float* carry, T* normed, float* mean, float* rstd, int64_t from, int64_t to, int64_t n, \
                      float eps, uint64_t seed, uint32_t threshold, float inv_keep, bool pre_norm) {          \
    for (int64_t i = from; i < to; ++i)                                                                       \
      forward_row<T>(x + i * n, residual + i * n, w, b, sum + i * n, carry + i * n, normed + i * n, mean + i, \
                     rstd + i, n, eps, row_seed(seed, i), threshold, inv_keep, pre_norm);                     \
  }
RD_NORM_FORWARD(norm_forward_f32, float)
RD_NORM_FORWARD(norm_forward_bf16, uint16_t)

#define RD_NORM_BACKWARD(NAME, T)                                                                             \
  RD_CLONES void NAME(const float* d_carry, const T* d_normed, const float* sum, const float* w,              \
                      const float* mean, const float* rstd, T* dx, float* d_residual, float* dw, float* db,   \
                      float* scratch, int64_t from, int64_t to, int64_t n, uint64_t seed, uint32_t threshold, \
                      float inv_keep, bool pre_norm) {                                                        \
    for (int64_t i = from; i < to; ++i)                                                                       \
      backward_row<T>(d_carry ? d_carry + i * n : nullptr, d_normed ? d_normed + i * n : nullptr,             \
                      sum + i * n, w, mean[i], rstd[i], dx + i * n, d_residual + i * n, dw, db, scratch, n,   \
                      row_seed(seed, i), threshold, inv_keep, pre_norm);                                      \
  }
RD_NORM_BACKWARD(norm_backward_f32, float)
RD_NORM_BACKWARD(norm_backward_bf16, uint16_t)

// Rows per parallel task. Fixed, so that the sums over rows (dw, db) do not depend on the number of threads.
constexpr int64_t kNormRows = 256;

struct DropoutAddNorm : torch::autograd::Function<DropoutAddNorm> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x_in, const Tensor& residual_in,
                               const Tensor& w, const Tensor& b, double eps, double p, bool pre_norm) {
    auto x = x_in.contiguous(), residual = residual_in.contiguous();
    const int64_t n = x.size(-1), rows = n ? x.numel() / n : 0;
    auto f32 = x.options().dtype(at::kFloat);
    auto sum = at::empty(x.sizes(), f32), carry = pre_norm ? sum : at::empty(x.sizes(), f32);
    auto normed = at::empty_like(x), mean = at::empty({rows}, f32), rstd = at::empty({rows}, f32);
    const uint32_t threshold = drop_threshold(p);
    const uint64_t seed = threshold ? next_seed() : 0;
    const float inv_keep = static_cast<float>(1.0 / (1.0 - p));
    const bool has_bias = b.numel() > 0;
    const float* bias = has_bias ? b.const_data_ptr<float>() : nullptr;
    const bool bf16 = x.scalar_type() == at::kBFloat16;
    at::parallel_for(0, rows, 16, [&](int64_t from, int64_t to) {
      auto run = [&](auto kernel, const auto* xp, auto* np) {
        kernel(xp, residual.const_data_ptr<float>(), w.const_data_ptr<float>(), bias,
               sum.mutable_data_ptr<float>(), carry.mutable_data_ptr<float>(), np,
               mean.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>(), from, to, n,
               static_cast<float>(eps), seed, threshold, inv_keep, pre_norm);
      };
      if (bf16)
        run(norm_forward_bf16, static_cast<const uint16_t*>(x.const_data_ptr()),
            static_cast<uint16_t*>(normed.mutable_data_ptr()));
      else
        run(norm_forward_f32, x.const_data_ptr<float>(), normed.mutable_data_ptr<float>());
    });
    ctx->save_for_backward({sum, w, mean, rstd});
    ctx->saved_data["seed"] = static_cast<int64_t>(seed);
    ctx->saved_data["p"] = p;
    ctx->saved_data["pre_norm"] = pre_norm;
    ctx->saved_data["bias"] = has_bias;
    ctx->saved_data["bf16"] = bf16;
    ctx->set_materialize_grads(false);
    // An output may not be saved twice under one identity: hand out a view of the sum.
    return {pre_norm ? carry.view(carry.sizes()) : carry, normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const auto &sum = saved[0], &w = saved[1], &mean = saved[2], &rstd = saved[3];
    auto d_carry = grads[0].defined() ? grads[0].contiguous() : Tensor();
    auto d_normed = grads[1].defined() ? grads[1].contiguous() : Tensor();
    const double p = ctx->saved_data["p"].toDouble();
    const bool pre_norm = ctx->saved_data["pre_norm"].toBool();
    const uint64_t seed = static_cast<uint64_t>(ctx->saved_data["seed"].toInt());
    const uint32_t threshold = drop_threshold(p);
    const float inv_keep = static_cast<float>(1.0 / (1.0 - p));
    const int64_t n = sum.size(-1), rows = n ? sum.numel() / n : 0;
    const bool bf16 = ctx->saved_data["bf16"].toBool();
    auto dx = at::empty(sum.sizes(), sum.options().dtype(bf16 ? at::kBFloat16 : at::kFloat));
    auto d_residual = at::empty_like(sum);
    const int64_t tasks = (rows + kNormRows - 1) / kNormRows;
    auto dw = at::zeros({tasks, n}, sum.options()), db = at::zeros({tasks, n}, sum.options());
    at::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
      std::vector<float> scratch(n);
      for (int64_t t = first; t < last; ++t) {
        auto run = [&](auto kernel, const auto* dn, auto* dxp) {
          kernel(d_carry.defined() ? d_carry.const_data_ptr<float>() : nullptr, dn,
                 sum.const_data_ptr<float>(), w.const_data_ptr<float>(), mean.const_data_ptr<float>(),
                 rstd.const_data_ptr<float>(), dxp, d_residual.mutable_data_ptr<float>(),
                 dw.mutable_data_ptr<float>() + t * n, db.mutable_data_ptr<float>() + t * n, scratch.data(),
                 t * kNormRows, std::min(rows, (t + 1) * kNormRows), n, seed, threshold, inv_keep, pre_norm);
        };
        if (bf16)
          run(norm_backward_bf16,
              d_normed.defined() ? static_cast<const uint16_t*>(d_normed.const_data_ptr()) : nullptr,
              static_cast<uint16_t*>(dx.mutable_data_ptr()));
        else
          run(norm_backward_f32, d_normed.defined() ? d_normed.const_data_ptr<float>() : nullptr,
              dx.mutable_data_ptr<float>());
      }
    });
    return {dx,       d_residual, dw.sum(0), ctx->saved_data["bias"].toBool() ? db.sum(0) : Tensor(),
            Tensor(), Tensor(),   Tensor()};
  }
};

std::pair<Tensor, Tensor> composite(const Tensor& x, const Tensor& residual, const Tensor& w, const Tensor& b,
                                    double eps, double p, bool pre_norm) {
  auto sum = residual + (p > 0 ? at::dropout(x, p, true) : x).to(residual.scalar_type());
  auto y = at::layer_norm(sum, {sum.size(-1)}, w, b, eps);
  return {pre_norm ? sum : y, y.to(x.scalar_type())};
}

}  // namespace
}  // namespace ragduet

// b may be null. x: [.., n] f32 or bf16; residual: same shape, f32.
extern "C" int rd_dropout_add_layer_norm(Tensor* x, Tensor* residual, Tensor* w, Tensor* b, double eps, double p,
                                         int pre_norm, Tensor** carry, Tensor** normed) {
  return ragduet::guarded([&] {
    TORCH_CHECK(x->sizes() == residual->sizes(), "dropout_add_layer_norm: x is ", x->sizes(),
                " but the residual is ", residual->sizes());
    auto bias = b ? *b : Tensor();
    auto type = x->scalar_type();
    bool fused = x->device().is_cpu() && residual->scalar_type() == at::kFloat &&
                 w->scalar_type() == at::kFloat && w->is_contiguous() &&
                 (!bias.defined() || (bias.scalar_type() == at::kFloat && bias.is_contiguous())) &&
                 (type == at::kFloat || type == at::kBFloat16);
    if (fused) {
      // Autograd functions take no undefined inputs: no bias is an empty one.
      auto given = bias.defined() ? bias : at::empty({0}, w->options());
      auto out = ragduet::DropoutAddNorm::apply(*x, *residual, *w, given, eps, p, pre_norm != 0);
      *carry = new Tensor(out[0]);
      *normed = new Tensor(out[1]);
    } else {
      auto [c, n] = ragduet::composite(*x, *residual, *w, bias, eps, p, pre_norm != 0);
      *carry = new Tensor(c);
      *normed = new Tensor(n);
    }
  });
}

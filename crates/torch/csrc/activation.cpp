// GELU (the exact, erf form) on the CPU in f32 and bf16. One exponential serves erf and its derivative
// (Abramowitz and Stegun 7.1.26, absolute error 1.5e-7), which ATen computes with two slower calls.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/gelu.h>

#include "kernels.h"
#include "skinny.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

// The normal distribution function at x, and exp(-x*x/2).
RD_INLINE float normal_cdf(float x, float* bell) {
  float z = __builtin_fabsf(x) * 0.70710678118654752f;
  z = z < 9.0f ? z : 9.0f;  // the tail is 0 long before; keeps the square finite
  float e = fast_exp(-z * z);
  float t = 1.0f / (1.0f + 0.3275911f * z);
  float poly = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
  float tail = 0.5f * poly * e;
  *bell = e;
  return x >= 0.0f ? 1.0f - tail : tail;
}

template <typename T>
RD_INLINE void gelu_range(const T* x, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float v = load<T>(x[i]), bell;
    y[i] = store<T>(v * normal_cdf(v, &bell));
  }
}

template <typename T>
RD_INLINE void gelu_backward_range(const T* x, const T* dy, T* dx, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float v = load<T>(x[i]), bell;
    float cdf = normal_cdf(v, &bell);
    dx[i] = store<T>(load<T>(dy[i]) * (cdf + v * bell * 0.39894228040143268f));
  }
}

RD_CLONES void gelu_f32(const float* x, float* y, int64_t n) { gelu_range<float>(x, y, n); }
RD_CLONES void gelu_bf16(const uint16_t* x, uint16_t* y, int64_t n) { gelu_range<uint16_t>(x, y, n); }
RD_CLONES void gelu_backward_f32(const float* x, const float* dy, float* dx, int64_t n) {
  gelu_backward_range<float>(x, dy, dx, n);
}
RD_CLONES void gelu_backward_bf16(const uint16_t* x, const uint16_t* dy, uint16_t* dx, int64_t n) {
  gelu_backward_range<uint16_t>(x, dy, dx, n);
}

constexpr int64_t kGeluGrain = 1 << 14;

struct Gelu : torch::autograd::Function<Gelu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x_in) {
    auto x = x_in.contiguous();
    auto y = at::empty_like(x);
    const bool bf16 = x.scalar_type() == at::kBFloat16;
    at::parallel_for(0, x.numel(), kGeluGrain, [&](int64_t from, int64_t to) {
      if (bf16)
        gelu_bf16(static_cast<const uint16_t*>(x.const_data_ptr()) + from,
                  static_cast<uint16_t*>(y.mutable_data_ptr()) + from, to - from);
      else
        gelu_f32(x.const_data_ptr<float>() + from, y.mutable_data_ptr<float>() + from, to - from);
    });
    ctx->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto x = ctx->get_saved_variables()[0];
    auto dy = grads[0].contiguous();
    auto dx = at::empty_like(x);
    const bool bf16 = x.scalar_type() == at::kBFloat16;
    at::parallel_for(0, x.numel(), kGeluGrain, [&](int64_t from, int64_t to) {
      if (bf16)
        gelu_backward_bf16(static_cast<const uint16_t*>(x.const_data_ptr()) + from,
                           static_cast<const uint16_t*>(dy.const_data_ptr()) + from,
                           static_cast<uint16_t*>(dx.mutable_data_ptr()) + from, to - from);
      else
        gelu_backward_f32(x.const_data_ptr<float>() + from, dy.const_data_ptr<float>() + from,
                          dx.mutable_data_ptr<float>() + from, to - from);
    });
    return {dx};
  }
};

}  // namespace
}  // namespace ragduet

extern "C" int rd_gelu(Tensor* x, Tensor** out) {
  return ragduet::guarded([&] {
    auto type = x->scalar_type();
    bool ours = x->device().is_cpu() && (type == at::kFloat || type == at::kBFloat16);
    *out = new Tensor(ours ? ragduet::Gelu::apply(*x) : at::gelu(*x));
  });
}

namespace {

// Whether oneDNN has products of this dtype on this CPU; of bf16 it has none below AVX-512.
bool onednn_multiplies(at::ScalarType type) {
#if defined(__x86_64__)
  static const bool bf16 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                           __builtin_cpu_supports("avx512dq");
  return type == at::kFloat || (type == at::kBFloat16 && bf16);
#else
  return type == at::kFloat;
#endif
}

}  // namespace

// gelu(x w^T + b) in one product with oneDNN's epilogue, where no gradient is wanted (CPU).
extern "C" int rd_linear_gelu(Tensor* x, Tensor* w, Tensor* b, Tensor** out) {
  return ragduet::guarded([&] {
    if (ragduet::skinny_fits(*x, *w) && x->size(1) == w->size(1)) {
      auto y = ragduet::skinny_linear(x->contiguous(), *w, b ? *b : Tensor(), false);
      *out = new Tensor(ragduet::Gelu::apply(y));
      return;
    }
    if (!onednn_multiplies(x->scalar_type())) {
      *out = new Tensor(ragduet::Gelu::apply(at::linear(*x, *w, b ? std::optional<Tensor>(*b) : std::nullopt)));
      return;
    }
    static auto op = c10::Dispatcher::singleton()
                         .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                         .typed<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view,
                                       c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>();
    c10::List<std::optional<at::Scalar>> none;
    *out = new Tensor(op.call(*x, *w, b ? std::optional<Tensor>(*b) : std::nullopt, "gelu", none, "none"));
  });
}

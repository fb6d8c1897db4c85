// silu(gate) * up of joined rows [.., 2n], gate first (Shazeer, 2020, arXiv 2002.05202): one pass on the CPU.
#include <ATen/Parallel.h>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

RD_INLINE float sigmoid(float x) {
  // fast_exp holds its exponent within f32's; past 87 the quotient is 0 or 1 anyhow.
  return 1.0f / (1.0f + fast_exp(-x));
}

template <typename T>
RD_INLINE void forward_row(const T* gate, const T* up, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float g = load<T>(gate[i]);
    y[i] = store<T>(g * sigmoid(g) * load<T>(up[i]));
  }
}

template <typename T>
RD_INLINE void backward_row(const T* gate, const T* up, const T* dy, T* d_gate, T* d_up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float g = load<T>(gate[i]), u = load<T>(up[i]), d = load<T>(dy[i]), s = sigmoid(g);
    d_up[i] = store<T>(d * g * s);
    d_gate[i] = store<T>(d * u * s * (1.0f + g * (1.0f - s)));
  }
}

#define RD_SWIGLU(SUFFIX, T)                                                                                       \
  RD_CLONES void swiglu_##SUFFIX(const T* x, T* y, int64_t n, int64_t from, int64_t to) {                          \
    for (int64_t i = from; i < to; ++i) forward_row<T>(x + 2 * i * n, x + (2 * i + 1) * n, y + i * n, n);          \
  }                                                                                                                \
  RD_CLONES void swiglu_backward_##SUFFIX(const T* x, const T* dy, T* dx, int64_t n, int64_t from, int64_t to) {   \
    for (int64_t i = from; i < to; ++i)                                                                            \
      backward_row<T>(x + 2 * i * n, x + (2 * i + 1) * n, dy + i * n, dx + 2 * i * n, dx + (2 * i + 1) * n, n);    \
  }
RD_SWIGLU(f32, float)
RD_SWIGLU(bf16, uint16_t)

int64_t grain(int64_t n) { return std::max<int64_t>(1, 8192 / std::max<int64_t>(1, n)); }

Tensor forward_pass(const Tensor& x) {
  auto sizes = x.sizes().vec();
  const int64_t n = sizes.back() /= 2, rows = n ? x.numel() / (2 * n) : 0;
  auto y = at::empty(sizes, x.options());
  at::parallel_for(0, rows, grain(n), [&](int64_t from, int64_t to) {
    if (x.scalar_type() == at::kBFloat16)
      swiglu_bf16(static_cast<const uint16_t*>(x.const_data_ptr()), static_cast<uint16_t*>(y.mutable_data_ptr()), n,
                  from, to);
    else
      swiglu_f32(x.const_data_ptr<float>(), y.mutable_data_ptr<float>(), n, from, to);
  });
  return y;
}

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x_in) {
    auto x = x_in.contiguous();
    ctx->save_for_backward({x});
    return forward_pass(x);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto x = ctx->get_saved_variables()[0];
    auto dy = grads[0].contiguous();
    auto dx = at::empty_like(x);
    const int64_t n = x.size(-1) / 2, rows = n ? x.numel() / (2 * n) : 0;
    at::parallel_for(0, rows, grain(n), [&](int64_t from, int64_t to) {
      if (x.scalar_type() == at::kBFloat16)
        swiglu_backward_bf16(static_cast<const uint16_t*>(x.const_data_ptr()),
                             static_cast<const uint16_t*>(dy.const_data_ptr()),
                             static_cast<uint16_t*>(dx.mutable_data_ptr()), n, from, to);
      else
        swiglu_backward_f32(x.const_data_ptr<float>(), dy.const_data_ptr<float>(), dx.mutable_data_ptr<float>(), n,
                            from, to);
    });
    return {dx};
  }
};

}  // namespace
}  // namespace ragduet

extern "C" int rd_swiglu(Tensor* x, Tensor** out) {
  return ragduet::guarded([&] {
    TORCH_CHECK(x->dim() > 0 && x->size(-1) % 2 == 0, "swiglu: rows of ", x->sizes(), " have no halves");
    const auto type = x->scalar_type();
    if (!x->device().is_cpu() || (type != at::kFloat && type != at::kBFloat16)) {
      auto parts = x->chunk(2, -1);
      *out = new Tensor(at::silu(parts[0]) * parts[1]);
    } else if (at::GradMode::is_enabled()) {
      *out = new Tensor(ragduet::SwiGlu::apply(*x));
    } else {
      *out = new Tensor(ragduet::forward_pass(x->contiguous()));
    }
  });
}

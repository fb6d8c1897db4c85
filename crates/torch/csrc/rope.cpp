// Rotary positions (Su et al., 2021, arXiv 2104.09864): of each head's first 2n numbers, i is paired with i + n and the
// pair turned by the token's angle; the rest passes. f32 arithmetic.
//
// split: a joined projection [tokens, heads + 2 kv_heads, head_dim] to turned q, turned k and v, one pass; its backward
// turns back and writes the joined gradient at once. Where no gradient is wanted it is done in place.
#include <ATen/Parallel.h>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

// A [tokens, heads, d] tensor whose heads are contiguous.
template <typename T>
struct Heads {
  T* data;
  int64_t token, head;
  RD_INLINE T* at(int64_t t, int64_t h) const { return data + t * token + h * head; }
};

// from and to may be the same. sign -1 turns back. n = 0 copies.
template <typename T>
RD_INLINE void turn(const T* from, T* to, const float* cos, const float* sin, float sign, int64_t n, int64_t d) {
  for (int64_t i = 0; i < n; ++i) {
    const float a = load<T>(from[i]), b = load<T>(from[i + n]), c = cos[i], s = sign * sin[i];
    to[i] = store<T>(a * c - b * s);
    to[i + n] = store<T>(b * c + a * s);
  }
  if (from != to)
    for (int64_t i = 2 * n; i < d; ++i) to[i] = from[i];
}

#define RD_ROPE(SUFFIX, T)                                                                                      \
  RD_CLONES void turn_##SUFFIX(Heads<const T> from, Heads<T> to, const float* cos, const float* sin, float sign, \
                               int64_t n, int64_t d, int64_t heads, int64_t first, int64_t last) {              \
    for (int64_t t = first; t < last; ++t)                                                                      \
      for (int64_t h = 0; h < heads; ++h)                                                                       \
        turn<T>(from.at(t, h), to.at(t, h), cos + t * n, sin + t * n, sign, n, d);                              \
  }
RD_ROPE(f32, float)
RD_ROPE(bf16, uint16_t)

// Heads of `from` to `to`, both [tokens, heads, d] with contiguous heads. Undefined angles copy.
void run(const Tensor& from, const Tensor& to, const Tensor& cos, const Tensor& sin, float sign) {
  const int64_t tokens = from.size(0), heads = from.size(1), d = from.size(2), n = cos.defined() ? cos.size(1) : 0;
  const auto* c = n ? cos.const_data_ptr<float>() : nullptr;
  const auto* s = n ? sin.const_data_ptr<float>() : nullptr;
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, heads * d));
  at::parallel_for(0, tokens, grain, [&](int64_t first, int64_t last) {
    if (from.scalar_type() == at::kBFloat16)
      turn_bf16({static_cast<const uint16_t*>(from.const_data_ptr()), from.stride(0), from.stride(1)},
                {static_cast<uint16_t*>(to.mutable_data_ptr()), to.stride(0), to.stride(1)}, c, s, sign, n, d, heads,
                first, last);
    else
      turn_f32({from.const_data_ptr<float>(), from.stride(0), from.stride(1)},
               {to.mutable_data_ptr<float>(), to.stride(0), to.stride(1)}, c, s, sign, n, d, heads, first, last);
  });
}

Tensor with_whole_heads(const Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

struct Rope : torch::autograd::Function<Rope> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin) {
    auto out = at::empty(x.sizes(), x.options());
    run(with_whole_heads(x), out, cos, sin, 1.0f);
    ctx->save_for_backward({cos, sin});
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    auto dx = at::empty(grads[0].sizes(), grads[0].options());
    run(with_whole_heads(grads[0]), dx, s[0], s[1], -1.0f);
    return {dx, Tensor(), Tensor()};
  }
};

struct Split : torch::autograd::Function<Split> {
  static variable_list forward(AutogradContext* ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin,
                               int64_t heads, int64_t kv_heads) {
    const int64_t tokens = qkv.size(0), d = qkv.size(2), sizes[] = {heads, kv_heads, kv_heads};
    variable_list out;
    int64_t at = 0;
    for (int i = 0; i < 3; ++i) {
      out.push_back(at::empty({tokens, sizes[i], d}, qkv.options()));
      run(qkv.narrow(1, at, sizes[i]), out[i], i < 2 ? cos : Tensor(), i < 2 ? sin : Tensor(), 1.0f);
      at += sizes[i];
    }
    ctx->save_for_backward({cos, sin});
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto s = ctx->get_saved_variables();
    const int64_t d = grads[0].size(2);
    auto dx = at::empty({grads[0].size(0), grads[0].size(1) + 2 * grads[1].size(1), d}, grads[0].options());
    int64_t at = 0;
    for (int i = 0; i < 3; ++i) {
      run(with_whole_heads(grads[i]), dx.narrow(1, at, grads[i].size(1)), i < 2 ? s[0] : Tensor(),
          i < 2 ? s[1] : Tensor(), -1.0f);
      at += grads[i].size(1);
    }
    return {dx, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Tensor composite(const Tensor& x, const Tensor& cos_in, const Tensor& sin_in) {
  const int64_t n = cos_in.size(1), d = x.size(2);
  auto cos = cos_in.unsqueeze(1), sin = sin_in.unsqueeze(1);
  auto a = x.narrow(2, 0, n).to(at::kFloat), b = x.narrow(2, n, n).to(at::kFloat);
  return at::cat({(a * cos - b * sin).to(x.scalar_type()), (b * cos + a * sin).to(x.scalar_type()),
                  x.narrow(2, 2 * n, d - 2 * n)},
                 2);
}

bool fused(const Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

void check(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  TORCH_CHECK(x.dim() == 3 && cos.dim() == 2 && cos.size(0) == x.size(0) && cos.sizes() == sin.sizes() &&
                  2 * cos.size(1) <= x.size(2) && cos.scalar_type() == at::kFloat &&
                  sin.scalar_type() == at::kFloat,
              "rope: x is ", x.sizes(), ", cos ", cos.sizes(), ", sin ", sin.sizes());
}

}  // namespace
}  // namespace ragduet

// x [tokens, heads, d], cos and sin [tokens, n] f32.
extern "C" int rd_rope(Tensor* x, Tensor* cos, Tensor* sin, Tensor** out) {
  return ragduet::guarded([&] {
    ragduet::check(*x, *cos, *sin);
    *out = new Tensor(ragduet::fused(*x) ? ragduet::Rope::apply(*x, cos->contiguous(), sin->contiguous())
                                         : ragduet::composite(*x, *cos, *sin));
  });
}

// qkv [tokens, heads + 2 kv_heads, d], contiguous.
extern "C" int rd_rope_split(Tensor* qkv, Tensor* cos, Tensor* sin, int64_t heads, int64_t kv_heads, Tensor** q,
                             Tensor** k, Tensor** v) {
  return ragduet::guarded([&] {
    ragduet::check(*qkv, *cos, *sin);
    TORCH_CHECK(qkv->size(1) == heads + 2 * kv_heads, "rope_split: ", qkv->sizes(), " is not ", heads, " + 2 x ",
                kv_heads, " heads");
    const bool fused = ragduet::fused(*qkv) && qkv->is_contiguous();
    if (fused && at::GradMode::is_enabled()) {
      auto out = ragduet::Split::apply(*qkv, cos->contiguous(), sin->contiguous(), heads, kv_heads);
      *q = new Tensor(out[0]);
      *k = new Tensor(out[1]);
      *v = new Tensor(out[2]);
      return;
    }
    auto turned = qkv->narrow(1, 0, heads + kv_heads);
    if (fused)
      ragduet::run(turned, turned, cos->contiguous(), sin->contiguous(), 1.0f);
    else
      turned = ragduet::composite(turned, *cos, *sin);
    *q = new Tensor(turned.narrow(1, 0, heads));
    *k = new Tensor(turned.narrow(1, heads, kv_heads));
    *v = new Tensor(qkv->narrow(1, heads + kv_heads, kv_heads));
  });
}

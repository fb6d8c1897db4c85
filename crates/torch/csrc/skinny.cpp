// x w^T + b for few rows, as decoding has them: the weights are read once, in the order in which they lie. Libraries
// first bring them into an order of their own, which pays off only for many rows.
//
// Blocks of outputs and rows are kept in registers, 16 numbers of f32 wide. bf16 is widened on the way; where the CPU
// has bf16 tiles, see tiles.cpp. Sums are made in f32.
#include "skinny.h"

#include <ATen/Parallel.h>
#include <ATen/ops/linear.h>

#include "kernels.h"

using at::Tensor;

namespace ragduet {
namespace {

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef float LanesAnywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t HalvesAnywhere __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(64)));

RD_INLINE Lanes lanes(const float* p) { return *reinterpret_cast<const LanesAnywhere*>(p); }
RD_INLINE Lanes lanes(const uint16_t* p) {
  Words wide = __builtin_convertvector(*reinterpret_cast<const HalvesAnywhere*>(p), Words) << 16;
  return reinterpret_cast<Lanes>(wide);
}

// The two halves of a vector.
template <typename Half, typename Whole>
RD_INLINE Half folded(const Whole& v) {
  Half low, high;
  __builtin_memcpy(&low, &v, sizeof(Half));
  __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof(Half), sizeof(Half));
  return low + high;
}

RD_INLINE float sum(Lanes v) {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
  auto four = folded<Four>(folded<Eight>(v));
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// y[r * ldy + o] for O outputs and R rows.
template <int O, int R, typename T>
RD_INLINE void block(const T* w, const float* x, float* y, int64_t k, int64_t ldy) {
  Lanes acc[O][R] = {};
  int64_t j = 0;
  for (; j + kLanes <= k; j += kLanes) {
    Lanes xs[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) xs[r] = lanes(x + r * k + j);
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) {
      Lanes ws = lanes(w + o * k + j);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[o][r] += ws * xs[r];
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      float rest = 0.0f;
      for (int64_t i = j; i < k; ++i) rest += load<T>(w[o * k + i]) * x[r * k + i];
      y[r * ldy + o] = sum(acc[o][r]) + rest;
    }
  }
}

template <int O, typename T>
RD_INLINE void rows_of(const T* w, const float* x, float* y, int64_t rows, int64_t k, int64_t ldy) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) block<O, 4>(w, x + r * k, y + r * ldy, k, ldy);
  switch (rows - r) {
    case 3: return block<O, 3>(w, x + r * k, y + r * ldy, k, ldy);
    case 2: return block<O, 2>(w, x + r * k, y + r * ldy, k, ldy);
    case 1: return block<O, 1>(w, x + r * k, y + r * ldy, k, ldy);
    default: return;
  }
}

// Outputs from..to of all rows; y is [rows, ldy].
template <typename T>
RD_INLINE void outputs_of(const T* w, const float* x, float* y, int64_t rows, int64_t k, int64_t ldy, int64_t from,
                          int64_t to) {
  int64_t o = from;
  for (; o + 4 <= to; o += 4) rows_of<4>(w + o * k, x, y + o, rows, k, ldy);
  for (; o < to; ++o) rows_of<1>(w + o * k, x, y + o, rows, k, ldy);
}

RD_CLONES void skinny_f32(const float* w, const float* x, float* y, int64_t rows, int64_t k, int64_t ldy, int64_t from,
                          int64_t to) {
  outputs_of(w, x, y, rows, k, ldy, from, to);
}
RD_CLONES void skinny_bf16(const uint16_t* w, const float* x, float* y, int64_t rows, int64_t k, int64_t ldy,
                           int64_t from, int64_t to) {
  outputs_of(w, x, y, rows, k, ldy, from, to);
}

RD_CLONES void widen(const uint16_t* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = bf16_to_float(x[i]);
}
RD_CLONES void narrow(const float* x, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = float_to_bf16(x[i]);
}
RD_CLONES void add(float* y, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += b[i];
}

// More rows are as fast or faster in ATen: benches/products.rs on Sapphire Rapids. The tiles take up to 64.
constexpr int64_t kMostRows = 16, kMostRowsOfTiles = 32;
// Outputs of a task, and below how many weights a second thread costs more than it brings.
constexpr int64_t kOutputs = 64, kOutputGrain = 1 << 15;

}  // namespace

Tensor skinny_linear(const Tensor& x, const Tensor& w, const Tensor& b, bool wide) {
  const int64_t rows = x.size(0), k = x.size(1), n = w.size(0);
  const bool bf16 = x.scalar_type() == at::kBFloat16;
  const bool tiled = bf16 && k % 32 == 0 && n >= 16 && has_tiles();
  const auto f32 = x.options().dtype(at::kFloat);
  auto y = at::empty({rows, n}, f32);
  auto* out = y.mutable_data_ptr<float>();
  std::vector<uint32_t> packed;
  std::vector<float> widened;
  const float* xf = nullptr;
  if (tiled) {
    packed = pack_rows(static_cast<const uint16_t*>(x.const_data_ptr()), rows, k);
  }
  if (bf16 && (!tiled || n % 16 != 0)) {
    widened.resize(rows * k);
    widen(static_cast<const uint16_t*>(x.const_data_ptr()), widened.data(), rows * k);
    xf = widened.data();
  } else if (!bf16) {
    xf = x.const_data_ptr<float>();
  }
  auto wide_bias = b.defined() ? b.to(at::kFloat).contiguous() : Tensor();
  const float* bias = b.defined() ? wide_bias.const_data_ptr<float>() : nullptr;
  auto low = bf16 && !wide ? at::empty({rows, n}, x.options()) : Tensor();
  auto* low_out = low.defined() ? static_cast<uint16_t*>(low.mutable_data_ptr()) : nullptr;
  const int64_t tasks = (n + kOutputs - 1) / kOutputs;
  at::parallel_for(0, tasks, std::max<int64_t>(1, kOutputGrain / (kOutputs * k)), [&](int64_t first, int64_t last) {
    int64_t from = first * kOutputs, to = std::min(n, last * kOutputs);
    if (tiled) {
      const int64_t whole = from + (to - from) / 16 * 16;
      tiles_linear(static_cast<const uint16_t*>(w.const_data_ptr()), packed.data(), out, rows, k, n, from, whole);
      from = whole;
    }
    if (bf16)
      skinny_bf16(static_cast<const uint16_t*>(w.const_data_ptr()), xf, out, rows, k, n, from, to);
    else
      skinny_f32(w.const_data_ptr<float>(), xf, out, rows, k, n, from, to);
    from = first * kOutputs;
    for (int64_t r = 0; r < rows && (bias || low_out); ++r) {
      if (bias) add(out + r * n + from, bias + from, to - from);
      if (low_out) narrow(out + r * n + from, low_out + r * n + from, to - from);
    }
  });
  return low.defined() ? low : y;
}

bool skinny_fits(const Tensor& x, const Tensor& w) {
  const auto type = x.scalar_type();
  if (!(x.device().is_cpu() && x.dim() == 2 && w.scalar_type() == type && w.is_contiguous())) return false;
  if (type == at::kBFloat16 && has_tiles() && x.size(1) % 32 == 0) return x.size(0) <= kMostRowsOfTiles;
  return (type == at::kFloat || type == at::kBFloat16) && x.size(0) <= kMostRows;
}

}  // namespace ragduet

// x [.., in] and w [out, in] of one dtype, b [out] or null. wide: the result in f32, else in x's dtype.
extern "C" int rd_linear(Tensor* x, Tensor* w, Tensor* b, int wide, Tensor** out) {
  return ragduet::guarded([&] {
    auto bias = b ? *b : Tensor();
    if (!at::GradMode::is_enabled() && ragduet::skinny_fits(*x, *w)) {
      TORCH_CHECK(x->size(1) == w->size(1), "linear: x is ", x->sizes(), " but the weight is ", w->sizes());
      *out = new Tensor(ragduet::skinny_linear(x->contiguous(), *w, bias, wide != 0));
      return;
    }
    auto y = at::linear(*x, *w, bias);
    *out = new Tensor(wide ? y.to(at::kFloat) : y);
  });
}

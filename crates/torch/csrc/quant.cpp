// Frozen weights in 8 and 4 bits, and products with them. The backward pass makes the weight again from its codes.
//
// 4 bits: NF4 of QLoRA (Dettmers et al., 2023, arXiv 2305.14314, appendix E). Numbers as they lie, in blocks of 64 with
// their largest magnitude; those scales, less their mean, in 8 bits of the dynamic data type (Dettmers et al., 2021,
// arXiv 2110.02861) in blocks of 256. Two codes a byte, the first in the high half, as bitsandbytes lays them.
// 8 bits: each row by its largest magnitude.
#include <ATen/Parallel.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <mutex>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

constexpr int64_t kBlock = 64, kNested = 256;

constexpr int kLevels = 16;
constexpr float kNf4[kLevels] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// The dynamic data type of 8 bits, sorted: seven decades, each with twice as many steps as the one below; 0 and 1.
const std::array<float, 256>& dynamic_map() {
  static const auto map = [] {
    std::array<float, 256> all{};
    size_t n = 0;
    for (int decade = 0; decade < 7; ++decade) {
      const int steps = (1 << decade) + 1;
      const float step = (1.0f - 0.1f) / static_cast<float>(steps - 1);
      // From both ends, as torch.linspace counts.
      auto border = [&](int i) {
        return i < steps / 2 ? 0.1f + step * static_cast<float>(i) : 1.0f - step * static_cast<float>(steps - 1 - i);
      };
      const auto scale = static_cast<float>(std::pow(10.0, decade - 6));
      for (int i = 0; i + 1 < steps; ++i) {
        const float middle = scale * ((border(i) + border(i + 1)) / 2.0f);
        all[n++] = middle;
        all[n++] = -middle;
      }
    }
    all[n++] = 0.0f;
    all[n++] = 1.0f;
    std::sort(all.begin(), all.end());
    return all;
  }();
  return map;
}

uint8_t nearest(float x) {
  const auto& map = dynamic_map();
  auto above = std::lower_bound(map.begin(), map.end(), x);
  if (above == map.begin()) return 0;
  if (above == map.end()) return 255;
  auto below = above - 1;
  return static_cast<uint8_t>((x - *below <= *above - x ? below : above) - map.begin());
}

// Codes of one block, unpacked; `scale` is 1 / absmax, or absmax itself with `divide`.
RD_CLONES void nf4_codes(const float* __restrict x, uint8_t* __restrict codes, int64_t n, float scale, bool divide) {
  float bounds[kLevels - 1];
  for (int k = 0; k < kLevels - 1; ++k) bounds[k] = (kNf4[k] + kNf4[k + 1]) / 2.0f;
  float v[kBlock];
  for (int64_t i = 0; i < n; ++i) v[i] = divide ? x[i] / scale : x[i] * scale;
  for (int64_t i = 0; i < n; ++i) {
    int32_t code = 0;
    for (int k = 0; k < kLevels - 1; ++k) code += v[i] > bounds[k];
    codes[i] = static_cast<uint8_t>(code);
  }
}

RD_CLONES float largest(const float* x, int64_t n) {
  float most = 0.0f;
  RD_REDUCE(max : most)
  for (int64_t i = 0; i < n; ++i) {
    float v = __builtin_fabsf(x[i]);
    most = v > most ? v : most;
  }
  return most;
}

RD_CLONES void int8_codes(const float* __restrict x, int8_t* __restrict codes, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(__builtin_rintf(x[i] * scale));
}

template <typename T>
RD_INLINE void int8_values(const int8_t* __restrict codes, T* __restrict out, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) out[i] = store<T>(static_cast<float>(codes[i]) * scale);
}
RD_CLONES void int8_row(const int8_t* codes, float* out, int64_t n, float scale) {
  int8_values<float>(codes, out, n, scale);
}
RD_CLONES void int8_row(const int8_t* codes, uint16_t* out, int64_t n, float scale) {
  int8_values<uint16_t>(codes, out, n, scale);
}

// Whole blocks. With vectors the 16 levels are one register, and a look-up is a permutation of it.
#if defined(__GNUC__) && !defined(__clang__)
typedef float Lanes __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint32_t WordsAnywhere __attribute__((vector_size(64), aligned(2), may_alias));
typedef float LanesAnywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t BytesAnywhere __attribute__((vector_size(16), aligned(1), may_alias));

RD_INLINE void put(uint16_t* out, Lanes first, Lanes second) {
  auto a = reinterpret_cast<Words>(first), b = reinterpret_cast<Words>(second);
  a = (a + 0x7FFFu + ((a >> 16) & 1u)) >> 16;
  b = (b + 0x7FFFu + ((b >> 16) & 1u)) & 0xFFFF0000u;
  *reinterpret_cast<WordsAnywhere*>(out) = a | b;
}
RD_INLINE void put(float* out, Lanes first, Lanes second) {
  const Words low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  *reinterpret_cast<LanesAnywhere*>(out) = __builtin_shuffle(first, second, low);
  *reinterpret_cast<LanesAnywhere*>(out + 16) = __builtin_shuffle(first, second, low + 8u);
}

template <typename T>
RD_INLINE void nf4_values(const uint8_t* codes, const float* scales, T* out, int64_t blocks) {
  Lanes levels;
  __builtin_memcpy(&levels, kNf4, sizeof levels);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t half = 0; half < 2; ++half) {
      const auto bytes = *reinterpret_cast<const BytesAnywhere*>(codes + b * kBlock / 2 + half * 16);
      const Words pairs = __builtin_convertvector(bytes, Words);
      put(out + b * kBlock + half * 32, __builtin_shuffle(levels, pairs >> 4) * scales[b],
          __builtin_shuffle(levels, pairs & 15u) * scales[b]);
    }
  }
}
#else
template <typename T>
RD_INLINE void nf4_values(const uint8_t* codes, const float* scales, T* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      const uint8_t pair = codes[b * kBlock / 2 + i];
      out[b * kBlock + 2 * i] = store<T>(kNf4[pair >> 4] * scales[b]);
      out[b * kBlock + 2 * i + 1] = store<T>(kNf4[pair & 15] * scales[b]);
    }
  }
}
#endif
RD_CLONES void nf4_blocks(const uint8_t* codes, const float* scales, float* out, int64_t blocks) {
  nf4_values<float>(codes, scales, out, blocks);
}
RD_CLONES void nf4_blocks(const uint8_t* codes, const float* scales, uint16_t* out, int64_t blocks) {
  nf4_values<uint16_t>(codes, scales, out, blocks);
}

constexpr int64_t kBlockGrain = 1 << 14;

// A weight [rows, columns]. NF4: codes [blocks * 32] of u8, scales [blocks] of u8, nested [blocks / 256] of f32.
// Int8: codes [rows * columns] of i8, scales [rows] of f32 (absmax / 127), no nested.
struct Part {
  Tensor codes, scales, nested;
  double offset;
  int64_t rows;
};

template <typename T>
void dequantise_cpu(const Part& p, int64_t columns, T* out) {
  if (!p.nested.defined()) {
    const auto* codes = p.codes.const_data_ptr<int8_t>();
    const auto* scales = p.scales.const_data_ptr<float>();
    at::parallel_for(0, p.rows, std::max<int64_t>(1, kBlockGrain / std::max<int64_t>(columns, 1)),
                     [&](int64_t from, int64_t to) {
                       for (int64_t r = from; r < to; ++r)
                         int8_row(codes + r * columns, out + r * columns, columns, scales[r]);
                     });
    return;
  }
  const int64_t n = p.rows * columns, whole = n / kBlock, blocks = p.scales.numel();
  const auto* codes = p.codes.const_data_ptr<uint8_t>();
  const auto* scale_codes = p.scales.const_data_ptr<uint8_t>();
  const auto* nested = p.nested.const_data_ptr<float>();
  const auto offset = static_cast<float>(p.offset);
  const auto& map = dynamic_map();
  auto scale = [&](int64_t b) { return map[scale_codes[b]] * nested[b / kNested] + offset; };
  at::parallel_for(0, whole, kBlockGrain / kBlock, [&](int64_t from, int64_t to) {
    float scales[kNested];
    for (int64_t b = from; b < to; b += kNested) {
      const int64_t some = std::min(kNested, to - b);
      for (int64_t i = 0; i < some; ++i) scales[i] = scale(b + i);
      nf4_blocks(codes + b * kBlock / 2, scales, out + b * kBlock, some);
    }
  });
  if (whole < blocks) {
    T last[kBlock];
    const float s = scale(whole);
    nf4_blocks(codes + whole * kBlock / 2, &s, last, 1);
    std::copy(last, last + (n - whole * kBlock), out + whole * kBlock);
  }
}

// Tables on a device. Never freed: at the end of the process the device may be gone before them.
struct Tables {
  Tensor pairs, map;
};
Tables tables_on(at::Device device) {
  static std::mutex mutex;
  static auto* made = new std::map<std::string, Tables>;
  std::lock_guard<std::mutex> lock(mutex);
  auto& t = (*made)[device.str()];
  if (!t.map.defined()) {
    auto pairs = at::empty({256, 2}, at::kFloat);
    auto* p = pairs.mutable_data_ptr<float>();
    for (int i = 0; i < 256; ++i) {
      p[2 * i] = kNf4[i >> 4];
      p[2 * i + 1] = kNf4[i & 15];
    }
    auto map = at::empty({256}, at::kFloat);
    std::copy(dynamic_map().begin(), dynamic_map().end(), map.mutable_data_ptr<float>());
    t = {pairs.to(device), map.to(device)};
  }
  return t;
}

// As dequantise_cpu, by operators of ATen; out is [rows, columns].
void dequantise_aten(const Part& p, int64_t columns, const Tensor& out) {
  if (!p.nested.defined()) {
    out.copy_(p.codes.view({p.rows, columns}).to(at::kFloat) * p.scales.unsqueeze(1));
    return;
  }
  const auto tables = tables_on(p.codes.device());
  const int64_t n = p.rows * columns, blocks = p.scales.numel(), groups = p.nested.numel();
  auto scales = tables.map.index_select(0, p.scales.to(at::kInt));
  scales = at::constant_pad_nd(scales, {0, groups * kNested - blocks}).view({groups, kNested});
  scales = (scales * p.nested.unsqueeze(1)).view({-1}).narrow(0, 0, blocks) + p.offset;
  auto flat = out.view({-1});
  // In parts: an index and a wide value take eight times what the result takes.
  constexpr int64_t kPart = 1 << 18;
  for (int64_t b = 0; b < blocks; b += kPart) {
    const int64_t some = std::min(kPart, blocks - b);
    auto codes = p.codes.narrow(0, b * kBlock / 2, some * kBlock / 2).to(at::kInt);
    auto values = tables.pairs.index_select(0, codes).view({some, kBlock}) * scales.narrow(0, b, some).unsqueeze(1);
    const int64_t wanted = std::min(some * kBlock, n - b * kBlock);
    flat.narrow(0, b * kBlock, wanted).copy_(values.view({-1}).narrow(0, 0, wanted));
  }
}

// Lives as long as the graph.
struct Parts : torch::CustomClassHolder {
  std::vector<Part> list;
  int64_t columns = 0;

  // One below the other, [rows of all, columns].
  Tensor dequantise(at::ScalarType type, bool plain) const {
    int64_t rows = 0;
    for (const auto& p : list) rows += p.rows;
    const auto device = list.at(0).codes.device();
    auto out = at::empty({rows, columns}, at::TensorOptions(device).dtype(type));
    const bool ours = !plain && device.is_cpu() && (type == at::kFloat || type == at::kBFloat16);
    int64_t at_row = 0;
    for (const auto& p : list) {
      if (!ours)
        dequantise_aten(p, columns, out.narrow(0, at_row, p.rows));
      else if (type == at::kFloat)
        dequantise_cpu(p, columns, out.mutable_data_ptr<float>() + at_row * columns);
      else
        dequantise_cpu(p, columns, static_cast<uint16_t*>(out.mutable_data_ptr()) + at_row * columns);
      at_row += p.rows;
    }
    return out;
  }
};

struct QuantisedLinear : torch::autograd::Function<QuantisedLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& bias,
                        c10::intrusive_ptr<Parts> parts) {
    auto y = at::linear(x, parts->dequantise(x.scalar_type(), false), bias);
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["parts"] = at::IValue::make_capsule(std::move(parts));
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto parts = c10::static_intrusive_pointer_cast<Parts>(ctx->saved_data["parts"].toCapsule());
    const auto& dy = grads[0];
    Tensor dx, db;
    // Where there is no bias the node has one input.
    if (ctx->needs_input_grad(0)) dx = dy.matmul(parts->dequantise(dy.scalar_type(), false));
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(1)) db = dy.reshape({-1, dy.size(-1)}).sum(0);
    return {dx, db, Tensor()};
  }
};

c10::intrusive_ptr<Parts> gather(Tensor* const* codes, Tensor* const* scales, Tensor* const* nested,
                                 const double* offsets, const int64_t* rows, size_t n, int64_t columns) {
  auto parts = c10::make_intrusive<Parts>();
  parts->columns = columns;
  for (size_t i = 0; i < n; ++i)
    parts->list.push_back({*codes[i], *scales[i], nested[i] ? *nested[i] : Tensor(), offsets[i], rows[i]});
  return parts;
}

}  // namespace
}  // namespace ragduet

// w [rows, columns] on the CPU, f32. `nf4`, else int8; nested and offset are of nf4 alone.
extern "C" int rd_quantise(Tensor* w, int nf4, Tensor** codes, Tensor** scales, Tensor** nested, double* offset) {
  using namespace ragduet;
  return guarded([&] {
    auto x = w->detach().contiguous();
    TORCH_CHECK(x.device().is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 2 && x.numel() > 0,
                "quantize: a matrix of f32 on the CPU is wanted, not ", x.toString(), " ", x.sizes());
    const auto* from = x.const_data_ptr<float>();
    const int64_t n = x.numel(), rows = x.size(0), columns = x.size(1);
    auto finite = [](const Tensor& t) {
      TORCH_CHECK(at::isfinite(t).all().item<bool>(), "quantize: the weight has numbers that are not finite");
    };
    if (!nf4) {
      auto c = at::empty({n}, at::kChar);
      auto s = x.abs().amax(1);
      finite(s);
      auto* to = c.mutable_data_ptr<int8_t>();
      const auto* most = s.const_data_ptr<float>();
      for (int64_t r = 0; r < rows; ++r)
        int8_codes(from + r * columns, to + r * columns, columns, most[r] > 0.0f ? 127.0f / most[r] : 0.0f);
      *codes = new Tensor(c);
      *scales = new Tensor(s / 127.0);
      return;
    }
    finite(x.abs().amax(1));
    const int64_t blocks = (n + kBlock - 1) / kBlock;
    auto c = at::zeros({blocks * kBlock / 2}, at::kByte);
    auto s = at::empty({blocks}, at::kFloat);
    auto* to = c.mutable_data_ptr<uint8_t>();
    auto* most = s.mutable_data_ptr<float>();
    at::parallel_for(0, blocks, kBlockGrain / kBlock, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        const int64_t size = std::min(kBlock, n - b * kBlock);
        uint8_t block[kBlock] = {};
        most[b] = largest(from + b * kBlock, size);
        const float safe = std::max(most[b], 1e-38f);
        // A block that is cut short is divided, as bitsandbytes does it: the last bit decides at the borders.
        const bool divide = size < kBlock;
        nf4_codes(from + b * kBlock, block, size, divide ? safe : 1.0f / safe, divide);
        for (int64_t i = 0; i < kBlock / 2; ++i)
          to[b * kBlock / 2 + i] = static_cast<uint8_t>(block[2 * i] << 4 | block[2 * i + 1]);
      }
    });
    const auto mean = s.mean();
    auto rest = s - mean;
    auto sc = at::empty({blocks}, at::kByte);
    auto nest = at::empty({(blocks + kNested - 1) / kNested}, at::kFloat);
    const auto* r = rest.const_data_ptr<float>();
    for (int64_t g = 0; g < nest.numel(); ++g) {
      const int64_t start = g * kNested, size = std::min(kNested, blocks - start);
      const float top = largest(r + start, size);
      nest.mutable_data_ptr<float>()[g] = top;
      const float inverse = top > 0.0f ? 1.0f / top : 0.0f;
      for (int64_t i = 0; i < size; ++i) sc.mutable_data_ptr<uint8_t>()[start + i] = nearest(r[start + i] * inverse);
    }
    *codes = new Tensor(c);
    *scales = new Tensor(sc);
    *nested = new Tensor(nest);
    *offset = mean.item<double>();
  });
}

// Matrices of one number of columns, one below the other. plain: by operators of ATen, as off the CPU. bf16: else f32.
extern "C" int rd_dequantise(Tensor* const* codes, Tensor* const* scales, Tensor* const* nested, const double* offsets,
                             const int64_t* rows, size_t n, int64_t columns, int bf16, int plain, Tensor** out) {
  return ragduet::guarded([&] {
    at::NoGradGuard guard;
    auto parts = ragduet::gather(codes, scales, nested, offsets, rows, n, columns);
    *out = new Tensor(parts->dequantise(bf16 ? at::kBFloat16 : at::kFloat, plain != 0));
  });
}

// x w^T + b in x's dtype, with a gradient for x and b; b may be null.
extern "C" int rd_quantised_linear(Tensor* x, Tensor* b, Tensor* const* codes, Tensor* const* scales,
                                   Tensor* const* nested, const double* offsets, const int64_t* rows, size_t n,
                                   int64_t columns, Tensor** out) {
  return ragduet::guarded([&] {
    auto parts = ragduet::gather(codes, scales, nested, offsets, rows, n, columns);
    *out = new Tensor(ragduet::QuantisedLinear::apply(*x, b ? std::optional<Tensor>(*b) : std::nullopt, std::move(parts)));
  });
}

// Attention of one query row per sequence over its cache, and appending to the cache. The query heads that share a key
// head are computed together, so a cache is read once.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels.h"

using at::Tensor;

namespace ragduet {
namespace {

// scores[j] = scale * q . key j; returns the greatest.
#define RD_CACHED(SUFFIX, T)                                                                                        \
  RD_CLONES float scores_##SUFFIX(const float* __restrict q, const T* __restrict keys, int64_t step, int64_t d,     \
                                  int64_t n, float scale, float* __restrict scores) {                               \
    float top = -std::numeric_limits<float>::infinity();                                                            \
    for (int64_t j = 0; j < n; ++j) {                                                                               \
      const T* k = keys + j * step;                                                                                 \
      float dot = 0.0f;                                                                                             \
      RD_REDUCE(+ : dot)                                                                                            \
      for (int64_t i = 0; i < d; ++i) dot += q[i] * load<T>(k[i]);                                                  \
      scores[j] = dot * scale;                                                                                      \
      top = scores[j] > top ? scores[j] : top;                                                                      \
    }                                                                                                               \
    return top;                                                                                                     \
  }                                                                                                                 \
  /* sum[i] += weights[j] * value j; then out = sum * factor. */                                                    \
  RD_CLONES void mix_##SUFFIX(const float* __restrict weights, const T* __restrict values, int64_t step, int64_t d, \
                              int64_t n, float factor, float* __restrict sum, T* __restrict out) {                  \
    std::fill(sum, sum + d, 0.0f);                                                                                  \
    for (int64_t j = 0; j < n; ++j) {                                                                               \
      const T* v = values + j * step;                                                                               \
      const float w = weights[j];                                                                                   \
      for (int64_t i = 0; i < d; ++i) sum[i] += w * load<T>(v[i]);                                                  \
    }                                                                                                               \
    for (int64_t i = 0; i < d; ++i) out[i] = store<T>(sum[i] * factor);                                             \
  }                                                                                                                 \
  RD_CLONES void widen_##SUFFIX(const T* x, float* y, int64_t n) {                                                  \
    for (int64_t i = 0; i < n; ++i) y[i] = load<T>(x[i]);                                                           \
  }
RD_CACHED(f32, float)
RD_CACHED(bf16, uint16_t)

struct Shape {
  int64_t rows, heads, kv_heads, d, step, sequence;
};

template <typename T, typename Widen, typename Scores, typename Mix>
void attend(const T* q, int64_t q_row, const T* keys, const T* values, const int64_t* lengths, float scale,
            int64_t window, const Shape& s, T* out, Widen widen, Scores scores, Mix mix) {
  const int64_t repeats = s.heads / s.kv_heads;
  // A task is a key head; where that makes too few of them, a query head.
  const bool coarse = s.rows * s.kv_heads >= at::get_num_threads();
  const int64_t per_task = coarse ? repeats : 1;
  const int64_t longest = *std::max_element(lengths, lengths + s.rows);
  const int64_t reach = window >= 0 ? std::min(longest, window + 1) : longest;
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, reach * s.d * per_task));
  at::parallel_for(0, s.rows * s.heads / per_task, grain, [&](int64_t first, int64_t last) {
    std::vector<float> room(2 * s.d + reach);
    float *wide = room.data(), *sum = wide + s.d, *p = sum + s.d;
    for (int64_t h = first * per_task; h < last * per_task; ++h) {
      const int64_t row = h / s.heads, head = h % s.heads, n = std::min(lengths[row], reach);
      const int64_t at = row * s.sequence + (lengths[row] - n) * s.step + head / repeats * s.d;
      widen(q + row * q_row + head * s.d, wide, s.d);
      const float top = scores(wide, keys + at, s.step, s.d, n, scale, p);
      const float total = exponentials(p, n, top);
      mix(p, values + at, s.step, s.d, n, n ? 1.0f / total : 0.0f, sum, out + (row * s.heads + head) * s.d);
    }
  });
}

// The same in ATen operators, for other devices.
Tensor composite(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const int64_t* lengths, double scale,
                 int64_t window) {
  const int64_t rows = q.size(0), heads = q.size(1), d = q.size(2), kv_heads = k_cache.size(2);
  const int64_t longest = rows ? *std::max_element(lengths, lengths + rows) : 0;
  const int64_t reach = window >= 0 ? std::min(longest, window + 1) : longest;
  const bool even = std::all_of(lengths, lengths + rows, [&](int64_t l) { return l == longest; });
  const int64_t from = even ? longest - reach : 0;
  std::optional<Tensor> mask;
  if (!even) {
    auto ends = at::empty({rows}, at::TensorOptions(at::kLong));
    std::copy(lengths, lengths + rows, ends.mutable_data_ptr<int64_t>());
    ends = ends.to(q.device()).unsqueeze(1);
    auto place = at::arange(longest, ends.options()).unsqueeze(0);
    auto seen = place.lt(ends);
    if (window >= 0) seen = seen.logical_and(place.ge(ends - (window + 1)));
    mask = seen.view({rows, 1, 1, longest});
  }
  auto cut = [&](const Tensor& t) { return t.narrow(1, from, longest - from).transpose(1, 2); };
  // The query heads of one key head are as rows of one sequence: nothing is repeated.
  auto grouped = q.reshape({rows, kv_heads, heads / kv_heads, d});
  return at::scaled_dot_product_attention(grouped, cut(k_cache), cut(v_cache), mask, 0.0, false, scale)
      .reshape({rows, heads, d});
}

}  // namespace
}  // namespace ragduet

// q [rows, heads, d]; caches [rows, capacity, kv_heads, d], contiguous; lengths: rows host integers, at least 1 and at
// most the capacity. window < 0: none. No gradient.
extern "C" int rd_cached_attention(Tensor* q, Tensor* k_cache, Tensor* v_cache, const int64_t* lengths, size_t n,
                                   double scale, int64_t window, Tensor** out) {
  return ragduet::guarded([&] {
    at::NoGradGuard no_grad;
    const int64_t rows = q->size(0);
    TORCH_CHECK(q->dim() == 3 && k_cache->dim() == 4 && k_cache->sizes() == v_cache->sizes() &&
                    k_cache->size(0) == rows && static_cast<int64_t>(n) == rows && k_cache->size(3) == q->size(2) &&
                    k_cache->size(2) > 0 && q->size(1) % k_cache->size(2) == 0,
                "cached_attention: q is ", q->sizes(), ", the caches ", k_cache->sizes(), " and ", v_cache->sizes(),
                ", with ", n, " lengths");
    for (int64_t i = 0; i < rows; ++i)
      TORCH_CHECK(lengths[i] >= 1 && lengths[i] <= k_cache->size(1), "cached_attention: length ", lengths[i],
                  " in a cache for ", k_cache->size(1));
    const auto type = q->scalar_type();
    const bool ours = q->device().is_cpu() && (type == at::kFloat || type == at::kBFloat16) && rows > 0 &&
                      k_cache->scalar_type() == type && k_cache->is_contiguous() && v_cache->is_contiguous();
    if (!ours) {
      *out = new Tensor(ragduet::composite(*q, *k_cache, *v_cache, lengths, scale, window));
      return;
    }
    const auto x = q->stride(2) == 1 && q->stride(1) == q->size(2) ? *q : q->contiguous();
    const ragduet::Shape s{rows,      q->size(1),           k_cache->size(2),
                           q->size(2), k_cache->stride(1), k_cache->stride(0)};
    auto y = at::empty(q->sizes(), q->options());
    auto half = [](const Tensor& t) { return static_cast<const uint16_t*>(t.const_data_ptr()); };
    if (type == at::kBFloat16)
      ragduet::attend(half(x), x.stride(0), half(*k_cache), half(*v_cache), lengths, static_cast<float>(scale), window,
                      s, static_cast<uint16_t*>(y.mutable_data_ptr()), ragduet::widen_bf16, ragduet::scores_bf16,
                      ragduet::mix_bf16);
    else
      ragduet::attend(x.const_data_ptr<float>(), x.stride(0), k_cache->const_data_ptr<float>(),
                      v_cache->const_data_ptr<float>(), lengths, static_cast<float>(scale), window, s,
                      y.mutable_data_ptr<float>(), ragduet::widen_f32, ragduet::scores_f32, ragduet::mix_f32);
    *out = new Tensor(y);
  });
}

// Row i of k and v [tokens, kv_heads, d] to place slots[i] (sequence * capacity + position) of the caches.
extern "C" int rd_cache_write(Tensor* k_cache, Tensor* v_cache, Tensor* slots, Tensor* k, Tensor* v) {
  return ragduet::guarded([&] {
    at::NoGradGuard no_grad;
    const Tensor* pairs[2][2] = {{k_cache, k}, {v_cache, v}};
    for (auto [cache, rows] : pairs) {
      auto flat = cache->flatten(0, 1);
      const bool ours = cache->device().is_cpu() && cache->is_contiguous() && rows->dim() == 3 &&
                        rows->scalar_type() == cache->scalar_type() && rows->stride(2) == 1 &&
                        rows->stride(1) == rows->size(2) && rows->size(1) == cache->size(2) &&
                        rows->size(2) == cache->size(3) && slots->is_contiguous() &&
                        slots->numel() == rows->size(0);
      if (!ours) {
        flat.index_copy_(0, *slots, *rows);
        continue;
      }
      const auto* place = slots->const_data_ptr<int64_t>();
      const size_t bytes = rows->size(1) * rows->size(2) * rows->element_size();
      auto* to = static_cast<char*>(flat.mutable_data_ptr());
      const auto* from = static_cast<const char*>(rows->const_data_ptr());
      const int64_t step = rows->stride(0) * static_cast<int64_t>(rows->element_size());
      for (int64_t i = 0; i < rows->size(0); ++i) {
        TORCH_CHECK(place[i] >= 0 && place[i] < flat.size(0), "cache_write: no place ", place[i]);
        std::memcpy(to + place[i] * static_cast<int64_t>(bytes), from + i * step, bytes);
      }
    }
  });
}

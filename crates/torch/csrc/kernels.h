// Scalar building blocks of the CPU kernels, written so that the vectoriser can widen them.
#pragma once
#include "common.h"

#define RD_INLINE inline __attribute__((always_inline))

// Before a loop that sums up (or takes a maximum) in floating point: lets the vectoriser change the order, which it
// may not do by itself. RD_REDUCE(+ : total)
#define RD_PRAGMA(x) _Pragma(#x)
#define RD_REDUCE(...) RD_PRAGMA(omp simd reduction(__VA_ARGS__))

namespace ragduet {

// exp in about 2 ulp over the range that softmax and GELU need; below -87 the result is 0 for our purposes. `x` must
// be finite. The exponent is clamped as an integer: clamping x against constants makes the compiler split off the
// constant paths, and the loop around it stays scalar.
RD_INLINE float fast_exp(float x) {
  float n = __builtin_rintf(x * 1.44269504088896341f);
  float f = x - n * 0.693359375f;
  f = f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  int32_t k = static_cast<int32_t>(n);
  k = k < -126 ? -126 : k;
  k = k > 127 ? 127 : k;
  int32_t bits = (k + 127) << 23;
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return p * scale;
}

template <typename T>
RD_INLINE float load(T x);
template <>
RD_INLINE float load<float>(float x) {
  return x;
}
template <>
RD_INLINE float load<uint16_t>(uint16_t x) {
  return bf16_to_float(x);
}

template <typename T>
RD_INLINE T store(float x);
template <>
RD_INLINE float store<float>(float x) {
  return x;
}
template <>
RD_INLINE uint16_t store<uint16_t>(float x) {
  return float_to_bf16(x);
}

// A row's two 32-bit seeds for element_hash.
struct RowSeed {
  uint32_t a, b;
};

RD_INLINE RowSeed row_seed(uint64_t seed, uint64_t row) {
  uint64_t z = seed + row * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

// murmur3's 32-bit finaliser over the column, keyed by the row: stateless, so the backward pass makes the same
// mask again, and in 32-bit lanes, so it vectorises.
RD_INLINE uint32_t element_hash(RowSeed s, uint32_t column) {
  uint32_t x = column * 0x9E3779B9u + s.a;
  x ^= x >> 16;
  x *= 0x85EBCA6Bu;
  x ^= x >> 13;
  x += s.b;
  x *= 0xC2B2AE35u;
  x ^= x >> 16;
  return x;
}

// 1/(1-p) where the element is kept, 0 where it is dropped.
RD_INLINE float keep_factor(RowSeed s, uint32_t column, uint32_t threshold, float inv_keep) {
  return element_hash(s, column) >= threshold ? inv_keep : 0.0f;
}

// In place exp(x - top); returns the sum.
float exponentials(float* x, int64_t n, float top);

}  // namespace ragduet

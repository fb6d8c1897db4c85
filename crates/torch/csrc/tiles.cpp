// Products of bf16 weights with few rows on Intel's tile unit (AMX): out^T = W x^T. The weights are the left operand,
// whose tiles are 16 rows of 32 neighbours, so they are read where they lie; only the rows are packed.
#include "skinny.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define RD_TILES 1
#include <ATen/cpu/Utils.h>
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace ragduet {

std::vector<uint32_t> pack_rows(const uint16_t* x, int64_t rows, int64_t k) {
  const int64_t pairs = k / 2, groups = (rows + 15) / 16;
  std::vector<uint32_t> out(groups * pairs * 16);
  for (int64_t r = 0; r < rows; ++r) {
    auto* to = out.data() + (r / 16) * pairs * 16 + r % 16;
    for (int64_t p = 0; p < pairs; ++p) std::memcpy(to + p * 16, x + r * k + 2 * p, 4);
  }
  return out;
}

#ifdef RD_TILES

bool has_tiles() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool both = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1);
    return both && at::cpu::init_amx();
  }();
  return has;
}

namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

// y[r * ldy + o] for one group's tile t [16 outputs, 16 rows].
void scatter(const float* t, float* y, int64_t rows, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < 16; ++o) y[r * ldy + o] = t[o * 16 + r];
}

#define RD_TILE_TARGET __attribute__((target("amx-tile,amx-bf16,avx512f")))

// Tiles 0-3 are sums, 4 is the rows' and 5-7 the weights'. A product takes 52 cycles and a new one starts every 16:
// four sums at a time keep the unit busy.
RD_TILE_TARGET void four_blocks(const uint16_t* w, const uint32_t* x, float* y, int64_t rows, int64_t k, int64_t ldy) {
  alignas(64) float t[4][256];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t j = 0; j < k; j += 32) {
    _tile_loadd(4, x + j / 2 * 16, 64);
    _tile_loadd(5, w + j, 2 * k);
    _tile_dpbf16ps(0, 5, 4);
    _tile_loadd(6, w + 16 * k + j, 2 * k);
    _tile_dpbf16ps(1, 6, 4);
    _tile_loadd(7, w + 32 * k + j, 2 * k);
    _tile_dpbf16ps(2, 7, 4);
    _tile_loadd(5, w + 48 * k + j, 2 * k);
    _tile_dpbf16ps(3, 5, 4);
  }
  _tile_stored(0, t[0], 64);
  _tile_stored(1, t[1], 64);
  _tile_stored(2, t[2], 64);
  _tile_stored(3, t[3], 64);
  for (int b = 0; b < 4; ++b) scatter(t[b], y + 16 * b, rows, ldy);
}

// 16 outputs of up to four groups of rows: the weights are read once.
RD_TILE_TARGET void one_block(const uint16_t* w, const uint32_t* x, float* y, int64_t rows, int64_t k, int64_t ldy) {
  alignas(64) float t[4][256];
  const int64_t groups = (rows + 15) / 16, size = k / 2 * 16;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t j = 0; j < k; j += 32) {
    const auto* at = x + j / 2 * 16;
    _tile_loadd(5, w + j, 2 * k);
    _tile_loadd(4, at, 64);
    _tile_dpbf16ps(0, 5, 4);
    if (groups > 1) {
      _tile_loadd(6, at + size, 64);
      _tile_dpbf16ps(1, 5, 6);
    }
    if (groups > 2) {
      _tile_loadd(7, at + 2 * size, 64);
      _tile_dpbf16ps(2, 5, 7);
    }
    if (groups > 3) {
      _tile_loadd(4, at + 3 * size, 64);
      _tile_dpbf16ps(3, 5, 4);
    }
  }
  _tile_stored(0, t[0], 64);
  _tile_stored(1, t[1], 64);
  _tile_stored(2, t[2], 64);
  _tile_stored(3, t[3], 64);
  for (int64_t g = 0; g < groups; ++g) scatter(t[g], y + 16 * g * ldy, std::min<int64_t>(16, rows - 16 * g), ldy);
}

}  // namespace

RD_TILE_TARGET void tiles_linear(const uint16_t* w, const uint32_t* packed, float* y, int64_t rows, int64_t k,
                                 int64_t ldy, int64_t from, int64_t to) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = 16;
  }
  _tile_loadconfig(&config);
  int64_t o = from;
  if (rows <= 16)
    for (; o + 64 <= to; o += 64) four_blocks(w + o * k, packed, y + o, rows, k, ldy);
  for (; o < to; o += 16) one_block(w + o * k, packed, y + o, rows, k, ldy);
  // Others configure tiles of their own; they look at what is there.
  _tile_release();
}

#else

bool has_tiles() { return false; }
void tiles_linear(const uint16_t*, const uint32_t*, float*, int64_t, int64_t, int64_t, int64_t, int64_t) {}

#endif

}  // namespace ragduet

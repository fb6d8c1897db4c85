// Matrix products with few rows: skinny.cpp, and for bf16 tiles tiles.cpp.
#pragma once
#include "common.h"

namespace ragduet {

// Whether the CPU multiplies tiles of bf16 (AMX) and the system lets this process do so.
bool has_tiles();

// Rows [rows, k] of bf16 as tiles_linear wants them: groups of 16 rows (zeros behind the last), pairs of numbers
// first: [groups, k / 2, 16 rows, 2].
std::vector<uint32_t> pack_rows(const uint16_t* x, int64_t rows, int64_t k);

// y[r * ldy + o] = sum of x[r] w[o] for outputs from..to, a multiple of 16, and all of at most 64 rows. w is
// [outputs, k], k a multiple of 32.
void tiles_linear(const uint16_t* w, const uint32_t* packed, float* y, int64_t rows, int64_t k, int64_t ldy,
                  int64_t from, int64_t to);

}  // namespace ragduet

// Shared by the shim's files: error passing and small helpers.
//
// Every exported function returns 0, or 1 with the message kept for rd_last_error (per thread).
#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <vector>

namespace ragduet {

void set_last_error(const char* what);

template <typename F>
int guarded(F&& f) {
  try {
    f();
    return 0;
  } catch (const c10::Error& e) {
    // Without the backtrace: the first line is what a user can act on.
    set_last_error(e.what_without_backtrace());
  } catch (const std::exception& e) {
    set_last_error(e.what());
  } catch (...) {
    set_last_error("unknown C++ exception");
  }
  return 1;
}

inline std::vector<at::Tensor> collect(at::Tensor* const* xs, size_t n) {
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (size_t i = 0; i < n; ++i) out.push_back(*xs[i]);
  return out;
}

// A 64-bit seed from the CPU generator, so that saving and restoring that generator's state replays the
// dropout masks of the kernels here.
uint64_t next_seed();

// Keep where the hash is at or above this.
inline uint32_t drop_threshold(double p) {
  return static_cast<uint32_t>(p * 4294967296.0);
}

inline float bf16_to_float(uint16_t x) {
  uint32_t u = static_cast<uint32_t>(x) << 16;
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}

// Round to nearest even, as c10::BFloat16 does (NaN is not expected in these kernels' outputs and stays NaN
// or becomes infinite; the loss check finds either).
inline uint16_t float_to_bf16(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

}  // namespace ragduet

// One body compiled for the CPUs that matter, chosen at load time; the rest of the program stays baseline.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define RD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RD_CLONES
#endif

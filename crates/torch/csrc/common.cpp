#include "common.h"

#include <ATen/CPUGeneratorImpl.h>

#include <mutex>
#include <string>

#include "kernels.h"

namespace ragduet {
namespace {
thread_local std::string last_error;
}

void set_last_error(const char* what) { last_error = what; }

uint64_t next_seed() {
  auto gen = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(gen.mutex());
  return at::check_generator<at::CPUGeneratorImpl>(gen)->random64();
}

RD_CLONES float exponentials(float* x, int64_t n, float top) {
  float total = 0.0f;
  RD_REDUCE(+ : total)
  for (int64_t j = 0; j < n; ++j) {
    float e = fast_exp(x[j] - top);
    x[j] = e;
    total += e;
  }
  return total;
}
}  // namespace ragduet

extern "C" const char* rd_last_error() { return ragduet::last_error.c_str(); }

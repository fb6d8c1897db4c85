#include "common.h"

#include <ATen/CPUGeneratorImpl.h>

#include <mutex>
#include <string>

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
}  // namespace ragduet

extern "C" const char* rd_last_error() { return ragduet::last_error.c_str(); }

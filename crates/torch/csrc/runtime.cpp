// Generator state, device memory figures, CPU capabilities, and backward with incoming gradients.
#include "common.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/cpu/Utils.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/csrc/autograd/autograd.h>

#include <mutex>
#include <string>

using at::Tensor;

namespace {
at::Generator generator(int cuda_index) {
  if (cuda_index < 0) return at::detail::getDefaultCPUGenerator();
  return at::globalContext().defaultGenerator(
      at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(cuda_index)));
}
}  // namespace

// cuda_index < 0 is the CPU. The state is a byte tensor on the CPU.
extern "C" int rd_rng_get_state(int cuda_index, Tensor** out) {
  return ragduet::guarded([&] {
    auto gen = generator(cuda_index);
    std::lock_guard<std::mutex> lock(gen.mutex());
    *out = new Tensor(gen.get_state());
  });
}

extern "C" int rd_rng_set_state(int cuda_index, Tensor* state) {
  return ragduet::guarded([&] {
    auto gen = generator(cuda_index);
    std::lock_guard<std::mutex> lock(gen.mutex());
    gen.set_state(*state);
  });
}

// Backward from several outputs with a gradient for each; leaves accumulate.
extern "C" int rd_backward(Tensor* const* outputs, Tensor* const* grads, size_t n) {
  return ragduet::guarded(
      [&] { torch::autograd::backward(ragduet::collect(outputs, n), ragduet::collect(grads, n)); });
}

extern "C" int rd_grad_enabled() { return at::GradMode::is_enabled() ? 1 : 0; }

// How often the tensor's storage was changed in place; views share the count.
extern "C" int64_t rd_version(Tensor* t) { return t->is_inference() ? -1 : static_cast<int64_t>(t->_version()); }

// allocated, peak allocated, reserved, free, total, in bytes; -1 where the device does not say.
extern "C" int rd_cuda_memory(int index, int64_t* out) {
  return ragduet::guarded([&] {
    auto* alloc = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    auto device = static_cast<c10::DeviceIndex>(index);
    for (int i = 0; i < 5; ++i) out[i] = -1;
    if (alloc->initialized()) {
      auto stats = alloc->getDeviceStats(device);
      constexpr size_t aggregate = 0;
      out[0] = stats.allocated_bytes[aggregate].current;
      out[1] = stats.allocated_bytes[aggregate].peak;
      out[2] = stats.reserved_bytes[aggregate].current;
    }
    try {
      auto info = alloc->getMemoryInfo(device);
      out[3] = static_cast<int64_t>(info.first);
      out[4] = static_cast<int64_t>(info.second);
    } catch (const c10::Error&) {
      // An allocator that cannot say: the figures stay -1.
    }
  });
}

extern "C" void rd_attention_without_cudnn() { at::globalContext().setSDPUseCuDNN(false); }

extern "C" int rd_attention_may_use_cudnn() { return at::globalContext().userEnabledCuDNNSDP() ? 1 : 0; }

extern "C" int rd_cuda_empty_cache() {
  return ragduet::guarded([&] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}

extern "C" int rd_cuda_reset_peak(int index) {
  return ragduet::guarded([&] {
    c10::getDeviceAllocator(c10::DeviceType::CUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(index));
  });
}

// "name=value" lines of ATen's own view of this CPU; the caller frees with rd_free_string.
extern "C" char* rd_cpu_capabilities() {
  std::string out;
  try {
    out += "capability=" + at::get_cpu_capability() + "\n";
    for (const auto& [name, value] : at::cpu::get_cpu_capabilities()) {
      if (value.isBool()) out += name + "=" + (value.toBool() ? "1" : "0") + "\n";
    }
  } catch (...) {
  }
  return strdup(out.c_str());
}

extern "C" void rd_free_string(char* s) { free(s); }

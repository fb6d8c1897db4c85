// A caching allocator for large CPU tensors.
//
// A training step allocates and frees the same few hundred large tensors again and again. glibc either maps each one
// afresh, so that every page faults anew (a fifth of a step on two cores), or keeps them in a heap that fragments.
// Here freed blocks wait in their size class for the next tensor of that class, lie on huge pages where the kernel
// offers them, and are given back, least recently used first, as soon as blocks in use and kept together exceed the
// most that was ever in use at once by more than a quarter: keeping costs little memory beyond the peak.
//
// Small tensors go to ATen's own allocator. RAGDUET_ALLOCATOR=system turns this off.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

#include "common.h"

namespace ragduet {
namespace {

constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;
// Below this glibc is quick, and blocks are too small for pages of their own.
constexpr size_t kLarge = size_t{256} << 10;

// Eight classes per power of two: at most an eighth is wasted, and sizes that vary a little share blocks.
size_t size_class(size_t n) {
  const int top = 63 - __builtin_clzll(n - 1);
  const size_t step = size_t{1} << (top - 3);
  const size_t unit = step > kPage ? step : kPage;
  return (n + unit - 1) / unit * unit;
}

struct Pool {
  struct Kept {
    char* at;
    size_t bytes;
  };
  std::mutex lock;
  std::unordered_map<void*, size_t> used;                      // address -> class size
  std::list<Kept> kept;                                        // most recently freed first
  std::map<size_t, std::vector<std::list<Kept>::iterator>> by_class;  // without empty entries
  size_t in_use = 0, idle = 0, most = 0, peak = 0;  // `most` for the policy, `peak` for figures (can be reset)

  void unmap(const Kept& block) {
    idle -= block.bytes;
    munmap(block.at, block.bytes);
  }

  // What may be kept beside `bytes` in use.
  size_t room(size_t bytes) const {
    const size_t ceiling = most + most / 4;
    return ceiling > bytes ? ceiling - bytes : 0;
  }

  // Gives back the least recently used until at most `bytes` are kept.
  void trim(size_t bytes) {
    while (idle > bytes && !kept.empty()) {
      auto last = std::prev(kept.end());
      auto same = by_class.find(last->bytes);
      // Within a class blocks are taken from the back, so the oldest is at the front.
      same->second.erase(same->second.begin());
      if (same->second.empty()) by_class.erase(same);
      unmap(*last);
      kept.pop_back();
    }
  }

  static char* map(size_t bytes) {
    // Huge pages need alignment: map more, cut off both ends.
    const bool huge = bytes >= 2 * kHugePage;
    const size_t extra = huge ? kHugePage : 0;
    void* raw = mmap(nullptr, bytes + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return nullptr;
    auto* start = static_cast<char*>(raw);
    if (huge) {
      const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
      if (before > 0) munmap(start, before);
      if (extra > before) munmap(start + before + bytes, extra - before);
      start += before;
      madvise(start, bytes, MADV_HUGEPAGE);
    }
    return start;
  }

  void* take(size_t n) {
    size_t bytes = size_class(n);
    std::lock_guard<std::mutex> guard(lock);
    char* at = nullptr;
    // The same class, or one a little larger: pages that are there beat new ones.
    auto same = by_class.lower_bound(bytes);
    if (same != by_class.end() && same->first <= bytes + bytes / 2) {
      bytes = same->first;
      auto block = same->second.back();
      same->second.pop_back();
      if (same->second.empty()) by_class.erase(same);
      at = block->at;
      idle -= bytes;
      kept.erase(block);
    } else {
      trim(room(in_use + bytes));
      at = map(bytes);
      if (at == nullptr) {
        trim(0);
        at = map(bytes);
      }
      TORCH_CHECK_WITH(OutOfMemoryError, at != nullptr, "not enough memory: could not allocate ", n, " bytes");
    }
    used.emplace(at, bytes);
    in_use += bytes;
    most = std::max(most, in_use);
    peak = std::max(peak, in_use);
    return at;
  }

  // False where the address is not one of ours.
  bool put(void* at) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = used.find(at);
    if (found == used.end()) return false;
    const size_t bytes = found->second;
    used.erase(found);
    in_use -= bytes;
    idle += bytes;
    kept.push_front({static_cast<char*>(at), bytes});
    by_class[bytes].push_back(kept.begin());
    trim(room(in_use));
    return true;
  }
};

// Never destroyed: tensors in statics may be freed after it would be.
Pool& pool() {
  static auto* p = new Pool;
  return *p;
}

void release(void* at) {
  if (at == nullptr) return;
  // Ours begin at a page; of the others few do.
  if (reinterpret_cast<uintptr_t>(at) % kPage == 0 && pool().put(at)) return;
  c10::free_cpu(at);
}

struct CachingCpuAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* at = n < kLarge ? c10::alloc_cpu(n) : pool().take(n);
    return {at, at, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
};

bool installed = false;

}  // namespace
}  // namespace ragduet

// Makes it libtorch's CPU allocator; tensors allocated before keep their own. Call before other threads run.
extern "C" void rd_install_allocator() {
  const char* choice = std::getenv("RAGDUET_ALLOCATOR");
  if (ragduet::installed || (choice != nullptr && std::strcmp(choice, "system") == 0)) return;
  ragduet::installed = true;
  static ragduet::CachingCpuAllocator allocator;
  c10::SetCPUAllocator(&allocator, /*priority=*/1);
}

// Bytes of large tensors: in use, most ever in use since the last reset, kept for reuse. All -1 where not installed.
extern "C" void rd_cpu_memory(int64_t* out) {
  if (!ragduet::installed) {
    out[0] = out[1] = out[2] = -1;
    return;
  }
  auto& p = ragduet::pool();
  std::lock_guard<std::mutex> guard(p.lock);
  out[0] = static_cast<int64_t>(p.in_use);
  out[1] = static_cast<int64_t>(p.peak);
  out[2] = static_cast<int64_t>(p.idle);
}

extern "C" void rd_cpu_reset_peak() {
  auto& p = ragduet::pool();
  std::lock_guard<std::mutex> guard(p.lock);
  p.peak = p.in_use;
}

// libtorch's headers, which every file needs and which take the compiler far longer than the files themselves: build.rs
// compiles them once.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

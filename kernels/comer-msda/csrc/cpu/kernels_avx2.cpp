#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "cpu/kernels.h"

#if defined(__x86_64__)

// Below the standard headers: their inline functions must stay runnable on every CPU.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define COMER_MSDA_INSTRUCTION_SET avx2
#define COMER_MSDA_VECTOR_BYTES 32
#include "cpu/kernels_impl.h"

namespace comer_msda {
const CpuKernels kAvx2Kernels{"avx2", avx2::forward, avx2::backward};
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif

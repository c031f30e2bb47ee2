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
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define COMER_MSDA_INSTRUCTION_SET avx512
#define COMER_MSDA_VECTOR_BYTES 64
#include "cpu/kernels_impl.h"

namespace comer_msda {
const CpuKernels kAvx512Kernels{"avx512", avx512::forward, avx512::backward};
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif

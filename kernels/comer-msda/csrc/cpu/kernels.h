// What the instruction-set specific kernels share with the operators: plain types only. A header with inline functions
// would be compiled again for each instruction set, and the linker might keep the copy that this CPU cannot run.
#pragma once

#include <cstdint>

#include "problem.h"

namespace comer_msda {

enum class Storage { kFloat, kDouble, kBFloat16, kHalf };

// Where to sample and with which weights: the projection of the fused operator, or else the classic one's arguments.
struct Sampling {
  const void* projection;
  const void* locations;
  const void* weights;
};

struct SamplingGradients {
  void* projection;
  void* locations;
  void* weights;
};

// Queries of one task of `forward`: they are neighbours, and what one of them read is still in cache for the next.
constexpr int64_t kQueriesPerTask = 64;

struct CpuKernels {
  const char* instruction_set;
  // Tasks [begin, end) of the batch * heads * ceil(queries / kQueriesPerTask) there are.
  void (*forward)(const Problem& problem, Storage storage, const void* value, const Sampling& sampling, void* output,
                  int64_t begin, int64_t end);
  // Tasks [begin, end) of the batch * heads there are. A task alone writes its head's part of `grad_value` (in float,
  // or double; zero at the start), in the order of the queries: the result does not depend on the threads.
  void (*backward)(const Problem& problem, Storage storage, const void* grad_output, const void* value,
                   const Sampling& sampling, void* grad_value, const SamplingGradients& gradients, int64_t begin,
                   int64_t end);
};

extern const CpuKernels kBaselineKernels;
#if defined(__x86_64__)
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
#endif

}  // namespace comer_msda

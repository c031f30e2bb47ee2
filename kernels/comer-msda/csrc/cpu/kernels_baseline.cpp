#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "cpu/kernels.h"

#define COMER_MSDA_INSTRUCTION_SET baseline
#define COMER_MSDA_VECTOR_BYTES 16
#include "cpu/kernels_impl.h"

namespace comer_msda {
const CpuKernels kBaselineKernels{"baseline", baseline::forward, baseline::backward};
}

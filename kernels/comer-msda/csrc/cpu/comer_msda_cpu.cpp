// The operators on CPU: checks, allocation, and the choice of kernels for this machine.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <cstring>

#include "../../torch-ext/torch_binding.h"
#include "checks.h"
#include "cpu/kernels.h"

namespace comer_msda {
namespace {

using torch::headeronly::ScalarType;

// The widest instruction set of this CPU, or what torch's own variable ATEN_CPU_CAPABILITY limits it to.
const CpuKernels& choose_kernels() {
#if defined(__x86_64__)
  const char* limit = std::getenv("ATEN_CPU_CAPABILITY");
  const auto allowed = [limit](const char* name) { return limit == nullptr || std::strcmp(limit, name) == 0; };
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && allowed("avx512")) return kAvx512Kernels;
  if (avx2 && (allowed("avx2") || allowed("avx512"))) return kAvx2Kernels;
#endif
  return kBaselineKernels;
}

const CpuKernels& kernels() {
  static const CpuKernels& chosen = choose_kernels();
  return chosen;
}

Storage storage_of(const Tensor& value) {
  switch (value.scalar_type()) {
    case ScalarType::Double:
      return Storage::kDouble;
    case ScalarType::BFloat16:
      return Storage::kBFloat16;
    case ScalarType::Half:
      return Storage::kHalf;
    default:
      return Storage::kFloat;
  }
}

ScalarType arithmetic_of(const Tensor& value) {
  return value.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Tensor forward(const Problem& problem, const Tensor& value, const Sampling& sampling) {
  Tensor output = new_empty(value, {problem.batch, problem.queries, problem.heads * problem.head_dim});
  void* output_data = output.mutable_data_ptr();
  const void* value_data = value.const_data_ptr();
  const Storage storage = storage_of(value);
  const int64_t tasks_per_head = (problem.queries + kQueriesPerTask - 1) / kQueriesPerTask;
  const int64_t tasks = problem.batch * problem.heads * tasks_per_head;
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    kernels().forward(problem, storage, value_data, sampling, output_data, begin, end);
  });
  return output;
}

// Returns the gradient of `value`; writes those of the sampling.
Tensor backward(const Problem& problem, const Tensor& grad_output, const Tensor& value, const Sampling& sampling,
                const SamplingGradients& gradients) {
  Tensor grad_value = new_zeros(value, value.sizes(), arithmetic_of(value));
  void* grad_value_data = grad_value.mutable_data_ptr();
  const void *grad_output_data = grad_output.const_data_ptr(), *value_data = value.const_data_ptr();
  const Storage storage = storage_of(value);
  torch::stable::parallel_for(0, problem.batch * problem.heads, 1, [&](int64_t begin, int64_t end) {
    kernels().backward(problem, storage, grad_output_data, value_data, sampling, grad_value_data, gradients, begin,
                       end);
  });
  return torch::stable::to(grad_value, value.scalar_type());
}

std::vector<int64_t> output_size(const Problem& problem) {
  return {problem.batch, problem.queries, problem.heads * problem.head_dim};
}

}  // namespace

Tensor fused_forward_cpu(const Tensor& value, const Tensor& projection, const LevelSizes level_sizes, int64_t heads,
                         int64_t points) {
  const Problem problem = fused_problem(value, projection, level_sizes, heads, points);
  const Tensor values = contiguous(value), projections = contiguous(projection);
  return forward(problem, values, {projections.const_data_ptr(), nullptr, nullptr});
}

std::tuple<Tensor, Tensor> fused_backward_cpu(const Tensor& grad_output, const Tensor& value, const Tensor& projection,
                                              const LevelSizes level_sizes, int64_t heads, int64_t points,
                                              bool /* deterministic: always */) {
  const Problem problem = fused_problem(value, projection, level_sizes, heads, points);
  check_gradient(grad_output, value, output_size(problem));
  const Tensor gradients = contiguous(grad_output), values = contiguous(value), projections = contiguous(projection);
  Tensor grad_projection = new_empty(projections, projections.sizes());
  Tensor grad_value = backward(problem, gradients, values, {projections.const_data_ptr(), nullptr, nullptr},
                               {grad_projection.mutable_data_ptr(), nullptr, nullptr});
  return {grad_value, grad_projection};
}

Tensor classic_forward_cpu(const Tensor& value, const Tensor& locations, const Tensor& weights,
                           const LevelSizes level_sizes) {
  const Problem problem = classic_problem(value, locations, weights, level_sizes);
  const Tensor values = contiguous(value), places = contiguous(locations), attention = contiguous(weights);
  return forward(problem, values, {nullptr, places.const_data_ptr(), attention.const_data_ptr()});
}

std::tuple<Tensor, Tensor, Tensor> classic_backward_cpu(const Tensor& grad_output, const Tensor& value,
                                                        const Tensor& locations, const Tensor& weights,
                                                        const LevelSizes level_sizes,
                                                        bool /* deterministic: always */) {
  const Problem problem = classic_problem(value, locations, weights, level_sizes);
  check_gradient(grad_output, value, output_size(problem));
  const Tensor gradients = contiguous(grad_output), values = contiguous(value);
  const Tensor places = contiguous(locations), attention = contiguous(weights);
  Tensor grad_locations = new_empty(places, places.sizes()), grad_weights = new_empty(attention, attention.sizes());
  Tensor grad_value = backward(problem, gradients, values,
                               {nullptr, places.const_data_ptr(), attention.const_data_ptr()},
                               {nullptr, grad_locations.mutable_data_ptr(), grad_weights.mutable_data_ptr()});
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace comer_msda

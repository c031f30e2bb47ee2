// The operators' CUDA entry points: checks, contiguous copies, allocation, launch on the current stream.
#include "../../torch-ext/torch_binding.h"

// The stream and the launch check of torch's C interface are declared for CUDA builds only.
#ifndef USE_CUDA
#define USE_CUDA
#endif
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "launch.h"

namespace comer_msda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::accelerator::DeviceGuard;

// Launches on the stream that is current on the tensor's device, and makes that device current for its own lifetime.
class StreamLauncher {
 public:
  explicit StreamLauncher(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), const LaunchSize& size, const Arguments&... arguments) const {
    kernel<<<static_cast<unsigned>(size.blocks), size.threads, size.shared_bytes, stream_>>>(arguments...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  DeviceGuard guard_;
  cudaStream_t stream_;
};

// Calls `function` with a null pointer to the C++ type of `dtype`, which the checks have found to be one of these.
// (C++17 has no lambdas with type parameters.)
template <class Function>
void with_type(ScalarType dtype, const Function& function) {
  switch (dtype) {
    case ScalarType::Float:
      return function(static_cast<float*>(nullptr));
    case ScalarType::Half:
      return function(static_cast<c10::Half*>(nullptr));
    case ScalarType::BFloat16:
      return function(static_cast<c10::BFloat16*>(nullptr));
    case ScalarType::Double:
      return function(static_cast<double*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "comer_msda: unsupported dtype");
  }
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

Tensor zeros(const Tensor& like, std::vector<int64_t> size, ScalarType dtype) {
  return torch::stable::new_zeros(like, size, std::make_optional(dtype));
}

Tensor empty(const Tensor& like, std::vector<int64_t> size) { return torch::stable::new_empty(like, size); }

std::vector<int64_t> size_of(const Tensor& tensor) { return {tensor.sizes().begin(), tensor.sizes().end()}; }

// The gradient of `value`, by the way of summing that the caller asked for.
template <class T, class Input>
Tensor value_gradient(const Problem& problem, const Input& input, const Tensor& value, const Tensor& grad_output,
                      const Tensor* weights, bool deterministic, const StreamLauncher& launch) {
  using A = Arithmetic<T>;
  if (!deterministic) {
    const ScalarType arithmetic = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
    const Tensor sums = zeros(value, size_of(value), arithmetic);
    run_backward<T>(problem, input, data<T>(value), data<T>(grad_output), FloatSums<A>{mutable_data<A>(sums)}, launch);
    return std::is_same_v<A, T> ? sums : torch::stable::to(sums, std::make_optional(value.scalar_type()));
  }
  const Tensor sums = zeros(value, size_of(value), ScalarType::Long);
  const Tensor maximum = zeros(value, {2}, ScalarType::Long);
  const Tensor grad_value = empty(value, size_of(value));
  run_deterministic_backward<T>(problem, input, data<T>(value), data<T>(grad_output),
                                weights ? data<A>(*weights) : nullptr, weights ? weights->numel() : 0,
                                mutable_data<unsigned long long>(sums), mutable_data<unsigned long long>(maximum),
                                mutable_data<T>(grad_value), launch);
  return grad_value;
}

}  // namespace

Tensor fused_forward_cuda(const Tensor& value, const Tensor& projection, const LevelSizes level_sizes, int64_t heads,
                          int64_t points) {
  const Problem problem = fused_problem(value, projection, level_sizes, heads, points);
  const StreamLauncher launch(value);
  const Tensor values = torch::stable::contiguous(value), projections = torch::stable::contiguous(projection);
  const Tensor output = empty(value, {problem.batch, problem.queries, problem.heads * problem.head_dim});
  with_type(value.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const FusedInput<T> input = fused_input<T>(problem, data<T>(projections), nullptr);
    run_forward<T>(problem, input, data<T>(values), mutable_data<T>(output), launch);
  });
  return output;
}

std::tuple<Tensor, Tensor> fused_backward_cuda(const Tensor& grad_output, const Tensor& value,
                                               const Tensor& projection, const LevelSizes level_sizes, int64_t heads,
                                               int64_t points, bool deterministic) {
  const Problem problem = fused_problem(value, projection, level_sizes, heads, points);
  check_gradient(grad_output, value, size_of(value));
  const StreamLauncher launch(value);
  const Tensor values = torch::stable::contiguous(value), projections = torch::stable::contiguous(projection);
  const Tensor gradients = torch::stable::contiguous(grad_output);
  Tensor grad_value;
  const Tensor grad_projection = empty(projection, size_of(projection));
  with_type(value.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const FusedInput<T> input = fused_input<T>(problem, data<T>(projections), mutable_data<T>(grad_projection));
    grad_value = value_gradient<T>(problem, input, values, gradients, nullptr, deterministic, launch);
  });
  return {grad_value, grad_projection};
}

Tensor classic_forward_cuda(const Tensor& value, const Tensor& locations, const Tensor& weights,
                            const LevelSizes level_sizes) {
  const Problem problem = classic_problem(value, locations, weights, level_sizes);
  const StreamLauncher launch(value);
  const Tensor values = torch::stable::contiguous(value), points = torch::stable::contiguous(locations);
  const Tensor attention = torch::stable::contiguous(weights);
  const Tensor output = empty(value, {problem.batch, problem.queries, problem.heads * problem.head_dim});
  with_type(value.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = Arithmetic<T>;
    const ClassicInput<T> input{data<A>(points), data<A>(attention), nullptr, nullptr};
    run_forward<T>(problem, input, data<T>(values), mutable_data<T>(output), launch);
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> classic_backward_cuda(const Tensor& grad_output, const Tensor& value,
                                                         const Tensor& locations, const Tensor& weights,
                                                         const LevelSizes level_sizes, bool deterministic) {
  const Problem problem = classic_problem(value, locations, weights, level_sizes);
  check_gradient(grad_output, value, {problem.batch, problem.queries, problem.heads * problem.head_dim});
  const StreamLauncher launch(value);
  const Tensor values = torch::stable::contiguous(value), points = torch::stable::contiguous(locations);
  const Tensor attention = torch::stable::contiguous(weights), gradients = torch::stable::contiguous(grad_output);
  Tensor grad_value;
  const Tensor grad_locations = empty(locations, size_of(locations)), grad_weights = empty(weights, size_of(weights));
  with_type(value.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = Arithmetic<T>;
    const ClassicInput<T> input{data<A>(points), data<A>(attention), mutable_data<A>(grad_locations),
                                mutable_data<A>(grad_weights)};
    grad_value = value_gradient<T>(problem, input, values, gradients, &attention, deterministic, launch);
  });
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace comer_msda

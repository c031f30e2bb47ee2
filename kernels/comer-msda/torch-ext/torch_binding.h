// The operators' entry points; their meaning is in torch-ext/comer_msda/__init__.py.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <tuple>
#include <vector>

namespace comer_msda {

using torch::stable::Tensor;
using LevelSizes = std::vector<int64_t>;

Tensor fused_forward_cpu(const Tensor& value, const Tensor& projection, const LevelSizes level_sizes, int64_t heads,
                         int64_t points);
std::tuple<Tensor, Tensor> fused_backward_cpu(const Tensor& grad_output, const Tensor& value, const Tensor& projection,
                                              const LevelSizes level_sizes, int64_t heads, int64_t points,
                                              bool deterministic);
Tensor classic_forward_cpu(const Tensor& value, const Tensor& locations, const Tensor& weights,
                           const LevelSizes level_sizes);
std::tuple<Tensor, Tensor, Tensor> classic_backward_cpu(const Tensor& grad_output, const Tensor& value,
                                                        const Tensor& locations, const Tensor& weights,
                                                        const LevelSizes level_sizes, bool deterministic);

Tensor fused_forward_cuda(const Tensor& value, const Tensor& projection, const LevelSizes level_sizes, int64_t heads,
                          int64_t points);
std::tuple<Tensor, Tensor> fused_backward_cuda(const Tensor& grad_output, const Tensor& value,
                                               const Tensor& projection, const LevelSizes level_sizes, int64_t heads,
                                               int64_t points, bool deterministic);
Tensor classic_forward_cuda(const Tensor& value, const Tensor& locations, const Tensor& weights,
                            const LevelSizes level_sizes);
std::tuple<Tensor, Tensor, Tensor> classic_backward_cuda(const Tensor& grad_output, const Tensor& value,
                                                         const Tensor& locations, const Tensor& weights,
                                                         const LevelSizes level_sizes, bool deterministic);

}  // namespace comer_msda

// Turns the operators' arguments into a `Problem`, or raises an error that names what was seen.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "problem.h"

namespace comer_msda {

using torch::stable::Tensor;

// value (batch, tokens, heads * head_dim), projection (batch, tokens, heads * levels * points * 3).
Problem fused_problem(const Tensor& value, const Tensor& projection, const std::vector<int64_t>& level_sizes,
                      int64_t heads, int64_t points);

// value (batch, tokens, heads, head_dim), locations (batch, queries, heads, levels, points, 2), weights the same
// without the last dimension; locations and weights in float32, or float64 with a float64 value.
Problem classic_problem(const Tensor& value, const Tensor& locations, const Tensor& weights,
                        const std::vector<int64_t>& level_sizes);

// The gradient of an output of `size` must have that size, and the dtype and device of `value`.
void check_gradient(const Tensor& gradient, const Tensor& value, const std::vector<int64_t>& size);

}  // namespace comer_msda

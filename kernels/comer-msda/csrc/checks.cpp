#include "checks.h"

#include <torch/csrc/stable/ops.h>

#include <limits>
#include <sstream>
#include <string>

namespace comer_msda {
namespace {

using torch::headeronly::ScalarType;

template <class Sizes>
std::string text(const Sizes& sizes) {
  std::ostringstream stream;
  stream << '(';
  for (size_t i = 0; i < sizes.size(); ++i) stream << (i ? ", " : "") << sizes[i];
  stream << ')';
  return stream.str();
}

void check_value_dtype(const Tensor& value) {
  const ScalarType dtype = value.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16 ||
                      dtype == ScalarType::Double,
                  "comer_msda: value must be float32, float16, bfloat16 or float64");
}

void check_same_device(const Tensor& value, const Tensor& other, const char* name) {
  STD_TORCH_CHECK(other.is_cuda() == value.is_cuda() && other.is_cpu() == value.is_cpu() &&
                      other.get_device_index() == value.get_device_index(),
                  "comer_msda: ", name, " must be on the device of value");
}

void check_size(const Tensor& tensor, const std::vector<int64_t>& expected, const char* name) {
  bool equal = tensor.dim() == static_cast<int64_t>(expected.size());
  for (size_t i = 0; equal && i < expected.size(); ++i) equal = tensor.size(i) == expected[i];
  STD_TORCH_CHECK(equal, "comer_msda: ", name, " must have size ", text(expected), ", got ", text(tensor.sizes()));
}

// Fills the levels and checks that together they have as many cells as there are tokens.
void set_levels(Problem& problem, const std::vector<int64_t>& level_sizes) {
  STD_TORCH_CHECK(!level_sizes.empty() && level_sizes.size() % 2 == 0 && level_sizes.size() <= 2 * kMaxLevels,
                  "comer_msda: level_sizes must be height, width of 1 to ", kMaxLevels, " levels, got ",
                  text(level_sizes));
  problem.levels = static_cast<int32_t>(level_sizes.size() / 2);
  int64_t tokens = 0;
  for (int level = 0; level < problem.levels; ++level) {
    const int64_t height = level_sizes[2 * level], width = level_sizes[2 * level + 1];
    // Beyond 2^24 a float32 does not hold every pixel's position.
    constexpr int64_t kMaxSide = 1 << 24;
    STD_TORCH_CHECK(height > 0 && width > 0 && height <= kMaxSide && width <= kMaxSide,
                    "comer_msda: heights and widths of level_sizes must be from 1 to 2^24, got ", text(level_sizes));
    problem.height[level] = static_cast<int32_t>(height);
    problem.width[level] = static_cast<int32_t>(width);
    problem.first_token[level] = tokens;
    tokens += height * width;
  }
  STD_TORCH_CHECK(tokens == problem.tokens, "comer_msda: level_sizes ", text(level_sizes), " hold ", tokens,
                  " tokens, but value has ", problem.tokens);
  STD_TORCH_CHECK(tokens <= std::numeric_limits<int32_t>::max(), "comer_msda: at most 2^31 - 1 tokens, got ", tokens);
}

void set_points(Problem& problem, int64_t points) {
  // Divided, because a product of huge numbers would wrap round.
  STD_TORCH_CHECK(points > 0 && points <= kMaxSamples / problem.levels,
                  "comer_msda: levels * points must be from 1 to ", kMaxSamples, ", got ", problem.levels, " * ", points);
  problem.points = static_cast<int32_t>(points);
}

}  // namespace

Problem fused_problem(const Tensor& value, const Tensor& projection, const std::vector<int64_t>& level_sizes,
                      int64_t heads, int64_t points) {
  check_value_dtype(value);
  STD_TORCH_CHECK(value.dim() == 3, "comer_msda: value must be (batch, tokens, heads * head_dim), got ",
                  text(value.sizes()));
  STD_TORCH_CHECK(heads > 0 && value.size(2) > 0 && value.size(2) % heads == 0, "comer_msda: heads must divide the ",
                  value.size(2), " channels of value, got ", heads);
  Problem problem{};
  problem.batch = value.size(0);
  problem.tokens = problem.queries = value.size(1);
  problem.heads = heads;
  problem.head_dim = value.size(2) / heads;
  set_levels(problem, level_sizes);
  set_points(problem, points);
  STD_TORCH_CHECK(projection.scalar_type() == value.scalar_type(),
                  "comer_msda: projection must have the dtype of value");
  check_same_device(value, projection, "projection");
  check_size(projection, {problem.batch, problem.tokens, heads * problem.samples() * 3}, "projection");
  return problem;
}

Problem classic_problem(const Tensor& value, const Tensor& locations, const Tensor& weights,
                        const std::vector<int64_t>& level_sizes) {
  check_value_dtype(value);
  STD_TORCH_CHECK(value.dim() == 4 && value.size(2) > 0 && value.size(3) > 0,
                  "comer_msda: value must be (batch, tokens, heads, head_dim), got ", text(value.sizes()));
  STD_TORCH_CHECK(locations.dim() == 6,
                  "comer_msda: sampling_locations must be (batch, queries, heads, levels, points, 2), got ",
                  text(locations.sizes()));
  Problem problem{};
  problem.batch = value.size(0);
  problem.tokens = value.size(1);
  problem.queries = locations.size(1);
  problem.heads = value.size(2);
  problem.head_dim = value.size(3);
  set_levels(problem, level_sizes);
  set_points(problem, locations.size(4));
  const ScalarType arithmetic = value.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(locations.scalar_type() == arithmetic && weights.scalar_type() == arithmetic,
                  "comer_msda: sampling_locations and attention_weights must be float32 (float64 for a float64 value)");
  check_same_device(value, locations, "sampling_locations");
  check_same_device(value, weights, "attention_weights");
  std::vector<int64_t> size{problem.batch, problem.queries, problem.heads, problem.levels, problem.points};
  check_size(weights, size, "attention_weights");
  size.push_back(2);
  check_size(locations, size, "sampling_locations");
  return problem;
}

void check_gradient(const Tensor& gradient, const Tensor& value, const std::vector<int64_t>& size) {
  STD_TORCH_CHECK(gradient.scalar_type() == value.scalar_type(), "comer_msda: grad_output must have the dtype of value");
  check_same_device(value, gradient, "grad_output");
  check_size(gradient, size, "grad_output");
}

}  // namespace comer_msda

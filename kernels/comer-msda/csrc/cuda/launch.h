// How the kernels are launched: sizes of groups, blocks and grids, and which kernel serves which call. Works on plain
// pointers and leaves the launch itself to a `Launcher`, so that tests/emulation runs all of it without a GPU.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "kernels.cuh"

namespace comer_msda {

// More needs an opt-in of each kernel.
constexpr int64_t kMaxSharedBytes = 48 * 1024;
constexpr int32_t kMinThreads = 64;

struct LaunchSize {
  int64_t blocks;
  int32_t threads;
  int64_t shared_bytes;
};

struct Plan {
  Layout layout;
  LaunchSize size;
};

inline int32_t ceil_log2(int64_t number) {
  int32_t log2 = 0;
  while ((int64_t{1} << log2) < number) ++log2;
  return log2;
}

// Cuts the queries into tiles of 2^groups_log2: as square as can be for the fused operator, lines for the classic one.
inline void set_tiles(Layout& layout, const Problem& problem, bool fused, int32_t groups_log2) {
  layout.tile_width_log2 = fused ? (groups_log2 + 1) / 2 : groups_log2;
  layout.tile_height_log2 = groups_log2 - layout.tile_width_log2;
  layout.query_levels = fused ? problem.levels : 1;
  layout.tiles = 0;
  for (int i = 0; i < layout.query_levels; ++i) {
    QueryLevel& level = layout.query_level[i];
    level.height = fused ? problem.height[i] : 1;
    level.width = fused ? problem.width[i] : layout.queries;
    level.first_query = fused ? static_cast<int32_t>(problem.first_token[i]) : 0;
    level.first_tile = layout.tiles;
    level.tile_columns = ((level.width - 1) >> layout.tile_width_log2) + 1;
    layout.tiles += level.tile_columns * (((level.height - 1) >> layout.tile_height_log2) + 1);
  }
}

// Sizes of a launch in which each lane owns `pack` channels. Backward, `sums_size` is the size of one sum, and `kept`
// numbers a group stay in shared memory; both are 0 forward.
template <class T>
Plan make_plan(const Problem& problem, int32_t pack, bool fused, int32_t sums_size, int32_t kept) {
  const bool backward = sums_size > 0;
  constexpr int64_t kMaxRows = std::numeric_limits<int32_t>::max() - kMaxThreads;
  STD_TORCH_CHECK(problem.queries <= kMaxRows && problem.tokens <= kMaxRows, "comer_msda: at most ", kMaxRows,
                  " queries and tokens on CUDA, got ", problem.queries, " and ", problem.tokens);
  const int64_t channels = problem.heads * problem.head_dim;
  const int64_t row = problem.heads * problem.samples() * 3;
  STD_TORCH_CHECK(channels <= (1 << 27) && row <= (1 << 30), "comer_msda: too many channels on CUDA: ", channels,
                  " and projections: ", row);
  Plan plan{};
  Layout& layout = plan.layout;
  layout.heads = static_cast<int32_t>(problem.heads);
  layout.head_dim = static_cast<int32_t>(problem.head_dim);
  layout.points = problem.points;
  layout.samples = problem.samples();
  layout.tokens = static_cast<int32_t>(problem.tokens);
  layout.queries = static_cast<int32_t>(problem.queries);
  layout.value_bytes = static_cast<uint32_t>(channels * sizeof(T));
  layout.sums_bytes = static_cast<uint32_t>(channels * sums_size);
  for (int i = 0; i < problem.levels; ++i) {
    layout.level[i] = {problem.height[i], problem.width[i], static_cast<int32_t>(problem.first_token[i])};
  }
  layout.chunk = std::min(layout.samples, kMaxChunk);
  // Backward a group sums four numbers at a time, over at least four lanes.
  layout.lanes_log2 = std::clamp(ceil_log2((problem.head_dim + pack - 1) / pack), backward ? 2 : 0, 5);
  LaunchSize& size = plan.size;
  const auto shared_bytes = [&] {
    return Buffer<Arithmetic<T>>::bytes(size.threads >> layout.lanes_log2, layout.chunk, backward, kept);
  };
  // Fewer groups share a block until it fits: smaller blocks first, then more lanes a group.
  size.threads = kMaxThreads;
  while (shared_bytes() > kMaxSharedBytes && size.threads > kMinThreads) size.threads /= 2;
  while (shared_bytes() > kMaxSharedBytes) ++layout.lanes_log2;
  size.shared_bytes = shared_bytes();
  set_tiles(layout, problem, fused, ceil_log2(size.threads) - layout.lanes_log2);
  size.blocks = layout.tiles * problem.heads * problem.batch;
  STD_TORCH_CHECK(size.blocks <= std::numeric_limits<int32_t>::max(),
                  "comer_msda: too much work for one CUDA launch, split the batch of ", problem.batch);
  return plan;
}

// A launch over all elements of an array, several to a thread where there are many.
inline LaunchSize elementwise(int64_t elements) {
  constexpr int64_t kMaxBlocks = 2048;
  return {std::min((elements + kMaxThreads - 1) / kMaxThreads, kMaxBlocks), kMaxThreads, 0};
}

// Channels a lane owns: 16 bytes where rows and arrays are aligned to it, else one. Always one in double, which serves
// gradient checks.
template <class T>
constexpr int kPack = std::is_same_v<T, double> ? 1 : 16 / sizeof(T);

template <class T>
bool can_pack(const Problem& problem, std::initializer_list<const T*> arrays) {
  return problem.head_dim % kPack<T> == 0 && std::all_of(arrays.begin(), arrays.end(), [](const T* array) {
           return reinterpret_cast<uintptr_t>(array) % (kPack<T> * sizeof(T)) == 0;
         });
}

template <class T>
FusedInput<T> fused_input(const Problem& problem, const T* projection, T* grad_projection) {
  using A = Arithmetic<T>;
  FusedInput<T> input{projection, grad_projection, {}, {}};
  for (int query = 0; query < problem.levels; ++query) {
    for (int sampled = 0; sampled < problem.levels; ++sampled) {
      input.ratio_x[query][sampled] = static_cast<A>(problem.width[sampled]) / static_cast<A>(problem.width[query]);
      input.ratio_y[query][sampled] = static_cast<A>(problem.height[sampled]) / static_cast<A>(problem.height[query]);
    }
  }
  return input;
}

template <class T, class Input, class Launcher>
void run_forward(const Problem& problem, const Input& input, const T* value, T* output, const Launcher& launch) {
  const auto run = [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    const Plan plan = make_plan<T>(problem, N, Input::kSoftmax, 0, 0);
    launch(forward_kernel<T, N, Input>, plan.size, plan.layout, input, value, output);
  };
  if (problem.batch * problem.queries == 0) return;
  if (can_pack<T>(problem, {value, output})) {
    run(std::integral_constant<int, kPack<T>>());
  } else {
    run(std::integral_constant<int, 1>());
  }
}

template <class T, class Input, class Sums, class Launcher>
void run_backward(const Problem& problem, const Input& input, const T* value, const T* grad_output, const Sums& sums,
                  const Launcher& launch) {
  const auto run = [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    const int32_t kept = Input::kSoftmax ? problem.samples() : 0;
    const Plan plan = make_plan<T>(problem, N, Input::kSoftmax, sizeof(typename Sums::Element), kept);
    launch(backward_kernel<T, N, Input, Sums>, plan.size, plan.layout, input, value, grad_output, sums);
  };
  if (problem.batch * problem.queries == 0) return;
  if (can_pack<T>(problem, {value, grad_output})) {
    run(std::integral_constant<int, kPack<T>>());
  } else {
    run(std::integral_constant<int, 1>());
  }
}

// Backward with the gradient of `value` summed in fixed point. `sums` (the shape of `value`) and `maximum` (2) start
// at zero. `weights` has `weight_count` elements, none for the fused operator: its attention is at most 1.
template <class T, class Input, class Launcher>
void run_deterministic_backward(const Problem& problem, const Input& input, const T* value, const T* grad_output,
                                const Arithmetic<T>* weights, int64_t weight_count, unsigned long long* sums,
                                unsigned long long* maximum, T* grad_value, const Launcher& launch) {
  const int64_t channels = problem.heads * problem.head_dim;
  const int64_t outputs = problem.batch * problem.queries * channels;
  const int64_t values = problem.batch * problem.tokens * channels;
  if (values == 0) return;
  const FixedSums<Arithmetic<T>> fixed{sums, maximum, ceil_log2(problem.queries * problem.samples()), 0};
  if (outputs > 0) launch(maximum_kernel<T>, elementwise(outputs), grad_output, outputs, maximum);
  if (weight_count > 0) {
    launch(maximum_kernel<Arithmetic<T>>, elementwise(weight_count), weights, weight_count, maximum + 1);
  }
  run_backward<T>(problem, input, value, grad_output, fixed, launch);
  launch(fixed_sums_kernel<T>, elementwise(values), fixed, values, grad_value);
}

}  // namespace comer_msda

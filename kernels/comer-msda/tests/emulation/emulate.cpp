// kernels.cuh and launch.h, run on the CPU; C functions for ctypes. Each returns null, or what went wrong.
#include "cuda_emulation.h"
//
#include "../../csrc/cuda/launch.h"

namespace comer_msda {

uint4 shared_memory[2 * emulation::kSharedBytes / sizeof(uint4)];

namespace {

struct EmulatedLauncher {
  uint64_t seed;

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), const LaunchSize& size, const Arguments&... arguments) const {
    const emulation::SharedMemory shared{reinterpret_cast<unsigned char*>(shared_memory), sizeof(shared_memory)};
    emulation::run_grid(size.blocks, size.threads, size.shared_bytes, shared, seed, [&] { kernel(arguments...); });
  }
};

// sizes: batch, queries, heads, head_dim, points, levels, then height and width of each level.
Problem make_problem(const int64_t* sizes) {
  Problem problem{};
  problem.batch = sizes[0];
  problem.queries = sizes[1];
  problem.heads = sizes[2];
  problem.head_dim = sizes[3];
  problem.points = static_cast<int32_t>(sizes[4]);
  problem.levels = static_cast<int32_t>(sizes[5]);
  for (int i = 0; i < problem.levels; ++i) {
    problem.height[i] = static_cast<int32_t>(sizes[6 + 2 * i]);
    problem.width[i] = static_cast<int32_t>(sizes[7 + 2 * i]);
    problem.first_token[i] = problem.tokens;
    problem.tokens += int64_t{problem.height[i]} * problem.width[i];
  }
  return problem;
}

template <class Function>
const char* guarded(const Function& function) {
  static std::string message;
  try {
    emulation::memory.clear();
    emulation::wide_loads = emulation::wide_adds = 0;
    function();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

template <class Function>
void with_type(int dtype, const Function& function) {
  switch (dtype) {
    case 0:
      return function(static_cast<float*>(nullptr));
    case 1:
      return function(static_cast<c10::Half*>(nullptr));
    case 2:
      return function(static_cast<c10::BFloat16*>(nullptr));
    default:
      return function(static_cast<double*>(nullptr));
  }
}

// The typed array at `pointer`, declared to the emulation where the kernels read it.
template <class T>
const T* input(const void* pointer, int64_t elements) {
  emulation::memory.declare(pointer, elements * sizeof(T));
  return static_cast<const T*>(pointer);
}

int64_t value_count(const Problem& problem) {
  return problem.batch * problem.tokens * problem.heads * problem.head_dim;
}

int64_t output_count(const Problem& problem) {
  return problem.batch * problem.queries * problem.heads * problem.head_dim;
}

int64_t sample_count(const Problem& problem) {
  return problem.batch * problem.queries * problem.heads * problem.samples();
}

// Both ways to the gradient of `value`, as value_gradient() of comer_msda_cuda.cu.
template <class T, class Input>
void backward(const Problem& problem, const Input& in, const T* value, const T* grad_output,
              const Arithmetic<T>* weights, T* grad_value, bool deterministic, uint64_t seed) {
  using A = Arithmetic<T>;
  const EmulatedLauncher launch{seed};
  const int64_t count = value_count(problem);
  if (!deterministic) {
    // 16-byte aligned, as what the allocator of torch returns.
    std::vector<float4> memory(count * sizeof(A) / sizeof(float4) + 1, float4{});
    A* sums = reinterpret_cast<A*>(memory.data());
    emulation::memory.declare(sums, count * sizeof(A));
    run_backward<T>(problem, in, value, grad_output, FloatSums<A>{sums}, launch);
    std::transform(sums, sums + count, grad_value, [](A sum) { return static_cast<T>(sum); });
  } else {
    std::vector<unsigned long long> sums(count), maximum(2);
    emulation::memory.declare(sums.data(), count * sizeof(sums[0]));
    emulation::memory.declare(maximum.data(), 2 * sizeof(maximum[0]));
    run_deterministic_backward<T>(problem, in, value, grad_output, weights, weights ? sample_count(problem) : 0,
                                  sums.data(), maximum.data(), grad_value, launch);
  }
}

}  // namespace
}  // namespace comer_msda

using namespace comer_msda;

extern "C" {

int64_t emulated_wide_loads() { return emulation::wide_loads; }

int64_t emulated_wide_adds() { return emulation::wide_adds; }

const char* emulate_fused_forward(int dtype, const int64_t* sizes, const void* value, const void* projection,
                                  void* output, uint64_t seed) {
  return guarded([&] {
    with_type(dtype, [&]<class T>(T*) {
      const Problem problem = make_problem(sizes);
      const auto in = fused_input<T>(problem, input<T>(projection, 3 * sample_count(problem)), nullptr);
      run_forward<T>(problem, in, input<T>(value, value_count(problem)), static_cast<T*>(output),
                     EmulatedLauncher{seed});
    });
  });
}

const char* emulate_fused_backward(int dtype, const int64_t* sizes, const void* grad_output, const void* value,
                                   const void* projection, void* grad_value, void* grad_projection, bool deterministic,
                                   uint64_t seed) {
  return guarded([&] {
    with_type(dtype, [&]<class T>(T*) {
      const Problem problem = make_problem(sizes);
      const auto in = fused_input<T>(problem, input<T>(projection, 3 * sample_count(problem)),
                                     static_cast<T*>(grad_projection));
      backward<T>(problem, in, input<T>(value, value_count(problem)), input<T>(grad_output, output_count(problem)),
                  nullptr, static_cast<T*>(grad_value), deterministic, seed);
    });
  });
}

const char* emulate_classic_forward(int dtype, const int64_t* sizes, const void* value, const void* locations,
                                    const void* weights, void* output, uint64_t seed) {
  return guarded([&] {
    with_type(dtype, [&]<class T>(T*) {
      using A = Arithmetic<T>;
      const Problem problem = make_problem(sizes);
      const int64_t samples = sample_count(problem);
      const ClassicInput<T> in{input<A>(locations, 2 * samples), input<A>(weights, samples), nullptr, nullptr};
      run_forward<T>(problem, in, input<T>(value, value_count(problem)), static_cast<T*>(output),
                     EmulatedLauncher{seed});
    });
  });
}

const char* emulate_classic_backward(int dtype, const int64_t* sizes, const void* grad_output, const void* value,
                                     const void* locations, const void* weights, void* grad_value,
                                     void* grad_locations, void* grad_weights, bool deterministic, uint64_t seed) {
  return guarded([&] {
    with_type(dtype, [&]<class T>(T*) {
      using A = Arithmetic<T>;
      const Problem problem = make_problem(sizes);
      const int64_t samples = sample_count(problem);
      const ClassicInput<T> in{input<A>(locations, 2 * samples), input<A>(weights, samples),
                               static_cast<A*>(grad_locations), static_cast<A*>(grad_weights)};
      backward<T>(problem, in, input<T>(value, value_count(problem)), input<T>(grad_output, output_count(problem)),
                  in.weights, static_cast<T*>(grad_value), deterministic, seed);
    });
  });
}

// result: blocks, threads, shared bytes, lanes, samples of a chunk, height and width of a tile.
const char* emulate_plan(const int64_t* sizes, bool fused, bool backward, int64_t* result) {
  return guarded([&] {
    const Problem problem = make_problem(sizes);
    const Plan plan = make_plan<float>(problem, 1, fused, backward ? 4 : 0, backward && fused ? problem.samples() : 0);
    result[0] = plan.size.blocks;
    result[1] = plan.size.threads;
    result[2] = plan.size.shared_bytes;
    result[3] = 1 << plan.layout.lanes_log2;
    result[4] = plan.layout.chunk;
    result[5] = 1 << plan.layout.tile_height_log2;
    result[6] = 1 << plan.layout.tile_width_log2;
  });
}

// What a kernel may do wrong: the emulation must say so.
const char* emulate_mistake(int mistake) {
  return guarded([&] {
    alignas(16) float numbers[8] = {};
    emulation::memory.declare(numbers, sizeof(numbers));
    const emulation::SharedMemory shared{reinterpret_cast<unsigned char*>(shared_memory), sizeof(shared_memory)};
    emulation::run_grid(1, 32, 16, shared, 0, [&] {
      const bool odd_one = threadIdx.x == 5;
      if (mistake == 0 && odd_one) return;
      if (mistake == 1 && odd_one) __syncwarp();
      if (mistake == 2) __ldg(numbers + (odd_one ? 8 : 0));
      if (mistake == 3) load<float, 4>(numbers + (odd_one ? 1 : 4));
      if (mistake == 4 && odd_one) atomicAdd(numbers - 1, 1.0f);
      if (mistake == 5 && odd_one) shared_memory[1] = {};
      __shfl_xor_sync(kWarp, 1, 1);
    });
  });
}
}

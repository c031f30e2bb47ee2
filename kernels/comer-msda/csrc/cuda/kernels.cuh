// The CUDA kernels. Device code only, and no include beyond torch/headeronly: tests/emulation compiles this very text
// for the CPU. What the operators compute is told in torch-ext/comer_msda/__init__.py.
//
// Work. A group of `lanes` threads (a power of two, at most a warp) serves one query and head. Each lane owns one pack
// of channels (16 bytes where alignment allows). The lanes share the work on the samples: each computes the location
// and weights of some, puts them into shared memory, and all lanes read them from there. A block serves one head of a
// tile of neighbouring queries, which sample neighbouring pixels: most reads of `value` then hit the L1 cache.
//
// Memory. Global memory is read by __ldg and added to by atomics only: the emulation checks their addresses. Rows of
// `value` fit in int32, addresses are 64 bit.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../problem.h"

namespace comer_msda {

constexpr int kMaxThreads = 256;
constexpr unsigned kWarp = 0xffffffffu;
constexpr int kWarpSize = 32;

// Samples are prepared in chunks of at most this many, which bounds shared memory.
constexpr int kMaxChunk = 16;

template <class T>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
// What a kernel on elements T computes in.
template <class T>
using Arithmetic = typename ArithmeticOf<T>::type;

struct SampledLevel {
  int32_t height, width, first_token;
};

struct QueryLevel {
  int32_t height, width, first_query;
  int32_t first_tile;    // counted through all levels of one image
  int32_t tile_columns;  // tiles side by side
};

// What every kernel needs to know about a call.
struct Layout {
  int32_t heads, head_dim, points, samples;
  int32_t tokens, queries;
  uint32_t value_bytes, sums_bytes;  // of one token's row in `value` and in the sums of its gradient
  SampledLevel level[kMaxLevels];
  // The queries as grids, cut into tiles of 2^tile_height_log2 x 2^tile_width_log2. The fused operator's queries are
  // the levels themselves, the classic one's are a single line.
  int32_t query_levels, tiles;
  int32_t tile_height_log2, tile_width_log2;
  QueryLevel query_level[kMaxLevels];
  int32_t lanes_log2;
  int32_t chunk;
};

// --------------------------------------------------------------------------------------------------------------------
// Memory

template <int bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned int;
};
template <>
struct WordOf<8> {
  using type = unsigned long long;
};
template <>
struct WordOf<16> {
  using type = uint4;
};

// N elements that are read or written at once, by one instruction.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  using Word = typename WordOf<N * sizeof(T)>::type;
  T at[N];
};

template <class T, int N>
__device__ __forceinline__ Pack<T, N> load(const T* source) {
  using Word = typename Pack<T, N>::Word;
  const Word word = __ldg(reinterpret_cast<const Word*>(source));
  Pack<T, N> pack;
  memcpy(&pack, &word, sizeof(pack));
  return pack;
}

template <class T, int N>
__device__ __forceinline__ void unpack(const Pack<T, N>& pack, Arithmetic<T> (&numbers)[N]) {
  if constexpr (std::is_same_v<T, c10::BFloat16> && N % 2 == 0) {
    // A bfloat16 is the upper half of a float. One instruction each; element by element the compiler needs two.
    uint32_t words[N / 2];
    memcpy(words, &pack, sizeof(pack));
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const uint32_t bits = n % 2 == 0 ? words[n / 2] << 16 : words[n / 2] & 0xffff0000u;
      memcpy(&numbers[n], &bits, sizeof(bits));
    }
  } else {
#pragma unroll
    for (int n = 0; n < N; ++n) numbers[n] = static_cast<Arithmetic<T>>(pack.at[n]);
  }
}

template <class T>
__device__ __forceinline__ Arithmetic<T> load_one(const T* source) {
  return static_cast<Arithmetic<T>>(load<T, 1>(source).at[0]);
}

template <class T, int N>
__device__ __forceinline__ void store(T* target, const Arithmetic<T> (&numbers)[N]) {
  using Word = typename Pack<T, N>::Word;
  Pack<T, N> pack;
#pragma unroll
  for (int n = 0; n < N; ++n) pack.at[n] = static_cast<T>(numbers[n]);
  Word word;
  memcpy(&word, &pack, sizeof(word));
  *reinterpret_cast<Word*>(target) = word;
}

template <class T>
__device__ __forceinline__ void store_one(T* target, Arithmetic<T> number) {
  store<T, 1>(target, {number});
}

// The same place, `row` rows on. Bytes, and unsigned: 32 bits times 32 bits added to an address is one instruction.
template <class E>
__device__ __forceinline__ E* rows_on(E* place, uint32_t row, uint32_t row_bytes) {
  // No detour through an integer: the compiler would lose track of the address being global memory.
  using Byte = std::conditional_t<std::is_const_v<E>, const char, char>;
  return reinterpret_cast<E*>(reinterpret_cast<Byte*>(place) + static_cast<uint64_t>(row) * row_bytes);
}

// --------------------------------------------------------------------------------------------------------------------
// Groups of lanes. All lanes of a warp take part in every exchange, in the same order.

struct Max {
  template <class N>
  __device__ __forceinline__ N operator()(N a, N b) const {
    return a > b ? a : b;
  }
};

struct Sum {
  template <class N>
  __device__ __forceinline__ N operator()(N a, N b) const {
    return a + b;
  }
};

// Every lane gets the result of its group of 2^lanes_log2.
template <class Operation, class N>
__device__ __forceinline__ N reduce(Operation operation, N number, int lanes_log2) {
#pragma unroll 1
  for (int step = 0; step < lanes_log2; ++step) {
    number = operation(number, __shfl_xor_sync(kWarp, number, 1 << step));
  }
  return number;
}

// Four sums over a group of at least four lanes: lane i gets sum i % 4. As each lane hands over, at the first two
// steps, what others will add up, this takes log2(lanes) + 1 exchanges, and not 4 log2(lanes).
template <class A>
__device__ __forceinline__ A reduce_four(const A (&number)[4], int lane, int lanes_log2) {
  const bool odd = lane & 1, upper = lane & 2;
  const A low = (odd ? number[1] : number[0]) + __shfl_xor_sync(kWarp, odd ? number[0] : number[1], 1);
  const A high = (odd ? number[3] : number[2]) + __shfl_xor_sync(kWarp, odd ? number[2] : number[3], 1);
  A sum = (upper ? high : low) + __shfl_xor_sync(kWarp, upper ? low : high, 2);
#pragma unroll 1
  for (int step = 2; step < lanes_log2; ++step) sum += __shfl_xor_sync(kWarp, sum, 1 << step);
  return sum;
}

// What one lane works on.
struct Task {
  int32_t lane, lanes;  // of the group
  int32_t group;        // of the block
  int32_t image, head;
  int32_t level, row, column;  // of the query
  int32_t query;
  bool valid;  // false where a tile reaches beyond its level: the lane repeats the edge's query, and writes nothing

  // Index of the query's first element in an array (batch, queries, row).
  __device__ __forceinline__ int64_t row_of(const Layout& layout, int64_t row_size) const {
    return (static_cast<int64_t>(image) * layout.queries + query) * row_size;
  }

  // Index of the head's first channel of token 0, in `value`.
  __device__ __forceinline__ int64_t table(const Layout& layout) const {
    return (static_cast<int64_t>(image) * layout.tokens * layout.heads + head) * layout.head_dim;
  }

  // Index of the head's first channel, in the output.
  __device__ __forceinline__ int64_t output(const Layout& layout) const {
    return (row_of(layout, layout.heads) + head) * layout.head_dim;
  }
};

// Blocks count heads fastest, then tiles, then images: what runs at one time shares rows in the L2 cache.
__device__ __forceinline__ Task find_task(const Layout& layout) {
  Task task;
  task.lanes = 1 << layout.lanes_log2;
  task.lane = threadIdx.x & (task.lanes - 1);
  task.group = threadIdx.x >> layout.lanes_log2;
  const uint32_t heads = layout.heads, tiles = layout.tiles;
  const uint32_t batch_tile = blockIdx.x / heads;
  task.head = static_cast<int32_t>(blockIdx.x % heads);
  task.image = static_cast<int32_t>(batch_tile / tiles);
  const int32_t image_tile = static_cast<int32_t>(batch_tile % tiles);
  task.level = 0;
  while (task.level + 1 < layout.query_levels && image_tile >= layout.query_level[task.level + 1].first_tile) {
    ++task.level;
  }
  const QueryLevel& level = layout.query_level[task.level];
  const uint32_t tile = image_tile - level.first_tile, tile_columns = level.tile_columns;
  const int32_t tile_row = tile / tile_columns, tile_column = tile % tile_columns;
  const int32_t row = (tile_row << layout.tile_height_log2) + (task.group >> layout.tile_width_log2);
  const int32_t tile_width = 1 << layout.tile_width_log2;
  const int32_t column = tile_column * tile_width + (task.group & (tile_width - 1));
  task.valid = row < level.height && column < level.width;
  task.row = row < level.height ? row : level.height - 1;
  task.column = column < level.width ? column : level.width - 1;
  task.query = level.first_query + task.row * level.width + task.column;
  return task;
}

// --------------------------------------------------------------------------------------------------------------------
// Inputs: where each query samples, and with what attention. An Input holds a call's arrays, its Reader those of one
// query and head.

// The classic operator: locations as fractions of the image, weights as they are. T is the type of `value`.
template <class T>
struct ClassicInput {
  using A = Arithmetic<T>;
  static constexpr bool kSoftmax = false;

  const A* locations;  // (batch, queries, heads, levels, points, xy)
  const A* weights;    // (batch, queries, heads, levels, points)
  A* grad_locations;   // the gradients only backward
  A* grad_weights;

  struct Reader {
    const ClassicInput& input;
    int64_t first;  // sample of the query and head

    __device__ __forceinline__ Reader(const ClassicInput& input, const Layout& layout, const Task& task)
        : input(input), first((task.row_of(layout, layout.heads) + task.head) * layout.samples) {}

    __device__ __forceinline__ A attention(int sample) const { return load_one(input.weights + first + sample); }

    // Pixel 0 is the first cell's centre, hence the -0.5.
    __device__ __forceinline__ A x(int sample, int, int width) const {
      return load_one(input.locations + 2 * first + 2 * sample) * width - A(0.5);
    }

    __device__ __forceinline__ A y(int sample, int, int height) const {
      return load_one(input.locations + 2 * first + 2 * sample + 1) * height - A(0.5);
    }

    __device__ __forceinline__ void store_location_gradient(int sample, const SampledLevel& level, A x, A y) const {
      store_one(input.grad_locations + 2 * first + 2 * sample, x * level.width);
      store_one(input.grad_locations + 2 * first + 2 * sample + 1, y * level.height);
    }

    __device__ __forceinline__ void store_attention_gradient(int sample, A gradient) const {
      store_one(input.grad_weights + first + sample, gradient);
    }
  };
};

// The fused operator: offsets in pixels of the sampled level from the query's own cell, logits of a softmax.
template <class T>
struct FusedInput {
  using A = Arithmetic<T>;
  static constexpr bool kSoftmax = true;

  const T* projection;  // (batch, queries, row): offsets (heads, samples, xy), then logits (heads, samples)
  T* grad_projection;   // only backward
  // [level of the query][sampled level]: the sampled width (height) over the query's. Mostly a power of two, so that
  // the centre of the query's cell in pixels of the sampled level is exact.
  A ratio_x[kMaxLevels][kMaxLevels], ratio_y[kMaxLevels][kMaxLevels];

  struct Reader {
    const FusedInput& input;
    int64_t row;                        // index of the query's first element
    int32_t first_offset, first_logit;  // of the head, in the row
    int32_t level;
    A centre_x, centre_y;  // of the query's cell, in its own level
    A maximum, inverse_sum;

    __device__ __forceinline__ Reader(const FusedInput& input, const Layout& layout, const Task& task)
        : input(input),
          row(task.row_of(layout, 3 * layout.heads * layout.samples)),
          first_offset(2 * task.head * layout.samples),
          first_logit((2 * layout.heads + task.head) * layout.samples),
          level(task.level),
          centre_x(task.column + A(0.5)),
          centre_y(task.row + A(0.5)) {
      set_softmax(layout, task);
    }

    __device__ __forceinline__ A read(int index) const { return load_one(input.projection + row + index); }

    __device__ __forceinline__ A logit(int sample) const { return read(first_logit + sample); }

    __device__ __forceinline__ A power(int sample) const { return exp(logit(sample) - maximum); }

    __device__ __forceinline__ void set_softmax(const Layout& layout, const Task& task) {
      // The maximum may lose a NaN, the sum does not.
      maximum = logit(0);
      for (int k = task.lane; k < layout.samples; k += task.lanes) maximum = Max()(logit(k), maximum);
      maximum = reduce(Max(), maximum, layout.lanes_log2);
      A sum = 0;
      for (int k = task.lane; k < layout.samples; k += task.lanes) sum += power(k);
      inverse_sum = 1 / reduce(Sum(), sum, layout.lanes_log2);
    }

    __device__ __forceinline__ A attention(int sample) const { return power(sample) * inverse_sum; }

    // Pixel 0 is the first cell's centre, hence the -0.5.
    __device__ __forceinline__ A x(int sample, int sampled, int) const {
      return read(first_offset + 2 * sample) + (centre_x * input.ratio_x[level][sampled] - A(0.5));
    }

    __device__ __forceinline__ A y(int sample, int sampled, int) const {
      return read(first_offset + 2 * sample + 1) + (centre_y * input.ratio_y[level][sampled] - A(0.5));
    }

    __device__ __forceinline__ void store_location_gradient(int sample, const SampledLevel&, A x, A y) const {
      store_one(input.grad_projection + row + first_offset + 2 * sample, x);
      store_one(input.grad_projection + row + first_offset + 2 * sample + 1, y);
    }

    __device__ __forceinline__ void store_attention_gradient(int sample, A gradient) const {
      store_one(input.grad_projection + row + first_logit + sample, gradient);
    }
  };
};

// --------------------------------------------------------------------------------------------------------------------
// Samples

// The two pixels round a location, along one axis. One outside the level counts as zero by its weight: the pixel read
// in its place must not be infinite or NaN.
template <class A>
struct Neighbours {
  int32_t low, high;          // clamped into the level: always a readable address
  A low_inside, high_inside;  // 1 inside the level, 0 outside
  A low_weight, high_weight;  // 0 outside the level; NaN at a NaN location
};

template <class A>
__device__ __forceinline__ Neighbours<A> neighbours(A location, int32_t size) {
  // One pixel and more outside all weights are zero: this keeps huge and infinite locations within the integers, and
  // NaN, which compares false, as it is.
  if (location < A(-1)) location = A(-2);
  if (location > A(size)) location = A(size) + 1;
  const A whole = floor(location), part = location - whole;
  const int32_t low = location == location ? static_cast<int32_t>(whole) : 0;
  Neighbours<A> pixels;
  pixels.low_inside = low >= 0 && low < size;
  pixels.high_inside = low >= -1 && low < size - 1;
  pixels.low_weight = (1 - part) * pixels.low_inside;
  pixels.high_weight = part * pixels.high_inside;
  pixels.low = low < 0 ? 0 : low < size ? low : size - 1;
  pixels.high = low < -1 ? 0 : low < size - 1 ? low + 1 : size - 1;
  return pixels;
}

template <class A>
struct alignas(16) Quad {
  A at[4];
};

struct alignas(16) Rows {
  uint32_t at[4];
};

// One sample. Corners are numbered upper left, upper right, lower left, lower right.
template <class A>
struct Sample {
  SampledLevel level;
  Neighbours<A> x, y;

  template <class Reader>
  __device__ __forceinline__ Sample(const Reader& reader, const Layout& layout, int sample) {
    const int sampled = static_cast<uint32_t>(sample) / static_cast<uint32_t>(layout.points);
    level = layout.level[sampled];
    x = neighbours(reader.x(sample, sampled, level.width), level.width);
    y = neighbours(reader.y(sample, sampled, level.height), level.height);
  }

  __device__ __forceinline__ Quad<A> weights(A attention) const {
    const A upper = attention * y.low_weight, lower = attention * y.high_weight;
    return {{upper * x.low_weight, upper * x.high_weight, lower * x.low_weight, lower * x.high_weight}};
  }

  __device__ __forceinline__ Rows rows() const {
    const uint32_t upper = level.first_token + y.low * level.width, lower = level.first_token + y.high * level.width;
    return {{upper + x.low, upper + x.high, lower + x.low, lower + x.high}};
  }

  // The gradients of the sample's attention, x and y from those of its corners' weights.
  __device__ __forceinline__ A attention_gradient(const Quad<A>& corners) const {
    return y.low_weight * (x.low_weight * corners.at[0] + x.high_weight * corners.at[1]) +
           y.high_weight * (x.low_weight * corners.at[2] + x.high_weight * corners.at[3]);
  }

  __device__ __forceinline__ A x_gradient(const Quad<A>& corners) const {
    return y.low_weight * (x.high_inside * corners.at[1] - x.low_inside * corners.at[0]) +
           y.high_weight * (x.high_inside * corners.at[3] - x.low_inside * corners.at[2]);
  }

  __device__ __forceinline__ A y_gradient(const Quad<A>& corners) const {
    return x.low_weight * (y.high_inside * corners.at[2] - y.low_inside * corners.at[0]) +
           x.high_weight * (y.high_inside * corners.at[3] - y.low_inside * corners.at[1]);
  }
};

// The shared memory of one group.
template <class A>
struct Buffer {
  Quad<A>* weights;        // of a chunk's samples: attention times bilinear weight of each corner
  Rows* rows;              // of `value`, of each corner
  Quad<A>* gradients;      // backward: gradients of `weights`
  A* attention_gradients;  // backward through the softmax: of all samples

  // An odd stride spreads the groups of a warp over the memory banks.
  __host__ __device__ static int32_t stride(int32_t chunk) { return chunk | 1; }

  // Bytes for all groups of a block. `kept` is the length of attention_gradients.
  __host__ __device__ static int64_t bytes(int32_t groups, int32_t chunk, bool backward, int32_t kept) {
    const int64_t sample = (backward ? 2 : 1) * sizeof(Quad<A>) + sizeof(Rows);
    return groups * (stride(chunk) * sample + kept * static_cast<int64_t>(sizeof(A)));
  }

  // Backward arrays come last; without them their pointers are never used.
  __device__ __forceinline__ Buffer(void* memory, const Layout& layout, int32_t group) {
    const int32_t groups = blockDim.x >> layout.lanes_log2, size = groups * stride(layout.chunk);
    weights = static_cast<Quad<A>*>(memory);
    rows = reinterpret_cast<Rows*>(weights + size);
    gradients = reinterpret_cast<Quad<A>*>(rows + size);
    attention_gradients = reinterpret_cast<A*>(gradients + size) + group * layout.samples;
    weights += group * stride(layout.chunk);
    rows += group * stride(layout.chunk);
    gradients += group * stride(layout.chunk);
  }
};

// Fills the buffer with samples first ... first + count - 1; the lanes take turns.
template <bool kBackward, class A, class Reader>
__device__ __forceinline__ void prepare_chunk(const Reader& reader, const Layout& layout, const Task& task,
                                              const Buffer<A>& buffer, int first, int count) {
  __syncwarp();  // the previous chunk has been read
  for (int i = task.lane; i < count; i += task.lanes) {
    const Sample<A> sample(reader, layout, first + i);
    buffer.weights[i] = sample.weights(reader.attention(first + i));
    buffer.rows[i] = sample.rows();
    if constexpr (kBackward) buffer.gradients[i] = {};
  }
  __syncwarp();
}

__device__ __forceinline__ int chunk_size(const Layout& layout, int first) {
  return layout.samples - first < layout.chunk ? layout.samples - first : layout.chunk;
}

extern __shared__ uint4 shared_memory[];

// --------------------------------------------------------------------------------------------------------------------
// Forward

// Adds a chunk's samples of one pack of channels to `sums`. `value` points at these channels of token 0.
template <class T, int N, class A>
__device__ __forceinline__ void gather(const T* value, uint32_t value_bytes, const Buffer<A>& buffer, int count,
                                       A (&sums)[N]) {
#pragma unroll 2
  for (int i = 0; i < count; ++i) {
    const Quad<A> weights = buffer.weights[i];
    const Rows rows = buffer.rows[i];
    Pack<T, N> corners[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) corners[c] = load<T, N>(rows_on(value, rows.at[c], value_bytes));
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      A numbers[N];
      unpack(corners[c], numbers);
#pragma unroll
      for (int n = 0; n < N; ++n) sums[n] += weights.at[c] * numbers[n];
    }
  }
}

// value (batch, tokens, heads, head_dim), output (batch, queries, heads, head_dim); N channels a lane.
template <class T, int N, class Input>
__global__ void __launch_bounds__(kMaxThreads, 4)
    forward_kernel(const __grid_constant__ Layout layout, const __grid_constant__ Input input,
                   const T* __restrict__ value, T* __restrict__ output) {
  using A = Arithmetic<T>;
  const Task task = find_task(layout);
  const typename Input::Reader reader(input, layout, task);
  const Buffer<A> buffer(shared_memory, layout, task.group);
  // One turn, but for heads of more channels than a warp holds.
  for (int first_channel = 0; first_channel < layout.head_dim; first_channel += task.lanes * N) {
    const int channel = first_channel + task.lane * N;
    const bool active = task.valid && channel < layout.head_dim;
    A sums[N] = {};
    for (int first = 0; first < layout.samples; first += layout.chunk) {
      const int count = chunk_size(layout, first);
      prepare_chunk<false>(reader, layout, task, buffer, first, count);
      if (active) gather<T, N>(value + task.table(layout) + channel, layout.value_bytes, buffer, count, sums);
    }
    if (active) store<T, N>(output + task.output(layout) + channel, sums);
  }
}

// --------------------------------------------------------------------------------------------------------------------
// Backward: where the gradient of `value` is summed up

// Floating point: as fast as the hardware adds, in an order that differs from run to run.
template <class A>
struct FloatSums {
  using Element = A;
  A* data;

  // Blocks to a multiprocessor: as many as need no spilled registers.
  static constexpr int kBlocks = sizeof(A) == 4 ? 3 : 2;

  // Elements that one instruction adds, of a lane's N.
  template <int N>
  static constexpr int kWidth = sizeof(A) == 4 && N % 4 == 0 ? 4 : 1;

  __device__ __forceinline__ void prepare() {}
  __device__ __forceinline__ void check(A) const {}

  __device__ __forceinline__ void add(A* target, const A (&terms)[1]) const { atomicAdd(target, terms[0]); }

  __device__ __forceinline__ void add(float* target, const float (&terms)[4]) const {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(target), make_float4(terms[0], terms[1], terms[2], terms[3]));
#else
#pragma unroll
    for (int i = 0; i < 4; ++i) atomicAdd(target + i, terms[i]);
#endif
  }
};

// The exponent e of a number given as the bits of a non-negative double: it is below 2^(e + 1). Zero counts as 1.
__device__ __forceinline__ int exponent_of(unsigned long long bits) {
  return bits == 0 ? 0 : static_cast<int>(bits >> 52) - 1023;
}

constexpr unsigned long long kInfinityBits = 0x7ffull << 52, kNaNBits = 0xfffull << 51;

// Fixed point: integer sums do not depend on their order. The unit is a power of two such that no sum can overflow,
// found from the largest inputs: for 2^18 terms 2^-42 of the largest possible, finer than a float's own rounding.
template <class A>
struct FixedSums {
  using Element = unsigned long long;
  unsigned long long* data;     // int64 sums, in two's complement
  unsigned long long* maximum;  // [2]: of |grad_output|, of |weights|, as the bits of a double; 0 where not computed
  int32_t terms_log2;           // at most 2^terms_log2 samples fall on one pixel

  static constexpr int kBlocks = 2;

  template <int N>
  static constexpr int kWidth = 1;

  int32_t scale_log2;

  // |sum| < 2^terms_log2 * 2^(e0 + 1) * 2^(e1 + 1), to be kept below 2^62.
  __device__ __forceinline__ void prepare() {
    scale_log2 = 60 - terms_log2 - exponent_of(__ldcg(maximum)) - exponent_of(__ldcg(maximum + 1));
  }

  // No integer stands for NaN and infinity: one of them makes the whole gradient NaN.
  __device__ __forceinline__ void check(A weight) const {
    if (!isfinite(weight)) atomicMax(maximum, kNaNBits);
  }

  __device__ __forceinline__ void add(unsigned long long* target, const A (&terms)[1]) const {
    atomicAdd(target, static_cast<unsigned long long>(llrint(ldexp(terms[0], scale_log2))));
  }

  __device__ __forceinline__ bool overflow() const {
    const unsigned long long gradient = __ldcg(maximum), weight = __ldcg(maximum + 1);
    constexpr int kLargest = sizeof(A) == 4 ? 127 : 1023;
    return gradient >= kInfinityBits || weight >= kInfinityBits ||
           exponent_of(gradient) + exponent_of(weight) + 2 > kLargest;
  }

  __device__ __forceinline__ A result(unsigned long long sum) const {
    return static_cast<A>(ldexp(static_cast<double>(static_cast<long long>(sum)), -scale_log2));
  }
};

// maximum = max(maximum, |numbers|), as the bits of a double. Bits of non-negative numbers order like the numbers,
// with infinity and NaN on top.
template <class T>
__global__ void __launch_bounds__(kMaxThreads)
    maximum_kernel(const T* __restrict__ numbers, int64_t size, unsigned long long* __restrict__ maximum) {
  unsigned long long largest = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += step) {
    const double number = fabs(static_cast<double>(load_one(numbers + i)));
    unsigned long long bits;
    memcpy(&bits, &number, sizeof(bits));
    largest = Max()(bits, largest);
  }
  largest = reduce(Max(), largest, 5);
  if (threadIdx.x % kWarpSize == 0) atomicMax(maximum, largest);
}

// grad_value from the finished sums.
template <class T>
__global__ void __launch_bounds__(kMaxThreads)
    fixed_sums_kernel(FixedSums<Arithmetic<T>> sums, int64_t size, T* __restrict__ grad_value) {
  sums.prepare();
  const bool overflow = sums.overflow();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += step) {
    const Arithmetic<T> number = sums.result(__ldg(sums.data + i));
    store_one(grad_value + i, overflow ? static_cast<Arithmetic<T>>(NAN) : number);
  }
}

// --------------------------------------------------------------------------------------------------------------------
// Backward

// One lane's part of grad_output, for one pass over the channels. It is held twice: as N neighbouring channels, as
// `value` is read, and as N / W packs so laid out that one instruction of all lanes adds to neighbouring addresses.
template <class T, int N, int W>
struct OutputGradient {
  using A = Arithmetic<T>;
  int channel;  // of `own`
  bool active;
  A own[N];
  int first_spread;  // channel of spread[0]
  A spread[N / W][W];
  bool spread_active[N / W];

  __device__ __forceinline__ OutputGradient(const T* source, const Layout& layout, const Task& task,
                                            int first_channel) {
    channel = first_channel + task.lane * N;
    active = task.valid && channel < layout.head_dim;
#pragma unroll
    for (int n = 0; n < N; ++n) own[n] = 0;
    if (active) read(source + channel, own);
    first_spread = first_channel + task.lane * W;
#pragma unroll
    for (int p = 0; p < N / W; ++p) {
      const int part = first_spread + p * task.lanes * W;
      spread_active[p] = part < layout.head_dim;
      if (spread_active[p]) read(source + part, spread[p]);
    }
  }

  template <int M>
  __device__ __forceinline__ static void read(const T* source, A (&numbers)[M]) {
    unpack(load<T, M>(source), numbers);
  }
};

// Adds weight * gradient to one row of the gradient of `value`; `target` points at the lane's first channel there.
template <class T, int N, int W, class Sums>
__device__ __forceinline__ void scatter(const Sums& sums, typename Sums::Element* target, Arithmetic<T> weight,
                                        const OutputGradient<T, N, W>& gradient, int32_t lanes) {
  sums.check(weight);
#pragma unroll
  for (int p = 0; p < N / W; ++p) {
    Arithmetic<T> terms[W];
#pragma unroll
    for (int w = 0; w < W; ++w) terms[w] = weight * gradient.spread[p][w];
    if (gradient.spread_active[p]) sums.add(target + p * lanes * W, terms);
  }
}

// A chunk's samples over one pass of channels: scatters into the gradient of `value`, and adds the gradients of the
// corners' weights to the buffer. `value` and `table` point at the head's first channel of token 0.
template <class T, int N, int W, class Sums>
__device__ __forceinline__ void backward_chunk(const T* value, typename Sums::Element* table, const Sums& sums,
                                               const Layout& layout, const Task& task,
                                               const OutputGradient<T, N, W>& gradient,
                                               const Buffer<Arithmetic<T>>& buffer, int count) {
  using A = Arithmetic<T>;
  value += gradient.channel;
  table += gradient.first_spread;
  for (int i = 0; i < count; ++i) {
    const Quad<A> weights = buffer.weights[i];
    const Rows rows = buffer.rows[i];
    A products[4] = {};
    if (gradient.active) {
      Pack<T, N> corners[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) corners[c] = load<T, N>(rows_on(value, rows.at[c], layout.value_bytes));
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        A numbers[N];
        unpack(corners[c], numbers);
#pragma unroll
        for (int n = 0; n < N; ++n) products[c] += gradient.own[n] * numbers[n];
      }
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      // Zero weights are frequent: every corner outside its level. NaN is not zero.
      if (task.valid && weights.at[c] != 0) {
        scatter(sums, rows_on(table, rows.at[c], layout.sums_bytes), weights.at[c], gradient, task.lanes);
      }
    }
    const A sum = reduce_four(products, task.lane, layout.lanes_log2);
    if (task.lane < 4) buffer.gradients[i].at[task.lane] += sum;
  }
}

// From the gradients of the corners' weights to those of locations and attention. Returns the lane's part of the sum
// over samples of attention * its gradient.
template <class A, class Reader>
__device__ __forceinline__ A finish_chunk(const Reader& reader, const Layout& layout, const Task& task,
                                          const Buffer<A>& buffer, int first, int count, bool keep) {
  A sum = 0;
  for (int i = task.lane; i < count; i += task.lanes) {
    const Sample<A> sample(reader, layout, first + i);
    const Quad<A> corners = buffer.gradients[i];
    const A attention = reader.attention(first + i);
    const A gradient = sample.attention_gradient(corners);
    sum += attention * gradient;
    if (keep) buffer.attention_gradients[first + i] = gradient;
    if (!task.valid) continue;
    const A x = attention * sample.x_gradient(corners), y = attention * sample.y_gradient(corners);
    reader.store_location_gradient(first + i, sample.level, x, y);
    if (!keep) reader.store_attention_gradient(first + i, gradient);
  }
  return sum;
}

// Gradients of the logits: attention * (its gradient - the mean gradient under the attention).
template <class A, class Reader>
__device__ __forceinline__ void finish_softmax(const Reader& reader, const Layout& layout, const Task& task,
                                               const Buffer<A>& buffer, A lane_sum) {
  const A mean = reduce(Sum(), lane_sum, layout.lanes_log2);
  __syncwarp();  // attention_gradients is complete
  if (!task.valid) return;
  for (int k = task.lane; k < layout.samples; k += task.lanes) {
    reader.store_attention_gradient(k, reader.attention(k) * (buffer.attention_gradients[k] - mean));
  }
}

// The shapes of forward_kernel; `sums` has the shape of `value` and starts at zero. At least four lanes a group.
template <class T, int N, class Input, class Sums>
__global__ void __launch_bounds__(kMaxThreads, Sums::kBlocks)
    backward_kernel(const __grid_constant__ Layout layout, const __grid_constant__ Input input,
                    const T* __restrict__ value, const T* __restrict__ grad_output, Sums sums) {
  using A = Arithmetic<T>;
  constexpr int W = Sums::template kWidth<N>;
  sums.prepare();
  const Task task = find_task(layout);
  const typename Input::Reader reader(input, layout, task);
  const Buffer<A> buffer(shared_memory, layout, task.group);
  value += task.table(layout);
  grad_output += task.output(layout);
  A lane_sum = 0;
  for (int first = 0; first < layout.samples; first += layout.chunk) {
    const int count = chunk_size(layout, first);
    prepare_chunk<true>(reader, layout, task, buffer, first, count);
    for (int first_channel = 0; first_channel < layout.head_dim; first_channel += task.lanes * N) {
      const OutputGradient<T, N, W> gradient(grad_output, layout, task, first_channel);
      backward_chunk(value, sums.data + task.table(layout), sums, layout, task, gradient, buffer, count);
    }
    __syncwarp();
    lane_sum += finish_chunk(reader, layout, task, buffer, first, count, Input::kSoftmax);
  }
  if constexpr (Input::kSoftmax) finish_softmax(reader, layout, task, buffer, lane_sum);
}

}  // namespace comer_msda

// The kernels, in a namespace for each instruction set: included once by each kernels_*.cpp. Loops of constant length are
// written plainly, for the compiler to vectorise; those over channels and samples use vectors, so that what they add up
// stays in registers.
#pragma once

#include "cpu/sampling.h"

namespace comer_msda {
namespace COMER_MSDA_INSTRUCTION_SET {
namespace {

// Sets of accumulators: a multiply-add waits four cycles for the one before it, and there are registers to spare.
template <int N>
constexpr int kSets = N >= 8 ? 1 : N >= 4 ? 2 : 4;

// The weighted sum of the corners' rows, N vectors of channels from `value` on. `stride` is from token to token.
template <int N, class T, int K>
INLINE void gather_vectors(const T* value, int64_t stride,
                                                          const Samples<Arithmetic<T>, K>& s, int n, T* output) {
  using A = Arithmetic<T>;
  Vector<A> sums[kSets<N>][N] = {};
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const T* row = value + s.row[corner][i] * stride;
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sums[corner % kSets<N>][j] += s.weight[corner][i] * load(row + j * kWidth<A>);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) {
    for (int set = 1; set < kSets<N>; ++set) sums[0][j] += sums[set][j];
    A lanes[kWidth<A>];
    store(lanes, sums[0][j]);
    for (int lane = 0; lane < kWidth<A>; ++lane) store(output + j * kWidth<A> + lane, lanes[lane]);
  }
}

template <class T, int K>
inline void gather_channel(const T* value, int64_t stride, const Samples<Arithmetic<T>, K>& s, int n, T* output) {
  Arithmetic<T> sum = 0;
  for (int i = 0; i < n; ++i) {
    for (int corner = 0; corner < 4; ++corner) {
      sum += s.weight[corner][i] * to_arithmetic(value[s.row[corner][i] * stride]);
    }
  }
  store(output, sum);
}

// Calls `vectors.run<N>(channel)` and `vectors.single(channel)` for all channels of a head, widest first.
template <class A, class Work>
INLINE void for_channels(int64_t head_dim, const Work& work) {
  int64_t channel = 0;
  for (; channel + 8 * kWidth<A> <= head_dim; channel += 8 * kWidth<A>) work.template vectors<8>(channel);
  for (; channel + 4 * kWidth<A> <= head_dim; channel += 4 * kWidth<A>) work.template vectors<4>(channel);
  for (; channel + 2 * kWidth<A> <= head_dim; channel += 2 * kWidth<A>) work.template vectors<2>(channel);
  for (; channel + kWidth<A> <= head_dim; channel += kWidth<A>) work.template vectors<1>(channel);
  for (; channel < head_dim; ++channel) work.single(channel);
}

template <class T, int K>
struct Gather {
  const T* value;
  int64_t stride;
  const Samples<Arithmetic<T>, K>& samples;
  int n;
  T* output;

  template <int N>
  INLINE void vectors(int64_t channel) const {
    gather_vectors<N>(value + channel, stride, samples, n, output + channel);
  }
  void single(int64_t channel) const { gather_channel(value + channel, stride, samples, n, output + channel); }
};

// Queries whose samples are found before any of them is gathered: what a vector reads was then stored long before in
// smaller pieces, and a wait for one query is work for another.
template <int K>
constexpr int kBatch = K == 0 ? 1 : 8;

template <class A, int K>
struct SamplesBatch {
  Samples<A, K> queries[kBatch<K>];

  template <class Source, class Cursor>
  INLINE void find(const Source& source, const SampledLevels<A, K>& levels, Cursor& cursor, int64_t batch,
                   int64_t first, int count, int64_t head, int n) {
    for (int i = 0; i < count; ++i, cursor.next()) source.read(queries[i], cursor, batch, first + i, head, n);
    for (int i = 0; i < count; ++i) source.weigh(queries[i], n);
    for (int i = 0; i < count; ++i) find_corners(queries[i], levels, n);
  }
};

// The rows of one head. In `value` they lie a whole token apart; side by side, neighbours are fetched ahead by the
// processor, and one copy costs less than that saves, if enough of them are read.
template <class T>
class HeadTable {
 public:
  explicit HeadTable(const Problem& problem) : problem_(problem) {}
  ~HeadTable() { ::operator delete(packed_, kCacheLine); }
  HeadTable(const HeadTable&) = delete;
  HeadTable& operator=(const HeadTable&) = delete;

  // `value` at the head's first channel of token 0; `queries` is how many will read it.
  void set(const T* value, int64_t queries) {
    const int64_t size = problem_.head_dim, stride = problem_.heads * size;
    rows = value;
    row_size = stride;
    if (problem_.heads == 1 || 2 * queries < problem_.tokens) return;
    if (packed_ == nullptr) {
      packed_ = static_cast<T*>(::operator new(problem_.tokens * size * sizeof(T), kCacheLine));
    }
    for (int64_t token = 0; token < problem_.tokens; ++token) {
      std::memcpy(packed_ + token * size, value + token * stride, size * sizeof(T));
    }
    rows = packed_;
    row_size = size;
  }

  const T* rows = nullptr;
  int64_t row_size = 0;

 private:
  static constexpr std::align_val_t kCacheLine{64};
  const Problem& problem_;
  T* packed_ = nullptr;
};

// K samples a query and head, or any number if K is zero.
template <int K, class T, template <class, int> class Source>
void forward_tasks(const Problem& problem, const T* value, const Sampling& sampling, T* output, int64_t begin,
                   int64_t end) {
  using A = Arithmetic<T>;
  const int n = K ? K : problem.samples();
  const SampledLevels<A, K> levels(problem);
  const Source<T, K> source(problem, levels, sampling);
  const int64_t tasks_per_head = (problem.queries + kQueriesPerTask - 1) / kQueriesPerTask;
  const int64_t stride = problem.heads * problem.head_dim;
  SamplesBatch<A, K> samples;
  HeadTable<T> table(problem);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image_head = task / tasks_per_head, batch = image_head / problem.heads;
    const int64_t head = image_head % problem.heads, first = task % tasks_per_head * kQueriesPerTask;
    const int64_t last = first + kQueriesPerTask < problem.queries ? first + kQueriesPerTask : problem.queries;
    if (task == begin || task % tasks_per_head == 0) {
      const int64_t left_of_head = tasks_per_head - task % tasks_per_head;
      const int64_t tasks = end - task < left_of_head ? end - task : left_of_head;
      table.set(value + batch * problem.tokens * stride + head * problem.head_dim, tasks * kQueriesPerTask);
    }
    typename Source<T, K>::Cursor cursor(problem, first);
    for (int64_t query = first; query < last; query += kBatch<K>) {
      const int count = static_cast<int>(last - query < kBatch<K> ? last - query : kBatch<K>);
      samples.find(source, levels, cursor, batch, query, count, head, n);
      for (int i = 0; i < count; ++i) {
        T* to = output + (batch * problem.queries + query + i) * stride + head * problem.head_dim;
        for_channels<A>(problem.head_dim, Gather<T, K>{table.rows, table.row_size, samples.queries[i], n, to});
      }
    }
  }
}

// Adds the corners' share of the output's gradient to `grad_value`, and its products with their values to `products`.
template <class T, int K>
struct Scatter {
  using A = Arithmetic<T>;

  const T* grad_output;
  const T* value;
  A* grad_value;
  int64_t stride;
  const Samples<A, K>& samples;
  int n;
  A (*products)[kLength<K>];

  template <int N>
  INLINE void vectors(int64_t channel) const {
    Vector<A> gradient[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) gradient[j] = load(grad_output + channel + j * kWidth<A>);
    for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t row = samples.row[corner][i] * stride + channel;
        Vector<A> product = {};
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) {
          product += gradient[j] * load(value + row + j * kWidth<A>);
          A* to = grad_value + row + j * kWidth<A>;
          store(to, load(to) + samples.weight[corner][i] * gradient[j]);
        }
        products[corner][i] += sum<A>(product);
      }
    }
  }

  void single(int64_t channel) const {
    const A gradient = to_arithmetic(grad_output[channel]);
    for (int i = 0; i < n; ++i) {
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t row = samples.row[corner][i] * stride + channel;
        products[corner][i] += gradient * to_arithmetic(value[row]);
        grad_value[row] += samples.weight[corner][i] * gradient;
      }
    }
  }
};

template <int K, class T, template <class, int> class Source>
void backward_tasks(const Problem& problem, const T* grad_output, const T* value, const Sampling& sampling,
                    Arithmetic<T>* grad_value, const SamplingGradients& gradients, int64_t begin, int64_t end) {
  using A = Arithmetic<T>;
  const int n = K ? K : problem.samples();
  const SampledLevels<A, K> levels(problem);
  const Source<T, K> source(problem, levels, sampling);
  const int64_t stride = problem.heads * problem.head_dim;
  SamplesBatch<A, K> samples;
  SampleGradients<A, K> sample_gradients;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t batch = task / problem.heads, head = task % problem.heads;
    const int64_t first = batch * problem.tokens * stride + head * problem.head_dim;
    typename Source<T, K>::Cursor cursor(problem, 0);
    for (int64_t query = 0; query < problem.queries; query += kBatch<K>) {
      const int count = static_cast<int>(problem.queries - query < kBatch<K> ? problem.queries - query : kBatch<K>);
      samples.find(source, levels, cursor, batch, query, count, head, n);
      for (int i = 0; i < count; ++i) {
        const T* from = grad_output + (batch * problem.queries + query + i) * stride + head * problem.head_dim;
        sample_gradients.clear(n);
        for_channels<A>(problem.head_dim, Scatter<T, K>{from, value + first, grad_value + first, stride,
                                                        samples.queries[i], n, sample_gradients.products});
        sample_gradients.finish(samples.queries[i], n);
        source.write(gradients, samples.queries[i], sample_gradients, batch, query + i, head, n);
      }
    }
  }
}

template <class T>
struct Forward {
  template <int K, template <class, int> class Source>
  static void run(const Problem& problem, const void* value, const Sampling& sampling, void* output, int64_t begin,
                  int64_t end) {
    forward_tasks<K, T, Source>(problem, static_cast<const T*>(value), sampling, static_cast<T*>(output), begin, end);
  }
};

template <class T>
struct Backward {
  template <int K, template <class, int> class Source>
  static void run(const Problem& problem, const void* grad_output, const void* value, const Sampling& sampling,
                  void* grad_value, const SamplingGradients& gradients, int64_t begin, int64_t end) {
    backward_tasks<K, T, Source>(problem, static_cast<const T*>(grad_output), static_cast<const T*>(value), sampling,
                                 static_cast<Arithmetic<T>*>(grad_value), gradients, begin, end);
  }
};

// Compiled with the number of samples known for what is common: ViT-CoMer's three levels, Deformable DETR's four.
template <class Run, class... Arguments>
void dispatch_samples(const Problem& problem, const Sampling& sampling, Arguments... arguments) {
  if (sampling.projection != nullptr) {
    if (problem.samples() == 12) return Run::template run<12, FusedSource>(problem, arguments...);
    return Run::template run<0, FusedSource>(problem, arguments...);
  }
  if (problem.samples() == 16) return Run::template run<16, ClassicSource>(problem, arguments...);
  return Run::template run<0, ClassicSource>(problem, arguments...);
}

template <template <class> class Run, class... Arguments>
void dispatch(const Problem& problem, Storage storage, const Sampling& sampling, Arguments... arguments) {
  switch (storage) {
    case Storage::kFloat:
      return dispatch_samples<Run<float>>(problem, sampling, arguments...);
    case Storage::kDouble:
      return dispatch_samples<Run<double>>(problem, sampling, arguments...);
    case Storage::kBFloat16:
      return dispatch_samples<Run<BFloat16>>(problem, sampling, arguments...);
    case Storage::kHalf:
      return dispatch_samples<Run<Half>>(problem, sampling, arguments...);
  }
}

void forward(const Problem& problem, Storage storage, const void* value, const Sampling& sampling, void* output,
             int64_t begin, int64_t end) {
  dispatch<Forward>(problem, storage, sampling, value, sampling, output, begin, end);
}

void backward(const Problem& problem, Storage storage, const void* grad_output, const void* value,
              const Sampling& sampling, void* grad_value, const SamplingGradients& gradients, int64_t begin,
              int64_t end) {
  dispatch<Backward>(problem, storage, sampling, grad_output, value, sampling, grad_value, gradients, begin, end);
}

}  // namespace
}  // namespace COMER_MSDA_INSTRUCTION_SET
}  // namespace comer_msda

// The kernels, for vectors of COMER_MSDA_VECTOR_BYTES, in a namespace of their own for each instruction set. Included
// once by each kernels_*.cpp. Loops of constant length are written plainly, for the compiler to vectorise; the inner
// loops over channels use vectors, so that the accumulators stay in registers.

// What takes the number of samples is inlined where that number is a constant.
#define INLINE inline __attribute__((always_inline))

namespace comer_msda {
namespace COMER_MSDA_INSTRUCTION_SET {
namespace {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// Arithmetic is in float for every storage but double.
template <class T>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
template <class T>
using Arithmetic = typename ArithmeticOf<T>::type;

template <class A>
struct VectorOf {
  typedef A type __attribute__((vector_size(COMER_MSDA_VECTOR_BYTES)));
};
template <class A>
using Vector = typename VectorOf<A>::type;
template <class A>
constexpr int kWidth = COMER_MSDA_VECTOR_BYTES / sizeof(A);

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

// ---- Conversions -----------------------------------------------------------------------------------------------

inline float to_arithmetic(float x) { return x; }
inline double to_arithmetic(double x) { return x; }
inline float to_arithmetic(BFloat16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// Half's exponent has 15 less bias, hence the 2^112; what was infinite or NaN gets the exponent that says so.
inline float to_arithmetic(Half x) {
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  const uint32_t bits = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f) | special;
  return bit_cast<float>(bits | static_cast<uint32_t>(x.bits & 0x8000) << 16);
}

inline void store(float* to, float x) { *to = x; }
inline void store(double* to, double x) { *to = x; }

inline void store(BFloat16* to, float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->bits = x == x ? static_cast<uint16_t>(rounded) : uint16_t{0x7fc0};
}

inline void store(Half* to, float x) {
  const uint32_t bits = bit_cast<uint32_t>(x), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00;
  } else if (magnitude >= 0x477ff000u) {  // 65520 rounds to infinity
    half = 0x7c00;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, rounded by the float unit
    half = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000u) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | half);
}

template <class A>
inline Vector<A> load(const A* from) {
  Vector<A> vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

typedef uint32_t BitsVector __attribute__((vector_size(COMER_MSDA_VECTOR_BYTES)));
typedef uint16_t ShortVector __attribute__((vector_size(COMER_MSDA_VECTOR_BYTES / 2)));

inline BitsVector load_shorts(const uint16_t* from) {
  ShortVector shorts;
  std::memcpy(&shorts, from, sizeof(shorts));
  return __builtin_convertvector(shorts, BitsVector);
}

inline Vector<float> load(const BFloat16* from) { return (Vector<float>)(load_shorts(&from->bits) << 16); }

inline Vector<float> load(const Half* from) {
  const BitsVector shorts = load_shorts(&from->bits), magnitude = (shorts & 0x7fff) << 13;
  const BitsVector special = (BitsVector)(magnitude >= 0x0f800000u) & 0x7f800000u;
  const BitsVector bits = (BitsVector)((Vector<float>)magnitude * 0x1p112f) | special;
  return (Vector<float>)(bits | (shorts & 0x8000) << 16);
}

template <class A>
inline void store(A* to, Vector<A> vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

template <class A>
INLINE Vector<A> splat(A x) {
  return Vector<A>{} + x;
}

template <class V, size_t... I>
INLINE auto lower_half(V v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, I...);
}
template <class V, size_t... I>
INLINE auto upper_half(V v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, (I + sizeof...(I))...);
}

// Folds the lanes of a vector, half onto half, with `combine`.
template <class A, int Lanes, class V, class Combine>
INLINE A fold(V v, Combine combine) {
  if constexpr (Lanes == 2) {
    return combine(A{v[0]}, A{v[1]});
  } else {
    using Half = std::make_index_sequence<Lanes / 2>;
    return fold<A, Lanes / 2>(combine(lower_half(v, Half{}), upper_half(v, Half{})), combine);
  }
}

template <class A>
INLINE A sum(Vector<A> v) {
  return fold<A, kWidth<A>>(v, [](auto x, auto y) { return x + y; });
}
template <class A>
INLINE A maximum(Vector<A> v) {
  return fold<A, kWidth<A>>(v, [](auto x, auto y) { return x > y ? x : y; });
}

INLINE Vector<double> exponential(Vector<double> x) {
  for (int lane = 0; lane < kWidth<double>; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}

// For x <= 0, within 2 units in the last place.
INLINE Vector<float> exponential(Vector<float> x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low bits.
  const Vector<float> shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f;
  const Vector<float> rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector<float> series = splat(1.0f / 5040.0f);
  for (const float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    series = series * rest + coefficient;
  }
  return series * (Vector<float>)(((BitsVector)shifted << 23) + 0x3f800000u);
}

// ---- Where the samples are -------------------------------------------------------------------------------------

template <class A>
using Integers = decltype(Vector<A>{} < Vector<A>{});
template <class A>
using Integer = std::remove_reference_t<decltype(Integers<A>{}[0])>;

// Length of the arrays of samples, for K samples a head or (K = 0) any number. They are worked on a vector at a time:
// what lies beyond the last sample must be harmless. No longer than needed, to stay in the first-level cache.
template <int K>
constexpr int kLength = K == 0 ? kMaxSamples : (K + 15) / 16 * 16;

// Constants of the sampled level, one for each of a head's samples.
template <class A, int K>
struct SampledLevels {
  A width[kLength<K>] = {}, height[kLength<K>] = {};
  Integer<A> columns[kLength<K>] = {}, lines[kLength<K>] = {}, first_token[kLength<K>] = {};

  explicit SampledLevels(const Problem& problem) {
    for (int i = 0; i < problem.samples(); ++i) {
      const int level = i / problem.points;
      columns[i] = problem.width[level];
      lines[i] = problem.height[level];
      width[i] = static_cast<A>(problem.width[level]);
      height[i] = static_cast<A>(problem.height[level]);
      first_token[i] = static_cast<Integer<A>>(problem.first_token[level]);
    }
  }
};

// The samples of one query and head. A corner outside its level has weight zero and the row of a pixel inside.
template <class A, int K>
struct Samples {
  A attention[kLength<K>] = {};
  A x[kLength<K>] = {}, y[kLength<K>] = {};  // in pixels of the level; then the fraction beyond the pixel before
  A left[kLength<K>], right[kLength<K>], top[kLength<K>], bottom[kLength<K>];  // 1 inside the level, 0 outside
  A weight[4][kLength<K>];  // top left, top right, bottom left, bottom right
  Integer<A> row[4][kLength<K>];
};

// Samples along one axis: how far beyond the pixel before, whether the two pixels are inside, and both made so.
template <class A>
struct Axis {
  Vector<A> fraction, before, after;
  Integers<A> low, high;
};

template <class A>
INLINE Axis<A> locate(const A* locations, const A* sizes, const Integer<A>* counts) {
  const Vector<A> location = load(locations), size = load(sizes);
  // Two pixels outside are as good as infinitely many, and fit an integer. NaN fails both comparisons and stays.
  const Vector<A> far_before = location < A(-1) ? splat(A(-2)) : location;
  const Vector<A> bounded = far_before > size ? size + 1 : far_before;
  const Vector<A> number = bounded == bounded ? bounded : splat(A(0));
  Integers<A> floor = __builtin_convertvector(number, Integers<A>);
  floor += __builtin_convertvector(floor, Vector<A>) > number;  // true is -1
  Integers<A> last;
  std::memcpy(&last, counts, sizeof(last));
  last -= 1;
  const Integers<A> zero{}, next = floor + 1;
  const Integers<A> low = floor < zero ? zero : floor > last ? last : floor;
  const Integers<A> high = next < zero ? zero : next > last ? last : next;
  const Integers<A> one = (Integers<A>)splat(A(1));
  return {bounded - __builtin_convertvector(floor, Vector<A>), (Vector<A>)((low == floor) & one),
          (Vector<A>)((high == next) & one), low, high};
}

template <class A>
INLINE void store_rows(Integer<A>* to, Integers<A> rows) {
  std::memcpy(to, &rows, sizeof(rows));
}

// From locations and attention to corner rows and weights. `n` is a constant where it was known to the compiler.
template <class A, int K>
INLINE void find_corners(Samples<A, K>& s, const SampledLevels<A, K>& levels, int n) {
  for (int i = 0; i < n; i += kWidth<A>) {
    const Axis<A> x = locate(s.x + i, levels.width + i, levels.columns + i);
    const Axis<A> y = locate(s.y + i, levels.height + i, levels.lines + i);
    const Vector<A> attention = load(s.attention + i);
    const Vector<A> left = (1 - x.fraction) * x.before, right = x.fraction * x.after;
    const Vector<A> top = attention * (1 - y.fraction) * y.before, bottom = attention * y.fraction * y.after;
    store(s.weight[0] + i, top * left);
    store(s.weight[1] + i, top * right);
    store(s.weight[2] + i, bottom * left);
    store(s.weight[3] + i, bottom * right);
    Integers<A> columns, first;
    std::memcpy(&columns, levels.columns + i, sizeof(columns));
    std::memcpy(&first, levels.first_token + i, sizeof(first));
    const Integers<A> top_row = first + y.low * columns, bottom_row = first + y.high * columns;
    store_rows<A>(s.row[0] + i, top_row + x.low);
    store_rows<A>(s.row[1] + i, top_row + x.high);
    store_rows<A>(s.row[2] + i, bottom_row + x.low);
    store_rows<A>(s.row[3] + i, bottom_row + x.high);
    store(s.x + i, x.fraction);
    store(s.y + i, y.fraction);
    store(s.left + i, x.before);
    store(s.right + i, x.after);
    store(s.top + i, y.before);
    store(s.bottom + i, y.after);
  }
}

template <class A>
INLINE void softmax(A* logits, int n) {
  for (int i = n; i % kWidth<A> != 0; ++i) logits[i] = -std::numeric_limits<A>::infinity();
  Vector<A> largest = load(logits), total{};
  for (int i = kWidth<A>; i < n; i += kWidth<A>) {
    largest = load(logits + i) > largest ? load(logits + i) : largest;
  }
  const A shift = maximum<A>(largest);
  for (int i = 0; i < n; i += kWidth<A>) {
    const Vector<A> exponentials = exponential(load(logits + i) - shift);
    store(logits + i, exponentials);
    total += exponentials;
  }
  const A scale = 1 / sum<A>(total);
  for (int i = 0; i < n; i += kWidth<A>) store(logits + i, load(logits + i) * scale);
}

// A query's own cell, counted up with the queries.
struct Cell {
  const Problem& problem;
  int level = 0;
  int32_t line = 0, column = 0;

  Cell(const Problem& problem, int64_t token) : problem(problem) {
    while (level + 1 < problem.levels && token >= problem.first_token[level + 1]) ++level;
    line = static_cast<int32_t>((token - problem.first_token[level]) / problem.width[level]);
    column = static_cast<int32_t>((token - problem.first_token[level]) % problem.width[level]);
  }

  void next() {
    if (++column < problem.width[level]) return;
    column = 0;
    if (++line < problem.height[level]) return;
    line = 0;
    ++level;
  }
};

// Gradients of a sample's attention and location from the products of the output's gradient with the four corners.
template <class A, int K>
struct SampleGradients {
  A products[4][kLength<K>] = {};
  A attention[kLength<K>], x[kLength<K>], y[kLength<K>];

  INLINE void clear(int n) {
    for (int corner = 0; corner < 4; ++corner) {
      for (int i = 0; i < n; ++i) products[corner][i] = 0;
    }
  }

  INLINE void finish(const Samples<A, K>& s, int n) {
    for (int i = 0; i < n; i += kWidth<A>) {
      const Vector<A> left = load(s.left + i), right = load(s.right + i), x_fraction = load(s.x + i);
      const Vector<A> top = load(s.top + i), bottom = load(s.bottom + i), y_fraction = load(s.y + i);
      const Vector<A> top_left = load(products[0] + i) * left * top, top_right = load(products[1] + i) * right * top;
      const Vector<A> bottom_left = load(products[2] + i) * left * bottom;
      const Vector<A> bottom_right = load(products[3] + i) * right * bottom;
      const Vector<A> top_slope = top_right - top_left, bottom_slope = bottom_right - bottom_left;
      const Vector<A> upper = top_left + x_fraction * top_slope, lower = bottom_left + x_fraction * bottom_slope;
      const Vector<A> weight = load(s.attention + i);
      store(attention + i, upper + y_fraction * (lower - upper));
      store(y + i, weight * (lower - upper));
      store(x + i, weight * (top_slope + y_fraction * (bottom_slope - top_slope)));
    }
  }
};

// The fused operator: offsets and logits of the projection, around the centre of the query's own cell.
template <class T, int K>
class FusedSource {
 public:
  using A = Arithmetic<T>;
  using Cursor = Cell;

  FusedSource(const Problem& problem, const SampledLevels<A, K>& levels, const Sampling& sampling)
      : problem_(problem), projection_(static_cast<const T*>(sampling.projection)) {
    for (int own = 0; own < problem.levels; ++own) {
      for (int i = 0; i < problem.samples(); ++i) {
        x_ratio_[own][i] = levels.width[i] / static_cast<A>(problem.width[own]);
        y_ratio_[own][i] = levels.height[i] / static_cast<A>(problem.height[own]);
      }
    }
  }

  INLINE void read(Samples<A, K>& s, const Cell& cell, int64_t batch, int64_t query, int64_t head, int n) const {
    const T* row = projection_ + first(problem_, batch, query);
    const T *offsets = row + head * n * 2, *logits = row + (problem_.heads * 2 + head) * n;
    for (int i = 0; i < n; ++i) s.attention[i] = to_arithmetic(logits[i]);
    // Levels differ by powers of two, mostly: then the ratio and the centre are exact.
    const A column = static_cast<A>(cell.column) + A(0.5), line = static_cast<A>(cell.line) + A(0.5);
    const A *x_ratio = x_ratio_[cell.level], *y_ratio = y_ratio_[cell.level];
    for (int i = 0; i < n; ++i) {
      s.x[i] = to_arithmetic(offsets[2 * i]) + (column * x_ratio[i] - A(0.5));
      s.y[i] = to_arithmetic(offsets[2 * i + 1]) + (line * y_ratio[i] - A(0.5));
    }
  }

  INLINE void weigh(Samples<A, K>& s, int n) const { softmax(s.attention, n); }

  // The gradients of attention and locations become those of logits and offsets.
  void write(const SamplingGradients& gradients, const Samples<A, K>& s, const SampleGradients<A, K>& d, int64_t batch,
             int64_t query, int64_t head, int n) const {
    T* row = static_cast<T*>(gradients.projection) + first(problem_, batch, query);
    T *offsets = row + head * n * 2, *logits = row + (problem_.heads * 2 + head) * n;
    A mean = 0;
    for (int i = 0; i < n; ++i) mean += s.attention[i] * d.attention[i];
    for (int i = 0; i < n; ++i) {
      store(offsets + 2 * i, d.x[i]);
      store(offsets + 2 * i + 1, d.y[i]);
      store(logits + i, s.attention[i] * (d.attention[i] - mean));
    }
  }

 private:
  static int64_t first(const Problem& problem, int64_t batch, int64_t query) {
    return (batch * problem.queries + query) * problem.heads * problem.samples() * 3;
  }

  const Problem& problem_;
  const T* projection_;
  A x_ratio_[kMaxLevels][kLength<K>], y_ratio_[kMaxLevels][kLength<K>];
};

// The classic operator: locations from 0 to 1 and weights, computed by the caller.
template <class T, int K>
class ClassicSource {
 public:
  using A = Arithmetic<T>;
  // Its queries have no place of their own.
  struct Cursor {
    Cursor(const Problem&, int64_t) {}
    void next() {}
  };

  ClassicSource(const Problem& problem, const SampledLevels<A, K>& levels, const Sampling& sampling)
      : problem_(problem),
        levels_(levels),
        locations_(static_cast<const A*>(sampling.locations)),
        weights_(static_cast<const A*>(sampling.weights)) {}

  INLINE void read(Samples<A, K>& s, const Cursor&, int64_t batch, int64_t query, int64_t head, int n) const {
    const int64_t first = first_sample(batch, query, head);
    for (int i = 0; i < n; ++i) {
      s.attention[i] = weights_[first + i];
      s.x[i] = locations_[2 * (first + i)] * levels_.width[i] - A(0.5);
      s.y[i] = locations_[2 * (first + i) + 1] * levels_.height[i] - A(0.5);
    }
  }

  INLINE void weigh(Samples<A, K>&, int) const {}

  void write(const SamplingGradients& gradients, const Samples<A, K>&, const SampleGradients<A, K>& d, int64_t batch,
             int64_t query, int64_t head, int n) const {
    const int64_t first = first_sample(batch, query, head);
    A *locations = static_cast<A*>(gradients.locations), *weights = static_cast<A*>(gradients.weights);
    for (int i = 0; i < n; ++i) {
      locations[2 * (first + i)] = d.x[i] * levels_.width[i];
      locations[2 * (first + i) + 1] = d.y[i] * levels_.height[i];
      weights[first + i] = d.attention[i];
    }
  }

 private:
  int64_t first_sample(int64_t batch, int64_t query, int64_t head) const {
    return ((batch * problem_.queries + query) * problem_.heads + head) * problem_.samples();
  }

  const Problem& problem_;
  const SampledLevels<A, K>& levels_;
  const A *locations_, *weights_;
};

// ---- Forward ---------------------------------------------------------------------------------------------------

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

// K samples a query and head, or any number if K is zero.
template <int K, class T, template <class, int> class Source>
void forward_tasks(const Problem& problem, const T* value, const Sampling& sampling, T* output, int64_t begin,
                   int64_t end) {
  using A = Arithmetic<T>;
  const int n = K ? K : problem.samples();
  const SampledLevels<A, K> levels(problem);
  const Source<T, K> source(problem, levels, sampling);
  const int64_t tasks_per_image = (problem.queries + kQueriesPerTask - 1) / kQueriesPerTask;
  const int64_t stride = problem.heads * problem.head_dim;
  SamplesBatch<A, K> samples;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t batch = task / tasks_per_image, first = task % tasks_per_image * kQueriesPerTask;
    const int64_t last = first + kQueriesPerTask < problem.queries ? first + kQueriesPerTask : problem.queries;
    const T* image = value + batch * problem.tokens * stride;
    for (int64_t head = 0; head < problem.heads; ++head) {
      typename Source<T, K>::Cursor cursor(problem, first);
      for (int64_t query = first; query < last; query += kBatch<K>) {
        const int count = static_cast<int>(last - query < kBatch<K> ? last - query : kBatch<K>);
        samples.find(source, levels, cursor, batch, query, count, head, n);
        for (int i = 0; i < count; ++i) {
          T* to = output + (batch * problem.queries + query + i) * stride + head * problem.head_dim;
          for_channels<A>(problem.head_dim,
                          Gather<T, K>{image + head * problem.head_dim, stride, samples.queries[i], n, to});
        }
      }
    }
  }
}

// ---- Backward --------------------------------------------------------------------------------------------------

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

// ---- From run-time types and sizes to templates ------------------------------------------------------------------

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

#undef INLINE

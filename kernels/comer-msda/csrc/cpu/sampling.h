// Where the samples of a query and head are, and what they weigh: four corners, each a row of the value table and a
// weight. And the way back, from gradients of the corners to those of the operators' inputs.
#pragma once

#include "cpu/vectors.h"

namespace comer_msda {
namespace COMER_MSDA_INSTRUCTION_SET {
namespace {

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

}  // namespace
}  // namespace COMER_MSDA_INSTRUCTION_SET
}  // namespace comer_msda

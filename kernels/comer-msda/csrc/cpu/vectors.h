// Vectors of COMER_MSDA_VECTOR_BYTES and the numbers they are loaded from, in a namespace for each instruction set.
#pragma once

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

// Of nothing else: clang rejects a vector of structs, where `load` below is one of several candidates.
template <class A>
struct VectorOf {};
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(COMER_MSDA_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(COMER_MSDA_VECTOR_BYTES)));
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

// For x <= 0, within 2 units in the last place; 0 where the result is below the normal numbers.
INLINE Vector<float> exponential(Vector<float> x) {
  const BitsVector tiny = (BitsVector)(x < -87.0f);
  x = x < -87.0f ? splat(-87.0f) : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low bits.
  const Vector<float> shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f;
  const Vector<float> rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector<float> series = splat(1.0f / 5040.0f);
  for (const float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    series = series * rest + coefficient;
  }
  const Vector<float> power = series * (Vector<float>)(((BitsVector)shifted << 23) + 0x3f800000u);
  return (Vector<float>)((BitsVector)power & ~tiny);
}

}  // namespace
}  // namespace COMER_MSDA_INSTRUCTION_SET
}  // namespace comer_msda

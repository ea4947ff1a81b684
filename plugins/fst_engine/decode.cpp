// What a decode step computes between its products, for a few new positions.
//
// Attention of one new position a row to all that its row has: torch's own takes two to three times as
// long, because it wants float32 and looks at the columns of the longest row for every row.
//
// And what lies between the products of a layer: for a few positions the numbers are so few that each of
// torch's operations, some fifty in Llama's, takes longer to begin than to compute.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t TILE = 128;  // columns whose scores are held at a time
constexpr int64_t MOST = 256;  // the largest head_dim
constexpr int64_t LITTLE = 1 << 15;  // for fewer numbers no thread is woken

struct bf16 { uint16_t bits; };

inline float wide(float number) { return number; }
inline float wide(bf16 number) {
  uint32_t bits = uint32_t(number.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
inline void narrow(float number, float &result) { result = number; }
inline void narrow(float number, bf16 &result) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  bool nan = (bits & 0x7fffffff) > 0x7f800000;
  result.bits = nan ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest, ties to even
}

// e to the power of x, for x <= 0: 2^n times a polynomial for the rest, within 2e-7 of the value.
inline float exponential(float x) {
  const float y = x < -87.0f ? -125.5f : x * 1.44269504f;
  const float whole = std::floor(y + 0.5f), rest = (y - whole) * 0.693147181f;
  const float power = 1 + rest * (1 + rest * (1 / 2.f + rest * (1 / 6.f + rest * (1 / 24.f + rest * (1 / 120.f + rest / 720)))));
  const int32_t bits = (int32_t(whole) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return power * scale;
}

// Root mean square norm (Zhang and Sennrich 2019); with a bias, layer norm (Ba et al. 2016).
template <typename T>
void normalise(const T *x, const T *weight, const T *bias, T *out, int64_t dim, float eps) {
  float mean = 0, squares = 0;
  if (bias) {
#pragma omp simd reduction(+ : mean)
    for (int64_t d = 0; d < dim; d++) mean += wide(x[d]);
    mean /= float(dim);
  }
#pragma omp simd reduction(+ : squares)
  for (int64_t d = 0; d < dim; d++) squares += (wide(x[d]) - mean) * (wide(x[d]) - mean);
  const float scale = 1 / std::sqrt(squares / float(dim) + eps);
  if (bias) {
#pragma omp simd
    for (int64_t d = 0; d < dim; d++) narrow((wide(x[d]) - mean) * scale * wide(weight[d]) + wide(bias[d]), out[d]);
  } else {
#pragma omp simd
    for (int64_t d = 0; d < dim; d++) narrow(wide(x[d]) * scale * wide(weight[d]), out[d]);
  }
}

template <typename T, int64_t DIM>
void attend(const T *query, const T *keys, const T *values, T *out, int64_t columns, int64_t any, float scale) {
  const int64_t dim = DIM ? DIM : any;
  float asked[MOST], sum[MOST] = {}, scores[TILE];
  for (int64_t d = 0; d < dim; d++) asked[d] = wide(query[d]) * scale;
  float top = -1e30f, total = 0;
  for (int64_t begin = 0; begin < columns; begin += TILE) {
    const int64_t width = columns - begin < TILE ? columns - begin : TILE;
    const T *key = keys + begin * dim, *value = values + begin * dim;
    float best = top;
    for (int64_t c = 0; c < width; c++) {
      float score = 0;
#pragma omp simd reduction(+ : score)
      for (int64_t d = 0; d < dim; d++) score += asked[d] * wide(key[c * dim + d]);
      scores[c] = score;
      best = score > best ? score : best;
    }
    const float before = exponential(top - best);  // what was summed up to here is rescaled
    top = best;
    total *= before;
#pragma omp simd
    for (int64_t d = 0; d < dim; d++) sum[d] *= before;
#pragma omp simd reduction(+ : total)
    for (int64_t c = 0; c < width; c++) {
      scores[c] = exponential(scores[c] - top);
      total += scores[c];
    }
    for (int64_t c = 0; c < width; c++)
#pragma omp simd
      for (int64_t d = 0; d < dim; d++) sum[d] += scores[c] * wide(value[c * dim + d]);
  }
  for (int64_t d = 0; d < dim; d++) narrow(sum[d] / total, out[d]);
}

template <typename T>
void attend_all(const T *queries, const T *keys, const T *values, T *out, const int64_t *begins, const int64_t *lengths,
                int64_t rows, int64_t heads, int64_t groups, int64_t dim, int64_t query_stride, int64_t row_stride,
                int64_t head_stride, float scale, int threads) {
  int64_t all = 0;
  for (int64_t row = 0; row < rows; row++) all += lengths[row];
  // Rows differ in length, so that who is done takes more; for little work nobody is woken.
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(threads) if (all * heads * dim > LITTLE)
  for (int64_t row = 0; row < rows; row++)
    for (int64_t head = 0; head < heads; head++) {
      const T *query = queries + row * query_stride + head * dim;
      const int64_t held = row * row_stride + head / (heads / groups) * head_stride + begins[row] * dim;
      T *result = out + (row * heads + head) * dim;
      const auto function = dim == 64 ? attend<T, 64> : dim == 128 ? attend<T, 128> : attend<T, 0>;
      function(query, keys + held, values + held, result, lengths[row], dim, scale);
    }
}

// The norm of every row, or of its sum with another, which is given too.
template <typename T>
void norm_all(const T *before, const T *added, const T *weight, const T *bias, T *sums, T *out, int64_t rows,
              int64_t dim, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * dim > LITTLE)
  for (int64_t row = 0; row < rows; row++) {
    const T *x = before + row * dim;
    if (added) {
      T *sum = sums + row * dim;
#pragma omp simd
      for (int64_t d = 0; d < dim; d++) narrow(wide(x[d]) + wide(added[row * dim + d]), sum[d]);
      x = sum;
    }
    normalise(x, weight, bias, out + row * dim, dim, eps);
  }
}

// Rotary positions (Su et al. 2021), in place, of the first heads of every position; where there are
// weights, each head is normalised before, a query by the first and a key by the second.
template <typename T>
void rotate_all(T *states, const T *cosines, const T *sines, const T *of_query, const T *of_key, int64_t positions,
                int64_t heads, int64_t queries, int64_t dim, int64_t stride, float eps, int threads) {
  const int64_t half = dim / 2;
#pragma omp parallel for num_threads(threads) if (positions * heads * dim > LITTLE)
  for (int64_t position = 0; position < positions; position++)
    for (int64_t head = 0; head < heads; head++) {
      T *x = states + position * stride + head * dim;
      const T *c = cosines + position * dim, *s = sines + position * dim;
      if (of_query) normalise(x, head < queries ? of_query : of_key, (const T *)nullptr, x, dim, eps);
#pragma omp simd
      for (int64_t d = 0; d < half; d++) {
        const float left = wide(x[d]), right = wide(x[d + half]);
        narrow(left * wide(c[d]) - right * wide(s[d]), x[d]);
        narrow(right * wide(c[d + half]) + left * wide(s[d + half]), x[d + half]);
      }
    }
}

// SwiGLU (Shazeer 2020): of rows of 2 * dim, the first half through SiLU, times the second.
template <typename T>
void gate_all(const T *gates, T *out, int64_t rows, int64_t dim, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * dim > LITTLE)
  for (int64_t row = 0; row < rows; row++) {
    const T *gate = gates + row * 2 * dim, *up = gate + dim;
    T *result = out + row * dim;
#pragma omp simd
    for (int64_t d = 0; d < dim; d++) {
      const float x = wide(gate[d]), small = exponential(-std::fabs(x));
      narrow(x * (x < 0 ? small : 1.0f) / (1 + small) * wide(up[d]), result[d]);
    }
  }
}

}  // namespace

#define KERNELS(T, NAME)                                                                                             \
  extern "C" void attend_##NAME(const T *queries, const T *keys, const T *values, T *out, const int64_t *begins,     \
                                const int64_t *lengths, int64_t rows, int64_t heads, int64_t groups, int64_t dim,    \
                                int64_t query_stride, int64_t row_stride, int64_t head_stride, float scale,          \
                                int threads) {                                                                       \
    attend_all(queries, keys, values, out, begins, lengths, rows, heads, groups, dim, query_stride, row_stride,      \
               head_stride, scale, threads);                                                                         \
  }                                                                                                                  \
  extern "C" void norm_##NAME(const T *before, const T *added, const T *weight, const T *bias, T *sums, T *out,      \
                              int64_t rows, int64_t dim, float eps, int threads) {                                   \
    norm_all(before, added, weight, bias, sums, out, rows, dim, eps, threads);                                       \
  }                                                                                                                  \
  extern "C" void rotate_##NAME(T *states, const T *cosines, const T *sines, const T *of_query, const T *of_key,     \
                                int64_t positions, int64_t heads, int64_t queries, int64_t dim, int64_t stride,      \
                                float eps, int threads) {                                                            \
    rotate_all(states, cosines, sines, of_query, of_key, positions, heads, queries, dim, stride, eps, threads);      \
  }                                                                                                                  \
  extern "C" void gate_##NAME(const T *gates, T *out, int64_t rows, int64_t dim, int threads) {                      \
    gate_all(gates, out, rows, dim, threads);                                                                        \
  }
KERNELS(float, float32)
KERNELS(bf16, bfloat16)

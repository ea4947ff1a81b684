// Attention of one new position a row to all that its row has, as a decode step needs it.
//
// torch's own takes two to three times as long for a single position: it wants float32 and looks at
// the columns of the longest row for every row.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t TILE = 128;  // columns whose scores are held at a time
constexpr int64_t MOST = 256;  // the largest head_dim

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
void attend_all(const T *queries, const T *keys, const T *values, T *out, const int64_t *lengths, int64_t rows,
                int64_t heads, int64_t groups, int64_t dim, int64_t query_stride, int64_t row_stride,
                int64_t head_stride, float scale, int threads) {
  int64_t all = 0;
  for (int64_t row = 0; row < rows; row++) all += lengths[row];
  // Rows differ in length, so that who is done takes more; for little work nobody is woken.
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(threads) if (all * heads * dim > 1 << 15)
  for (int64_t row = 0; row < rows; row++)
    for (int64_t head = 0; head < heads; head++) {
      const T *query = queries + row * query_stride + head * dim;
      const int64_t held = row * row_stride + head / (heads / groups) * head_stride;
      T *result = out + (row * heads + head) * dim;
      const auto function = dim == 64 ? attend<T, 64> : dim == 128 ? attend<T, 128> : attend<T, 0>;
      function(query, keys + held, values + held, result, lengths[row], dim, scale);
    }
}

}  // namespace

#define ATTEND(NAME, T)                                                                                              \
  extern "C" void NAME(const T *queries, const T *keys, const T *values, T *out, const int64_t *lengths,             \
                       int64_t rows, int64_t heads, int64_t groups, int64_t dim, int64_t query_stride,               \
                       int64_t row_stride, int64_t head_stride, float scale, int threads) {                          \
    attend_all(queries, keys, values, out, lengths, rows, heads, groups, dim, query_stride, row_stride, head_stride, \
               scale, threads);                                                                                      \
  }
ATTEND(attend_float32, float)
ATTEND(attend_bfloat16, bf16)

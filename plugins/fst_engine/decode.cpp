// What a forward pass computes between its products, for a few new positions of several rows.
//
// Attention of each to what its row has: torch's own takes two to three times as long, because it wants
// float32 and looks at the columns of the longest row for every row.
//
// And what lies between the products of a layer: for a few positions the numbers are so few that each of
// torch's operations, some fifty in Llama's, takes longer to begin than to compute.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t PAGE = 128;  // positions whose keys lie side by side, as do their values
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

// Keys and values of a row: its pages' addresses, from each of which it is so many bytes to those of a head.
struct Row {
  const int64_t *pages;
  int64_t keys, values;
  template <typename T>
  T *key(int64_t page) const { return reinterpret_cast<T *>(pages[page] + keys); }
  template <typename T>
  T *value(int64_t page) const { return reinterpret_cast<T *>(pages[page] + values); }
};

template <typename T, int64_t DIM>
void attend(const T *query, const Row &row, T *out, int64_t columns, int64_t any, float scale) {
  const int64_t dim = DIM ? DIM : any;
  float asked[MOST], sum[MOST] = {}, scores[PAGE];
  for (int64_t d = 0; d < dim; d++) asked[d] = wide(query[d]) * scale;
  float top = -1e30f, total = 0;
  for (int64_t begin = 0; begin < columns; begin += PAGE) {
    const int64_t width = columns - begin < PAGE ? columns - begin : PAGE;
    const T *key = row.key<const T>(begin / PAGE), *value = row.value<const T>(begin / PAGE);
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

// Stores fresh keys and values, where there are any, at their positions; then each position attends to
// its row up to there. The pages of row r begin at pages + r * most.
template <typename T>
void attend_all(const T *queries, const T *fresh, T *out, const int64_t *pages, int64_t most, int64_t keys, int64_t values,
                const int64_t *slots, const int64_t *positions, int64_t count, int64_t heads, int64_t groups, int64_t dim,
                int64_t stride, int64_t head_stride, float scale, int threads) {
  const auto row = [&](int64_t number, int64_t group) {
    const int64_t bytes = group * head_stride * int64_t(sizeof(T));
    return Row{pages + slots[number] * most, keys + bytes, values + bytes};
  };
  int64_t seen = 0;
  for (int64_t n = 0; n < count; n++) {
    const int64_t position = positions[n];
    seen += position + 1;
    for (int64_t group = 0; fresh && group < groups; group++) {
      const T *from = fresh + n * stride + group * dim;
      const int64_t page = position / PAGE, to = position % PAGE * dim;
      std::memcpy(row(n, group).template key<T>(page) + to, from, dim * sizeof(T));
      std::memcpy(row(n, group).template value<T>(page) + to, from + groups * dim, dim * sizeof(T));
    }
  }
  // Rows differ in length, so that who is done takes more; for little work nobody is woken.
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(threads) if (seen * heads * dim > LITTLE)
  for (int64_t n = 0; n < count; n++)
    for (int64_t head = 0; head < heads; head++) {
      const T *query = queries + n * stride + head * dim;
      T *result = out + (n * heads + head) * dim;
      const auto function = dim == 64 ? attend<T, 64> : dim == 128 ? attend<T, 128> : attend<T, 0>;
      function(query, row(n, head / (heads / groups)), result, positions[n] + 1, dim, scale);
    }
}

template <typename T>
void norm_all(const T *x, const T *weight, const T *bias, T *out, int64_t rows, int64_t dim, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * dim > LITTLE)
  for (int64_t row = 0; row < rows; row++) normalise(x + row * dim, weight, bias, out + row * dim, dim, eps);
}

// Rotary positions (Su et al. 2021), in place, of a head; where there is a weight, it is normalised before.
template <typename T>
void rotate(T *x, const T *cosines, const T *sines, const T *weight, int64_t dim, float eps) {
  const int64_t half = dim / 2;
  if (weight) normalise(x, weight, (const T *)nullptr, x, dim, eps);
#pragma omp simd
  for (int64_t d = 0; d < half; d++) {
    const float left = wide(x[d]), right = wide(x[d + half]);
    narrow(left * wide(cosines[d]) - right * wide(sines[d]), x[d]);
    narrow(right * wide(cosines[d + half]) + left * wide(sines[d + half]), x[d + half]);
  }
}

// The same of the first heads of every position: the queries, then the keys.
template <typename T>
void rotate_all(T *states, const T *cosines, const T *sines, const T *of_query, const T *of_key, int64_t positions,
                int64_t heads, int64_t queries, int64_t dim, int64_t stride, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (positions * heads * dim > LITTLE)
  for (int64_t n = 0; n < positions; n++)
    for (int64_t head = 0; head < heads; head++)
      rotate(states + n * stride + head * dim, cosines + n * dim, sines + n * dim, head < queries ? of_query : of_key, dim,
             eps);
}

inline float silu(float x) {
  const float small = exponential(-std::fabs(x));
  return x * (x < 0 ? small : 1.0f) / (1 + small);
}

// The Gaussian error linear unit (Hendrycks and Gimpel 2016), by its formula with tanh.
inline float gelu(float x) {
  const float inner = 0.797884561f * (x + 0.044715f * x * x * x), small = exponential(-2 * std::fabs(inner));
  const float tanh = (1 - small) / (1 + small);
  return 0.5f * x * (1 + (inner < 0 ? -tanh : tanh));
}

// SwiGLU (Shazeer 2020): of rows of 2 * dim, the first half through SiLU, times the second.
template <typename T>
void gate_all(const T *gates, T *out, int64_t rows, int64_t dim, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * dim > LITTLE)
  for (int64_t row = 0; row < rows; row++) {
    const T *gate = gates + row * 2 * dim, *up = gate + dim;
    T *result = out + row * dim;
#pragma omp simd
    for (int64_t d = 0; d < dim; d++) narrow(silu(wide(gate[d])) * wide(up[d]), result[d]);
  }
}

// A few positions through all layers. For so little work, to wake threads for each product takes longer than what
// lies between two; and a thread whose core others use must not be waited for.

constexpr int64_t OUTS = 4, POSITIONS = 4;  // so many outputs of a product, of so many positions, are computed at a time
constexpr int64_t PIECES = 16;              // of a phase, which threads take as they come

// Work in phases of pieces: the next phase begins when all pieces of one are done, whoever did them. What a piece reads
// and writes may be the caller's; what else is used must be the work's own, for a thread that comes too late.
class Work {
  std::vector<std::atomic<int64_t>> taken, done;

 public:
  explicit Work(int64_t phases) : taken(phases), done(phases) {}
  virtual ~Work() = default;
  virtual void take_part() = 0;

 protected:
  template <typename Piece>
  void phase(int64_t number, int64_t pieces, Piece piece) {
    for (int64_t n; (n = taken[number].fetch_add(1, std::memory_order_relaxed)) < pieces;) {
      piece(n);
      done[number].fetch_add(1, std::memory_order_release);
    }
    for (int64_t looks = 0; done[number].load(std::memory_order_acquire) < pieces; looks++)
      if (looks > 1 << 10) std::this_thread::yield();
  }
};

// Threads that help with the latest work, if they come to it. They are never ended: they hold nothing.
class Helpers {
  // A thread that sleeps is woken on the core of who wakes it, and comes to its own milliseconds later. So for as long
  // it looks for the next token's work, letting others have the core, before it sleeps.
  static constexpr auto AWAKE = std::chrono::milliseconds(4);
  std::mutex guard;
  std::condition_variable changed;
  std::shared_ptr<Work> latest;
  std::atomic<int64_t> number{0};
  int64_t count = 0;

  void help() {
    for (int64_t seen = 0;;) {
      const auto until = std::chrono::steady_clock::now() + AWAKE;
      while (number.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < until)
        std::this_thread::yield();
      std::shared_ptr<Work> work;
      {
        std::unique_lock<std::mutex> lock(guard);
        changed.wait(lock, [&] { return number != seen; });
        seen = number, work = latest;
      }
      if (work) work->take_part();
    }
  }

 public:
  void run(const std::shared_ptr<Work> &work, int64_t wanted) {
    {
      std::lock_guard<std::mutex> lock(guard);
      try {
        for (; count < std::min(wanted, PIECES - 1); count++) std::thread([this] { help(); }).detach();
      } catch (const std::system_error &) {  // there may be no more threads: then nobody helps
      }
      latest = work, number++;
    }
    changed.notify_all();
    work->take_part();
    std::lock_guard<std::mutex> lock(guard);
    if (latest == work) latest = nullptr;
  }
};

Helpers &helpers() {
  static Helpers &threads = *new Helpers;
  return threads;
}

// Products of some rows of weights with those of some positions. What comes next is fetched meanwhile: without, memory
// gives a third of what it can.
template <typename T, int64_t COUNT>
struct Multiply {
  static void compute(const T *const (&weights)[OUTS], const T *x, int64_t dim, float (&sums)[OUTS][POSITIONS]) {
    constexpr int64_t LANES = 16;
    float held[OUTS][COUNT][LANES] = {};
    const int64_t whole = dim / LANES * LANES;
    for (int64_t d = 0; d < whole; d += LANES)
#pragma GCC unroll 4
      for (int64_t n = 0; n < OUTS; n++) {
        __builtin_prefetch(weights[n] + d + OUTS * dim);
#pragma GCC unroll 4
        for (int64_t p = 0; p < COUNT; p++)
#pragma omp simd
          for (int64_t lane = 0; lane < LANES; lane++)
            held[n][p][lane] += wide(weights[n][d + lane]) * wide(x[p * dim + d + lane]);
      }
    for (int64_t n = 0; n < OUTS; n++)
      for (int64_t p = 0; p < COUNT; p++) {
        float sum = 0;
        for (int64_t lane = 0; lane < LANES; lane++) sum += held[n][p][lane];
        for (int64_t d = whole; d < dim; d++) sum += wide(weights[n][d]) * wide(x[p * dim + d]);
        sums[n][p] = sum;
      }
  }
};

#ifdef __AVX512BF16__
inline __m512bh load(const bf16 *x, int64_t left) {
  return (__m512bh)_mm512_maskz_loadu_epi16(left < 32 ? (1u << left) - 1 : ~0u, x);
}

template <int64_t COUNT>
struct Multiply<bf16, COUNT> {
  static void compute(const bf16 *const (&weights)[OUTS], const bf16 *x, int64_t dim, float (&sums)[OUTS][POSITIONS]) {
    __m512 held[OUTS][COUNT];
#pragma GCC unroll 4
    for (int64_t n = 0; n < OUTS; n++)
#pragma GCC unroll 4
      for (int64_t p = 0; p < COUNT; p++) held[n][p] = _mm512_setzero_ps();
    for (int64_t d = 0; d < dim; d += 32) {
      __m512bh at[COUNT];
#pragma GCC unroll 4
      for (int64_t p = 0; p < COUNT; p++) at[p] = load(x + p * dim + d, dim - d);
#pragma GCC unroll 4
      for (int64_t n = 0; n < OUTS; n++) {
        __builtin_prefetch(weights[n] + d + OUTS * dim);
        const __m512bh weight = load(weights[n] + d, dim - d);
#pragma GCC unroll 4
        for (int64_t p = 0; p < COUNT; p++) held[n][p] = _mm512_dpbf16_ps(held[n][p], weight, at[p]);
      }
    }
#pragma GCC unroll 4
    for (int64_t n = 0; n < OUTS; n++)
#pragma GCC unroll 4
      for (int64_t p = 0; p < COUNT; p++) sums[n][p] = _mm512_reduce_add_ps(held[n][p]);
  }
};
#endif

template <typename T>
void multiply(const T *const (&weights)[OUTS], const T *x, int64_t dim, int64_t count, float (&sums)[OUTS][POSITIONS]) {
  const auto function = count == 1   ? Multiply<T, 1>::compute
                        : count == 2 ? Multiply<T, 2>::compute
                        : count == 3 ? Multiply<T, 3>::compute
                                     : Multiply<T, POSITIONS>::compute;
  function(weights, x, dim, sums);
}

// What a layer computes with: addresses, null where it has no such numbers.
template <typename T>
struct Layer {
  const T *norm, *norm_bias, *ask, *ask_bias, *of_query, *of_key, *answer, *answer_bias;
  const T *second_norm, *second_bias, *up, *up_bias, *down, *down_bias;
  float eps, head_eps, scale;
};

// What is the same in all layers.
struct Shape {
  int64_t layers, hidden, heads, groups, dim, inner, gated;
};

inline int64_t share(int64_t all, int64_t together) {
  return (all + PIECES * together - 1) / (PIECES * together) * together;
}

// The outputs begin, begin + 1, ... of a product for each position, (count, dim), each given to what takes it.
template <typename T, typename Take>
void outputs(const T *weights, const T *bias, const T *x, int64_t outs, int64_t dim, int64_t count, int64_t begin, int64_t end,
             Take take) {
  for (; begin < end; begin += OUTS) {
    const T *rows[OUTS];
    for (int64_t n = 0; n < OUTS; n++) rows[n] = weights + std::min(begin + n, outs - 1) * dim;
    for (int64_t first = 0; first < count; first += POSITIONS) {
      float sums[OUTS][POSITIONS];
      const int64_t few = std::min(POSITIONS, count - first);
      multiply(rows, x + first * dim, dim, few, sums);
      for (int64_t n = 0; n < OUTS && begin + n < end; n++)
        for (int64_t p = 0; p < few; p++) take(first + p, begin + n, sums[n][p] + (bias ? wide(bias[begin + n]) : 0));
    }
  }
}

template <typename T>
class Product : public Work {
  const T *const weights, *const bias, *const x;
  T *const out;
  const int64_t outs, dim, count;

 public:
  Product(const T *weights, const T *bias, const T *x, T *out, int64_t outs, int64_t dim, int64_t count)
      : Work(1), weights(weights), bias(bias), x(x), out(out), outs(outs), dim(dim), count(count) {}
  void take_part() override {
    const int64_t each = share(outs, OUTS);
    phase(0, (outs + each - 1) / each, [&](int64_t piece) {
      outputs(weights, bias, x, outs, dim, count, piece * each, std::min(outs, (piece + 1) * each),
              [&](int64_t p, int64_t o, float sum) { narrow(sum, out[p * outs + o]); });
    });
  }
};

// New positions: of which rows, and where in them; the pages of row r begin at pages + r * most.
struct Places {
  const int64_t *pages;
  int64_t most;
  const int64_t *slots, *positions;
  int64_t count;
};

template <typename T>
class Pass : public Work {
  static constexpr int64_t PHASES = 8;  // of a layer
  const Shape shape;
  const std::vector<Layer<T>> layers;  // a copy: who comes when all is done still looks at it
  const Places places;
  const T *const cosines, *const sines;
  T *const states;
  const int64_t width;
  std::vector<T> normed, asked, attended, inner;

  void norm(int64_t number, const T *weight, const T *bias, float eps) {
    const int64_t dim = shape.hidden;
    phase(number, places.count, [&](int64_t p) { normalise(states + p * dim, weight, bias, &normed[p * dim], dim, eps); });
  }

  template <typename Take>
  void product(int64_t number, const T *weights, const T *bias, const T *x, int64_t outs, int64_t dim, Take take) {
    const int64_t each = share(outs, OUTS);
    phase(number, (outs + each - 1) / each, [&](int64_t piece) {
      outputs(weights, bias, x, outs, dim, places.count, piece * each, std::min(outs, (piece + 1) * each), take);
    });
  }

  // The gates, and what goes through them, lie one behind the other.
  void gates(int64_t number, const Layer<T> &layer) {
    const int64_t dim = shape.hidden, all = shape.inner, each = share(all, 2);
    phase(number, (all + each - 1) / each, [&](int64_t piece) {
      const int64_t end = std::min(all, (piece + 1) * each);
      for (int64_t begin = piece * each; begin < end; begin += 2) {
        const int64_t next = std::min(begin + 1, all - 1), at[OUTS] = {begin, next, all + begin, all + next};
        const T *rows[OUTS];
        for (int64_t n = 0; n < OUTS; n++) rows[n] = layer.up + at[n] * dim;
        for (int64_t first = 0; first < places.count; first += POSITIONS) {
          float sums[OUTS][POSITIONS];
          const int64_t few = std::min(POSITIONS, places.count - first);
          multiply(rows, &normed[first * dim], dim, few, sums);
          for (int64_t p = 0; p < few; p++) {
            T rounded[OUTS];
            for (int64_t n = 0; n < OUTS; n++) narrow(sums[n][p] + (layer.up_bias ? wide(layer.up_bias[at[n]]) : 0), rounded[n]);
            for (int64_t n = 0; n < 2; n++)
              narrow(silu(wide(rounded[n])) * wide(rounded[n + 2]), inner[(first + p) * all + at[n]]);
          }
        }
      }
    });
  }

  void attend_all_heads(int64_t number, const Layer<T> &layer, int64_t layer_number) {
    const int64_t dim = shape.dim, heads = shape.heads, groups = shape.groups, count = places.count;
    const int64_t bytes = PAGE * dim * int64_t(sizeof(T)), keys = layer_number * 2 * groups * bytes;
    const auto row = [&](int64_t p, int64_t group) {
      return Row{places.pages + places.slots[p] * places.most, keys + group * bytes, keys + (groups + group) * bytes};
    };
    phase(number, count, [&](int64_t p) {
      const int64_t page = places.positions[p] / PAGE, to = places.positions[p] % PAGE * dim;
      for (int64_t head = 0; head < heads + groups; head++) {
        T *const x = &asked[p * width + head * dim];
        if (cosines)
          rotate(x, cosines + p * dim, sines + p * dim, head < heads ? layer.of_query : layer.of_key, dim, layer.head_eps);
        if (head < heads) continue;
        std::memcpy(row(p, head - heads).template key<T>(page) + to, x, dim * sizeof(T));
        std::memcpy(row(p, head - heads).template value<T>(page) + to, x + groups * dim, dim * sizeof(T));
      }
    });
    const int64_t each = share(count * heads, 1);
    phase(number + 1, (count * heads + each - 1) / each, [&](int64_t piece) {
      const auto function = dim == 64 ? attend<T, 64> : dim == 128 ? attend<T, 128> : attend<T, 0>;
      for (int64_t n = piece * each; n < std::min(count * heads, (piece + 1) * each); n++) {
        const int64_t p = n / heads, head = n % heads;
        function(&asked[p * width + head * dim], row(p, head / (heads / groups)), &attended[n * dim], places.positions[p] + 1,
                 dim, layer.scale);
      }
    });
  }

 public:
  Pass(const Shape &shape, const Layer<T> *layers, const Places &places, const T *cosines, const T *sines, T *states)
      : Work(PHASES * shape.layers), shape(shape), layers(layers, layers + shape.layers), places(places), cosines(cosines), sines(sines),
        states(states), width((shape.heads + 2 * shape.groups) * shape.dim), normed(places.count * shape.hidden),
        asked(places.count * width), attended(places.count * shape.heads * shape.dim), inner(places.count * shape.inner) {}

  void take_part() override {
    const int64_t hidden = shape.hidden, heads = shape.heads * shape.dim;
    const auto add = [&](int64_t p, int64_t o, float sum) {
      T &state = states[p * hidden + o];
      narrow(sum + wide(state), state);
    };
    const auto activate = [&](int64_t p, int64_t o, float sum) { narrow(gelu(sum), inner[p * shape.inner + o]); };
    for (int64_t n = 0; n < shape.layers; n++) {
      const Layer<T> &layer = layers[n];
      const int64_t first = n * PHASES;
      norm(first, layer.norm, layer.norm_bias, layer.eps);
      product(first + 1, layer.ask, layer.ask_bias, normed.data(), width, hidden,
              [&](int64_t p, int64_t o, float sum) { narrow(sum, asked[p * width + o]); });
      attend_all_heads(first + 2, layer, n);
      product(first + 4, layer.answer, layer.answer_bias, attended.data(), hidden, heads, add);
      norm(first + 5, layer.second_norm, layer.second_bias, layer.eps);
      if (shape.gated)
        gates(first + 6, layer);
      else
        product(first + 6, layer.up, layer.up_bias, normed.data(), shape.inner, hidden, activate);
      product(first + 7, layer.down, layer.down_bias, inner.data(), hidden, shape.inner, add);
    }
  }
};

}  // namespace

#define KERNELS(T, NAME)                                                                                             \
  extern "C" void attend_##NAME(const T *queries, const T *fresh, T *out, const int64_t *pages, int64_t most,        \
                                int64_t keys, int64_t values, const int64_t *slots, const int64_t *positions,        \
                                int64_t count, int64_t heads, int64_t groups, int64_t dim, int64_t stride,           \
                                int64_t head_stride, float scale, int threads) {                                     \
    attend_all(queries, fresh, out, pages, most, keys, values, slots, positions, count, heads, groups, dim, stride,  \
               head_stride, scale, threads);                                                                         \
  }                                                                                                                  \
  extern "C" void norm_##NAME(const T *x, const T *weight, const T *bias, T *out, int64_t rows, int64_t dim,         \
                              float eps, int threads) {                                                              \
    norm_all(x, weight, bias, out, rows, dim, eps, threads);                                                         \
  }                                                                                                                  \
  extern "C" void rotate_##NAME(T *states, const T *cosines, const T *sines, const T *of_query, const T *of_key,     \
                                int64_t positions, int64_t heads, int64_t queries, int64_t dim, int64_t stride,      \
                                float eps, int threads) {                                                            \
    rotate_all(states, cosines, sines, of_query, of_key, positions, heads, queries, dim, stride, eps, threads);      \
  }                                                                                                                  \
  extern "C" void gate_##NAME(const T *gates, T *out, int64_t rows, int64_t dim, int threads) {                      \
    gate_all(gates, out, rows, dim, threads);                                                                        \
  }                                                                                                                  \
  extern "C" void product_##NAME(const T *weights, const T *bias, const T *x, T *out, int64_t outs, int64_t dim,     \
                                 int64_t count, int threads) {                                                       \
    helpers().run(std::make_shared<Product<T>>(weights, bias, x, out, outs, dim, count), threads - 1);               \
  }                                                                                                                  \
  extern "C" void pass_##NAME(const Shape *shape, const Layer<T> *layers, const int64_t *pages, int64_t most,        \
                              const int64_t *slots, const int64_t *positions, int64_t count, const T *cosines,       \
                              const T *sines, T *states, int threads) {                                              \
    const Places places{pages, most, slots, positions, count};                                                       \
    helpers().run(std::make_shared<Pass<T>>(*shape, layers, places, cosines, sines, states), threads - 1);           \
  }
KERNELS(float, float32)
KERNELS(bf16, bfloat16)

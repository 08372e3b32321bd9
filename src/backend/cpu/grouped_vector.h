/* The kernels of grouped convolutions on vectors, written once for every instruction set with GCC's vector extensions: a file
 * that includes this defines NITI_GROUPED_PIXELS and NITI_GROUPED_TERMS, as many as its registers hold. Contracts: grouped.h.
 *
 * A product of two mantissas is at most 127^2 = 16,129, so two of them are added as int16 before they are widened. */
#ifndef NITI_BACKEND_CPU_GROUPED_VECTOR_H
#define NITI_BACKEND_CPU_GROUPED_VECTOR_H

#include "backend/cpu/grouped.h"

#if defined(__AVX512BW__)
enum { INT_LANES = 16 };
#elif defined(__AVX2__)
enum { INT_LANES = 8 };
#else
enum { INT_LANES = 4 };
#endif
enum {
  LANES = NITI_GROUPED_LANES,
  SHORT_LANES = INT_LANES < 8 ? 8 : 16,
  HALVES = LANES / SHORT_LANES,
  PARTS = LANES / INT_LANES
};

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef int8_t Bytes __attribute__((vector_size(SHORT_LANES), aligned(1)));
typedef int16_t Shorts __attribute__((vector_size(SHORT_LANES * 2)));
typedef int16_t SomeShorts __attribute__((vector_size(INT_LANES * 2)));
typedef int32_t Ints __attribute__((vector_size(INT_LANES * 4)));

/* One vector's lanes. */
typedef struct Narrow {
  Shorts of[HALVES];
} Narrow;
typedef struct Wide {
  Ints of[PARTS];
} Wide;

INLINE Narrow load_bytes(const int8_t *from) {
  Narrow n;
  UNROLL for (int h = 0; h < HALVES; ++h) {
    Bytes bytes;
    __builtin_memcpy(&bytes, from + h * SHORT_LANES, sizeof bytes);
    n.of[h] = __builtin_convertvector(bytes, Shorts);
  }
  return n;
}

/* Fewer than LANES bytes. */
INLINE Narrow load_some_bytes(const int8_t *from, size_t count) {
  int8_t bytes[LANES] = {0};
  __builtin_memcpy(bytes, from, count);
  return load_bytes(bytes);
}

INLINE Narrow load_shorts(const int16_t *from) {
  Narrow n;
  __builtin_memcpy(&n, from, sizeof n);
  return n;
}

INLINE Narrow multiply(Narrow a, Narrow b) {
  UNROLL for (int h = 0; h < HALVES; ++h) a.of[h] *= b.of[h];
  return a;
}

INLINE Narrow add(Narrow a, Narrow b) {
  UNROLL for (int h = 0; h < HALVES; ++h) a.of[h] += b.of[h];
  return a;
}

INLINE void accumulate(Wide *sum, Narrow products) {
#if defined(__AVX512BW__)
  sum->of[0] += __builtin_convertvector(products.of[0], Ints);
#elif defined(__AVX2__)
  sum->of[0] += __builtin_convertvector(__builtin_shufflevector(products.of[0], products.of[0], 0, 1, 2, 3, 4, 5, 6, 7), Ints);
  sum->of[1] +=
      __builtin_convertvector(__builtin_shufflevector(products.of[0], products.of[0], 8, 9, 10, 11, 12, 13, 14, 15), Ints);
#else
  UNROLL for (int h = 0; h < HALVES; ++h) {
    const Shorts p = products.of[h];
    sum->of[2 * h] += __builtin_convertvector(__builtin_shufflevector(p, p, 0, 1, 2, 3), Ints);
    sum->of[2 * h + 1] += __builtin_convertvector(__builtin_shufflevector(p, p, 4, 5, 6, 7), Ints);
  }
#endif
}

INLINE void sums_of(int32_t *acc, size_t acc_step, const int16_t *w, size_t w_step, const NitiGroupedRow *r, const int8_t *in,
                    size_t lanes, const int pixels) {
  Wide sum[NITI_GROUPED_PIXELS];
  size_t t = 0;
  UNROLL for (int p = 0; p < pixels; ++p) sum[p] = (Wide){0};
  for (; t + 1 < r->terms; t += 2) {
    const Narrow w0 = load_shorts(w + t * w_step), w1 = load_shorts(w + (t + 1) * w_step);
    const int8_t *first = in + r->offset[t], *second = in + r->offset[t + 1];
    UNROLL for (int p = 0; p < pixels; ++p) {
      accumulate(&sum[p], add(multiply(load_bytes(first + (size_t)p * r->step), w0),
                              multiply(load_bytes(second + (size_t)p * r->step), w1)));
    }
  }
  if (t < r->terms) {
    const Narrow w0 = load_shorts(w + t * w_step);
    UNROLL for (int p = 0; p < pixels; ++p)
        accumulate(&sum[p], multiply(load_bytes(in + r->offset[t] + (size_t)p * r->step), w0));
  }
  if (lanes >= LANES) {
    UNROLL for (int p = 0; p < pixels; ++p) __builtin_memcpy(acc + (size_t)p * acc_step, &sum[p], sizeof sum[p]);
  } else {
    for (int p = 0; p < pixels; ++p) __builtin_memcpy(acc + (size_t)p * acc_step, &sum[p], lanes * sizeof *acc);
  }
}

static void sums(int32_t *acc, size_t acc_step, const int16_t *w, size_t w_step, const NitiGroupedRow *r) {
  size_t p = 0;
  for (; p + NITI_GROUPED_PIXELS <= r->pixels; p += NITI_GROUPED_PIXELS) {
    for (size_t l = 0; l < r->lanes; l += LANES)
      sums_of(acc + p * acc_step + l, acc_step, w + l, w_step, r, r->in + p * r->step + l, r->lanes - l, NITI_GROUPED_PIXELS);
  }
  for (; p < r->pixels; ++p) {
    for (size_t l = 0; l < r->lanes; l += LANES)
      sums_of(acc + p * acc_step + l, acc_step, w + l, w_step, r, r->in + p * r->step + l, r->lanes - l, 1);
  }
}

/* Some terms of one vector of lanes, fewer than LANES where `rest`. */
INLINE void products_of(int32_t *sum, size_t sum_step, const int8_t *dy, size_t dy_step, const NitiGroupedRow *r,
                        const int8_t *in, const size_t *offset, size_t lanes, const bool rest, const int terms) {
  Wide total[NITI_GROUPED_TERMS];
  size_t p = 0;
  UNROLL for (int t = 0; t < terms; ++t) __builtin_memcpy(&total[t], sum + (size_t)t * sum_step, sizeof total[t]);
  for (; p + 1 < r->pixels; p += 2, in += 2 * r->step, dy += 2 * dy_step) {
    const Narrow d0 = rest ? load_some_bytes(dy, lanes) : load_bytes(dy);
    const Narrow d1 = rest ? load_some_bytes(dy + dy_step, lanes) : load_bytes(dy + dy_step);
    UNROLL for (int t = 0; t < terms; ++t) {
      const int8_t *x = in + offset[t];
      accumulate(&total[t], add(multiply(load_bytes(x), d0), multiply(load_bytes(x + r->step), d1)));
    }
  }
  if (p < r->pixels) {
    const Narrow d0 = rest ? load_some_bytes(dy, lanes) : load_bytes(dy);
    UNROLL for (int t = 0; t < terms; ++t) accumulate(&total[t], multiply(load_bytes(in + offset[t]), d0));
  }
  UNROLL for (int t = 0; t < terms; ++t) __builtin_memcpy(sum + (size_t)t * sum_step, &total[t], sizeof total[t]);
}

INLINE void products_of_lanes(int32_t *sum, size_t sum_step, const int8_t *dy, size_t dy_step, const NitiGroupedRow *r,
                              const int8_t *in, size_t lanes, const bool rest) {
  size_t t = 0;
  for (; t + NITI_GROUPED_TERMS <= r->terms; t += NITI_GROUPED_TERMS)
    products_of(sum + t * sum_step, sum_step, dy, dy_step, r, in, r->offset + t, lanes, rest, NITI_GROUPED_TERMS);
  for (; t < r->terms; ++t) products_of(sum + t * sum_step, sum_step, dy, dy_step, r, in, r->offset + t, lanes, rest, 1);
}

static void products(int32_t *sum, size_t sum_step, const int8_t *dy, size_t dy_step, const NitiGroupedRow *r) {
  size_t l = 0;
  for (; l + LANES <= r->lanes; l += LANES) products_of_lanes(sum + l, sum_step, dy + l, dy_step, r, r->in + l, LANES, false);
  if (l < r->lanes) products_of_lanes(sum + l, sum_step, dy + l, dy_step, r, r->in + l, r->lanes - l, true);
}

#endif

/* Batch norm's loops, as an instruction set's compiler vectorises them: blocks of columns whose number the compiler knows.
 *
 * A vector must not depend on the number of channels. Where rows follow each other without a gap, as many as fit are taken as one
 * long row; what a block of NARROW columns would leave over is in a last block that overlaps the one before. */
#ifndef NITI_BACKEND_CPU_LOOPS_NORM_H
#define NITI_BACKEND_CPU_LOOPS_NORM_H

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

#include "backend/cpu/loops.h"
#include "base/size.h"

#define NITI_NORM_INLINE static inline __attribute__((always_inline))
enum { COLUMNS = NITI_SUMS_COLUMNS, NARROW = 16 };

/* How many rows make a long one; columns > 0. */
static size_t rows_together(size_t columns, size_t stride) {
  return columns == stride && columns <= COLUMNS ? COLUMNS / columns : 1;
}

/* ---- sums ---- */

/* Adds columns at .. at + columns - 1, the first `skipped` of which have been added before. deltas: of d, d x and d d, instead of
 * x and x x; known at compile time, like columns. */
NITI_NORM_INLINE void sum_block(int32_t (*out)[COLUMNS], const int8_t *restrict d, const int8_t *restrict x, size_t rows,
                                size_t columns, size_t stride, size_t skipped, bool deltas) {
  int32_t sums[COLUMNS] = {0}, squares[COLUMNS] = {0}, products[COLUMNS] = {0};
  for (size_t row = 0; row < rows; ++row, d += stride, x += stride) {
    for (size_t c = 0; c < columns; ++c) sums[c] += d[c];
    for (size_t c = 0; c < columns; ++c) squares[c] += d[c] * d[c];
    if (!deltas) continue;
    for (size_t c = 0; c < columns; ++c) products[c] += d[c] * x[c];
  }
  for (size_t c = skipped; c < columns; ++c) {
    out[0][c] += sums[c];
    out[deltas ? 2 : 1][c] += squares[c];
    if (deltas) out[1][c] += products[c];
  }
}

#if defined(__AVX512VNNI__)
/* The bytes of four rows of COLUMNS columns, or fewer rows, a column's four side by side: lane l of vector j has columns 16 l + 4
 * j
 * .. + 3. */
typedef struct Fours {
  __m512i v[4];
} Fours;

NITI_NORM_INLINE Fours fours_of(const int8_t *x, size_t rows, size_t stride) {
  __m512i r[4];
  for (size_t i = 0; i < 4; ++i) r[i] = i < rows ? _mm512_loadu_si512(x + i * stride) : _mm512_setzero_si512();
  const __m512i a = _mm512_unpacklo_epi8(r[0], r[1]), a_high = _mm512_unpackhi_epi8(r[0], r[1]);
  const __m512i b = _mm512_unpacklo_epi8(r[2], r[3]), b_high = _mm512_unpackhi_epi8(r[2], r[3]);
  return (Fours){{_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b), _mm512_unpacklo_epi16(a_high, b_high),
                  _mm512_unpackhi_epi16(a_high, b_high)}};
}

NITI_NORM_INLINE void add_fours(int32_t *restrict out, const Fours *sums) {
  int32_t all[COLUMNS];
  for (int j = 0; j < 4; ++j) _mm512_storeu_si512(all + 16 * j, sums->v[j]);
  for (size_t c = 0; c < COLUMNS; ++c) out[c] += all[c % 16 / 4 * 16 + c / 16 * 4 + c % 4];
}

/* sum_block of COLUMNS columns. One operand of a product is unsigned: magnitudes for squares, and for d x 128 more than d, which
 * `above` takes away again. */
NITI_NORM_INLINE void sum_fours(int32_t (*out)[COLUMNS], const int8_t *d, const int8_t *x, size_t rows, size_t stride,
                                bool deltas) {
  const __m512i ones = _mm512_set1_epi8(1), high = _mm512_set1_epi8((char)128);
  Fours sums = {0}, squares = {0}, products = {0}, above = {0};
  for (size_t row = 0; row < rows; row += 4, d += 4 * stride, x += 4 * stride) {
    const size_t some = niti_least(4, rows - row);
    const Fours delta = some == 4 ? fours_of(d, 4, stride) : fours_of(d, some, stride);
    for (int j = 0; j < 4; ++j) {
      const __m512i magnitude = _mm512_abs_epi8(delta.v[j]);
      sums.v[j] = _mm512_dpbusd_epi32(sums.v[j], ones, delta.v[j]);
      squares.v[j] = _mm512_dpbusd_epi32(squares.v[j], magnitude, magnitude);
    }
    if (!deltas) continue;
    const Fours value = some == 4 ? fours_of(x, 4, stride) : fours_of(x, some, stride);
    for (int j = 0; j < 4; ++j) {
      products.v[j] = _mm512_dpbusd_epi32(products.v[j], _mm512_xor_si512(delta.v[j], high), value.v[j]);
      above.v[j] = _mm512_dpbusd_epi32(above.v[j], high, value.v[j]);
    }
  }
  for (int j = 0; deltas && j < 4; ++j) products.v[j] = _mm512_sub_epi32(products.v[j], above.v[j]);
  add_fours(out[0], &sums);
  add_fours(out[deltas ? 2 : 1], &squares);
  if (deltas) add_fours(out[1], &products);
}
#else
NITI_NORM_INLINE void sum_fours(int32_t (*out)[COLUMNS], const int8_t *d, const int8_t *x, size_t rows, size_t stride,
                                bool deltas) {
  sum_block(out, d, x, rows, COLUMNS, stride, 0, deltas);
}
#endif

NITI_NORM_INLINE void sum_columns(int32_t (*out)[COLUMNS], const int8_t *d, const int8_t *x, size_t rows, size_t columns,
                                  size_t stride, bool deltas) {
  size_t c = 0;
  if (columns == COLUMNS) {
    sum_fours(out, d, x, rows, stride, deltas);
    return;
  }
  for (; c + NARROW <= columns; c += NARROW)
    sum_block((int32_t(*)[COLUMNS])(out[0] + c), d + c, x + c, rows, NARROW, stride, 0, deltas);
  if (c == columns) return;
  const size_t at = c > 0 ? columns - NARROW : 0;
  if (c > 0)
    sum_block((int32_t(*)[COLUMNS])(out[0] + at), d + at, x + at, rows, NARROW, stride, c - at, deltas);
  else
    sum_block(out, d, x, rows, columns, stride, 0, deltas);
}

/* Of long rows, and of the rest of the rows as one that is shorter. */
NITI_NORM_INLINE void sum_rows(int32_t (*out)[COLUMNS], const int8_t *d, const int8_t *x, size_t rows, size_t columns,
                               size_t stride, bool deltas) {
  const size_t together = rows_together(columns, stride), rest = rows % together, done = (rows - rest) * stride;
  int32_t wide[3][COLUMNS] = {{0}};
  sum_columns(wide, d, x, rows / together, together * columns, together * stride, deltas);
  if (rest > 0) sum_columns(wide, d + done, x + done, 1, rest * columns, 0, deltas);
  for (size_t i = 0; i < together; ++i) {
    for (size_t k = 0; k < (deltas ? 3 : 2); ++k) {
      for (size_t c = 0; c < columns; ++c) out[k][c] += wide[k][i * columns + c];
    }
  }
}

static void sums(int32_t out[2][COLUMNS], const int8_t *x, size_t rows, size_t columns, size_t stride) {
  sum_rows(out, x, x, rows, columns, stride, false);
}

static void delta_sums(int32_t out[3][COLUMNS], const int8_t *d, const int8_t *x, size_t rows, size_t columns, size_t stride) {
  sum_rows(out, d, x, rows, columns, stride, true);
}

/* ---- affine maps ---- */

/* The multipliers of at most COLUMNS columns, each kind together. */
typedef struct Multipliers {
  int32_t factor[COLUMNS], slope[COLUMNS], offset[COLUMNS];
} Multipliers;

/* acc and what it is made from; deltas: factor d + slope x + offset instead of factor x + offset, known at compile time. */
typedef struct MapRows {
  int32_t *acc;
  const int8_t *d, *x;
  size_t rows, stride, acc_stride;
} MapRows;

NITI_NORM_INLINE void map_block(const MapRows *r, const Multipliers *m, size_t at, size_t columns, bool deltas) {
  int32_t *restrict acc = r->acc + at;
  const int8_t *restrict d = r->d + at, *restrict x = r->x + at;
  const int32_t *restrict factor = m->factor + at, *restrict slope = m->slope + at, *restrict offset = m->offset + at;
  for (size_t row = 0; row < r->rows; ++row, acc += r->acc_stride, d += r->stride, x += r->stride) {
    for (size_t c = 0; c < columns; ++c) acc[c] = factor[c] * d[c] + (deltas ? slope[c] * x[c] : 0) + offset[c];
  }
}

NITI_NORM_INLINE void map_columns(const MapRows *r, const Multipliers *m, size_t columns, bool deltas) {
  size_t c = 0;
  if (columns == COLUMNS) {
    map_block(r, m, 0, COLUMNS, deltas);
    return;
  }
  for (; c + NARROW <= columns; c += NARROW) map_block(r, m, c, NARROW, deltas);
  if (c == columns) return;
  if (c > 0)
    map_block(r, m, columns - NARROW, NARROW, deltas);
  else
    map_block(r, m, 0, columns, deltas);
}

/* Rows of at most COLUMNS columns, `together` of them a long one, whose multipliers m holds. */
NITI_NORM_INLINE void map_rows(MapRows r, const Multipliers *m, size_t columns, size_t together, bool deltas) {
  const size_t rest = r.rows % together, done = r.rows - rest;
  const MapRows last = {r.acc + done * r.acc_stride, r.d + done * r.stride, r.x + done * r.stride, 1, 0, 0};
  r.rows = done / together;
  r.stride *= together;
  r.acc_stride *= together;
  map_columns(&r, m, together * columns, deltas);
  if (rest > 0) map_columns(&last, m, rest * columns, deltas);
}

/* Where a block that begins at column c begins instead, so that it is not too narrow. */
static size_t block_start(size_t c, size_t columns) { return columns - c < NARROW && c > 0 ? columns - NARROW : c; }

static void affine(int32_t *acc, const NitiAffine *a, const int8_t *x, size_t rows, size_t columns, size_t stride) {
  const size_t together = rows_together(columns, stride);
  Multipliers m;
  for (size_t next = 0; next < columns; next += COLUMNS) {
    const size_t c = block_start(next, columns), count = niti_least(COLUMNS, columns - c);
    for (size_t i = 0; i < together * count; ++i) {
      m.factor[i] = a[c + i % count].factor;
      m.offset[i] = a[c + i % count].offset;
    }
    map_rows((MapRows){acc + c, x + c, x + c, rows, stride, columns}, &m, count, together, false);
  }
}

static void affine_delta(int32_t *acc, const NitiAffineDelta *a, const int8_t *d, const int8_t *x, size_t rows, size_t columns,
                         size_t stride) {
  const size_t together = rows_together(columns, stride);
  Multipliers m;
  for (size_t next = 0; next < columns; next += COLUMNS) {
    const size_t c = block_start(next, columns), count = niti_least(COLUMNS, columns - c);
    for (size_t i = 0; i < together * count; ++i) {
      m.factor[i] = a[c + i % count].factor;
      m.slope[i] = a[c + i % count].slope;
      m.offset[i] = a[c + i % count].offset;
    }
    map_rows((MapRows){acc + c, d + c, x + c, rows, stride, columns}, &m, count, together, true);
  }
}

#endif

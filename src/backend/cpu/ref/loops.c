/* The definition of the loops, one element after another; all others must agree with it. */
#include "backend/cpu/loops_largest.h"

static void sums(int32_t out[2][NITI_SUMS_COLUMNS], const int8_t *x, size_t rows, size_t columns, size_t stride) {
  for (size_t row = 0; row < rows; ++row, x += stride) {
    for (size_t c = 0; c < columns; ++c) {
      out[0][c] += x[c];
      out[1][c] += x[c] * x[c];
    }
  }
}

static void delta_sums(int32_t out[3][NITI_SUMS_COLUMNS], const int8_t *d, const int8_t *x, size_t rows, size_t columns,
                       size_t stride) {
  for (size_t row = 0; row < rows; ++row, d += stride, x += stride) {
    for (size_t c = 0; c < columns; ++c) {
      out[0][c] += d[c];
      out[1][c] += d[c] * x[c];
      out[2][c] += d[c] * d[c];
    }
  }
}

static void affine(int32_t *acc, const NitiAffine *a, const int8_t *x, size_t rows, size_t columns, size_t stride) {
  for (size_t row = 0; row < rows; ++row, x += stride) {
    for (size_t c = 0; c < columns; ++c) *acc++ = a[c].factor * x[c] + a[c].offset;
  }
}

static void affine_delta(int32_t *acc, const NitiAffineDelta *a, const int8_t *d, const int8_t *x, size_t rows, size_t columns,
                         size_t stride) {
  for (size_t row = 0; row < rows; ++row, d += stride, x += stride) {
    for (size_t c = 0; c < columns; ++c) *acc++ = a[c].factor * d[c] + a[c].slope * x[c] + a[c].offset;
  }
}

static int64_t gradient_at(const NitiSgdRange *r, size_t i) {
  return r->bits == 32 ? ((const int32_t *)r->gradient)[i] : ((const int64_t *)r->gradient)[i];
}

static void sgd(const NitiSgdRange *r, const NitiSgd *step, const NitiDraw *draw) {
  for (size_t i = 0; i < r->count; i += 4) {
    const NitiWords words = niti_draw_block(draw, (uint32_t)((r->first + i) / 4));
    for (size_t k = 0; k < 4 && i + k < r->count; ++k)
      niti_sgd_weight(&r->weight[i + k], &r->velocity[i + k], gradient_at(r, i + k), words.word[k], step);
  }
  for (size_t i = 0; r->operand && i < r->count; ++i) r->operand[i] = niti_sgd_operand(r->weight[i]);
}

const NitiLoops niti_loops_ref = {.largest16 = largest16,
                                  .largest32 = largest32,
                                  .largest64 = largest64,
                                  .spread16 = spread16,
                                  .squares32 = squares32,
                                  .squares64 = squares64,
                                  .update = update_fraction,
                                  .sums = sums,
                                  .delta_sums = delta_sums,
                                  .affine = affine,
                                  .affine_delta = affine_delta,
                                  .sgd = sgd};

/* The innermost loops: sums of products, in portable C and for processors with instructions for them. Every variant gives the same sums. */
#ifndef NITI_RT_DOT_H
#define NITI_RT_DOT_H

#include "niti_rt.h"

/* acc[r] = the sum of a[i] * b[r * stride + i] over i < count, for four rows of b. */
RT_HOT static void rt_dot4(int32_t acc[4], const int8_t *a, const int8_t *b, int32_t stride, int32_t count) {
  const int8_t *b0 = b, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, i = 0;
  for (; i + 4 <= count; i += 4) {
    int32_t v = a[i];
    s0 += v * b0[i];
    s1 += v * b1[i];
    s2 += v * b2[i];
    s3 += v * b3[i];
    v = a[i + 1];
    s0 += v * b0[i + 1];
    s1 += v * b1[i + 1];
    s2 += v * b2[i + 1];
    s3 += v * b3[i + 1];
    v = a[i + 2];
    s0 += v * b0[i + 2];
    s1 += v * b1[i + 2];
    s2 += v * b2[i + 2];
    s3 += v * b3[i + 2];
    v = a[i + 3];
    s0 += v * b0[i + 3];
    s1 += v * b1[i + 3];
    s2 += v * b2[i + 3];
    s3 += v * b3[i + 3];
  }
  for (; i < count; ++i) {
    const int32_t v = a[i];
    s0 += v * b0[i];
    s1 += v * b1[i];
    s2 += v * b2[i];
    s3 += v * b3[i];
  }
  acc[0] = s0;
  acc[1] = s1;
  acc[2] = s2;
  acc[3] = s3;
}

static inline int32_t rt_dot1(const int8_t *a, const int8_t *b, int32_t count) {
  int32_t s = 0, i;
  for (i = 0; i < count; ++i) s += a[i] * b[i];
  return s;
}

#if RT_TRAINING
/* Rows that are added to a row of accumulators, four at a time. */
typedef struct rt_rows {
  const int8_t *row[4];
  int32_t factor[4];
  int32_t count;
} rt_rows;

/* sum[i] += factor[0] * row[0][i] + ... of four rows. */
RT_HOT static void rt_add4(int32_t *sum, const rt_rows *rows, uint32_t offset, int32_t count) {
  const int8_t *a = rows->row[0] + offset, *b = rows->row[1] + offset, *c = rows->row[2] + offset, *d = rows->row[3] + offset;
  const int32_t fa = rows->factor[0], fb = rows->factor[1], fc = rows->factor[2], fd = rows->factor[3];
  int32_t i;
  for (i = 0; i < count; ++i) sum[i] += fa * a[i] + fb * b[i] + fc * c[i] + fd * d[i];
}

RT_HOT static void rt_add1(int32_t *sum, const int8_t *row, int32_t factor, int32_t count) {
  int32_t i;
  for (i = 0; i < count; ++i) sum[i] += factor * row[i];
}
#endif

#endif

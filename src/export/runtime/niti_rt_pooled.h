/* A convolution with the ReLU and the max-pool that follow it, forward: of each window of the pool the largest sum alone is kept,
 * and which it was. */
#ifndef NITI_RT_POOLED_H
#define NITI_RT_POOLED_H

#include "niti_rt_window.h"

#ifdef RT_POOLED
/* The first cell that rounds to what the largest accumulator, which is positive, rounds to: to nearest, or truncated. */
static inline uint32_t rt_first_cell(const int32_t *acc, int32_t most, int32_t shift, uint32_t mode) {
  const int32_t s = shift > 0 ? shift : 0, half = s > 0 && mode == RT_NEAREST ? 1 << (s - 1) : 0;
  const int32_t m = (most + half) >> s, least = ((m > 127 ? 127 : m) << s) - half;
  if (m == 0 || acc[0] >= least) return 0;
  return acc[1] >= least ? 1 : acc[2] >= least ? 2 : 3;
}

#ifdef RT_WRITES
/* WRITE: the accumulators of one window; flat[cell]: where they lie in the convolution's output. */
static inline void rt_write_window(rt_sink *k, uint32_t index, const int32_t *acc, const uint32_t *flat, uint32_t channel,
                                   int32_t cells) {
  int32_t i, best = 0;
  k->out[index] = 0;
  for (i = 0; i < cells; ++i) {
    const int8_t m = acc[i] > 0 ? rt_sink_round(k, acc[i], flat[i] + channel) : (int8_t)0;
    if (m <= k->out[index]) continue;
    k->out[index] = m;
    best = i;
  }
  if (k->winner) k->winner[index] = (uint8_t)best;
}
#endif

/* The winner for three shifts. */
static inline uint8_t rt_candidates(const int32_t *acc, int32_t most, int32_t guess, uint32_t mode) {
  if (acc[0] == most) return 0;
  return (uint8_t)(rt_first_cell(acc, most, guess - 1, mode) | rt_first_cell(acc, most, guess, mode) << 2 |
                   rt_first_cell(acc, most, guess + 1, mode) << 4);
}

/* What the windows of a pool leave behind. */
typedef struct rt_fold {
  int32_t highest, negative; /* negative: every bit that no negative accumulator lacks */
  int8_t *out, *high;        /* of the next output */
  int32_t shift;
} rt_fold;

static inline void rt_fold_measure(rt_fold *f, const int32_t *acc, int32_t most) {
  f->highest = most > f->highest ? most : f->highest;
  f->negative &= (acc[0] | ~(acc[0] >> 31)) & (acc[1] | ~(acc[1] >> 31));
  f->negative &= (acc[2] | ~(acc[2] >> 31)) & (acc[3] | ~(acc[3] >> 31));
}

/* The largest accumulator of a window, or 0. */
static inline int32_t rt_fold_most(const int32_t *acc) {
  int32_t most = acc[0] > acc[1] ? acc[0] : acc[1];
  most = acc[2] > most ? acc[2] : most;
  most = acc[3] > most ? acc[3] : most;
  return most > 0 ? most : 0;
}

/* Both, and keeps the upper bits. Returns the largest. */
#if defined(RT_DSP) && !defined(__OPTIMIZE_SIZE__) /* as few registers are left as the inner loop leaves */
static inline int32_t rt_fold_keep(rt_fold *f, const int32_t *acc) {
  int32_t most, t;
#define RT_NEGATIVE(s) "orn %[t], %[" #s "], %[" #s "], asr #31\n\tand r5, r5, %[t]\n\t"
#if RT_CLIPS
#define RT_SATURATE "usat %[t], #15, %[t]\n\t"
#else
#define RT_SATURATE
#endif
#define RT_LARGER(m, s) "cmp " m ", " s "\n\tit lt\n\tmovlt " m ", " s "\n\t"
  __asm__ volatile("ldm %[f], {r4, r5, r6, r8, r10}\n\t" RT_NEGATIVE(s0) RT_NEGATIVE(s1) RT_NEGATIVE(s2)
                       RT_NEGATIVE(s3) "bic %[m], %[s0], %[s0], asr #31\n\t" RT_LARGER("%[m]", "%[s1]") RT_LARGER("%[m]", "%[s2]")
                           RT_LARGER("%[m]", "%[s3]") RT_LARGER("r4", "%[m]") "asr %[t], %[m], r10\n\t" RT_SATURATE
                                                                              "strb %[t], [r6], #1\n\t"
                                                                              "lsr %[t], %[t], #8\n\t"
                                                                              "strb %[t], [r8], #1\n\t"
                                                                              "stm %[f], {r4, r5, r6, r8}"
                   : [m] "=&r"(most), [t] "=&r"(t)
                   : [f] "r"(f), [s0] "r"(acc[0]), [s1] "r"(acc[1]), [s2] "r"(acc[2]), [s3] "r"(acc[3])
                   : "r4", "r5", "r6", "r8", "r10", "cc", "memory");
#undef RT_NEGATIVE
#undef RT_LARGER
#undef RT_SATURATE
  return most;
}
#else
static inline int32_t rt_fold_keep(rt_fold *f, const int32_t *acc) {
  const int32_t most = rt_fold_most(acc), kept = (int32_t)rt_kept(most >> f->shift);
  rt_fold_measure(f, acc, most);
  *f->out++ = (int8_t)(uint8_t)(kept & 255);
  *f->high++ = (int8_t)(uint8_t)((kept >> 8) & 255);
  return most;
}
#endif

#ifdef RT_RVV
/* The winners of a block for three shifts, as rt_candidates has them. */
static inline void rt_put_winners(const rt_sink *k, uint32_t index, const int32_t *acc, int32_t n) {
#if RT_TRAINING
  int32_t i;
  rt_zero_bytes(k->winner + index, n);
  for (i = 0; i < 3; ++i) {
    const int32_t s = k->guess + i > 1 ? k->guess + i - 1 : 0, half = s > 0 && rt_mode(k) == RT_NEAREST ? 1 << (s - 1) : 0;
    rt_v_winners(k->winner + index, acc, n, s, half, 2 * i);
  }
#else
  (void)k, (void)index, (void)acc, (void)n;
#endif
}

/* All channels of one window of the pool, below ReLU: LATE. */
RT_COLD static void rt_keep_window(rt_sink *k, uint32_t index, const rt_conv *v, const int8_t *w, const int8_t *columns,
                                   int32_t size) {
  int32_t acc[4 * RT_V_BLOCK], j, n;
  for (j = 0; j < v->k; j += n, index += (uint32_t)n) {
    n = v->k - j < RT_V_BLOCK ? v->k - j : RT_V_BLOCK;
    w = rt_block(acc, k, v, j, n, w, columns, size);
    k->max = rt_v_fold(k->out + index, k->high + index, acc, n, k->shift, k->max);
    if (k->winner) rt_put_winners(k, index, acc, n);
  }
}
#endif

/* All channels of one window of the pool, below ReLU. */
RT_COLD static void rt_put_window(rt_sink *k, uint32_t index, const rt_conv *v, const int8_t *w, const int8_t *columns,
                                  int32_t size, const uint32_t *flat) {
  const int32_t guess = k->guess;
  const uint32_t mode = rt_mode(k), end = index + (uint32_t)v->k;
  uint8_t *const winner = k->winner;
  rt_fold f = {0, -1, k->out + index, NULL, k->shift};
  if (rt_is_late(k)) f.high = k->high + index;
  for (; index < end; ++index) {
    int32_t acc[4];
    w = rt_dot_columns(acc, w, columns, size);
#ifdef RT_BIAS
    {
      const int32_t bias = rt_bias(k, v, v->k - (int32_t)(end - index));
      acc[0] += bias;
      acc[1] += bias;
      acc[2] += bias;
      acc[3] += bias;
    }
#endif
    if (rt_is_late(k)) {
      const int32_t most = rt_fold_keep(&f, acc);
      if (RT_TRAINING && winner) winner[index] = most > 0 ? rt_candidates(acc, most, guess, mode) : (uint8_t)0;
    }
#ifdef RT_WRITES
    if (!rt_is_late(k)) rt_fold_measure(&f, acc, rt_fold_most(acc));
    if (k->kind == RT_WRITE) {
      int32_t all[4];
      all[0] = acc[0];
      all[1] = acc[1];
      all[2] = acc[2];
      all[3] = acc[3];
      rt_write_window(k, index, all, flat, (uint32_t)v->k - (end - index), v->pool_h * v->pool_w);
    }
#else
    (void)flat;
#endif
  }
  if ((uint32_t)f.highest > k->max) k->max = (uint32_t)f.highest;
  /* Of the negative ones, a magnitude that needs as many bits as the largest: a shift depends on nothing else. */
  if (rt_magnitude(f.negative) > k->max) k->max = rt_magnitude(f.negative);
}

#ifdef RT_REST
static inline int32_t rt_is_pooled(int32_t at, int32_t kernel, int32_t stride, int32_t windows) {
  return at / stride < windows && at % stride < kernel;
}

/* Outputs in no window of the pool count for the shift all the same. */
RT_UNUSED static void rt_measure_rest(rt_sink *k, const rt_conv *v, const int8_t *x, const int8_t *w, int8_t *column) {
  const int32_t size = rt_window_size(v);
  int32_t oy, ox, j;
  if (v->pool_h * v->pool_w * v->pool_oh * v->pool_ow == v->oh * v->ow) return;
  for (oy = 0; oy < v->oh; ++oy) {
    const int32_t row = rt_is_pooled(oy, v->pool_h, v->pool_stride_h, v->pool_oh);
    for (ox = 0; ox < v->ow; ++ox) {
      if (row && rt_is_pooled(ox, v->pool_w, v->pool_stride_w, v->pool_ow)) continue;
      rt_gather(column, v, x, oy * v->stride_h - v->pad_h, ox * v->stride_w - v->pad_w);
      for (j = 0; j < v->k; ++j) {
        const uint32_t m = rt_magnitude(rt_dot1(w + j * size, column, size) + rt_bias(k, v, j));
        if (m > k->max) k->max = m;
      }
    }
  }
}

#endif

RT_UNUSED static void rt_pooled_image(rt_sink *k, const rt_forward *o, const int8_t *x, const int8_t *w, int8_t *columns,
                                      int32_t image) {
  const rt_conv *v = o->conv;
  const int32_t size = rt_window_size(v), step_h = v->pool_stride_h * v->stride_h, step_w = v->pool_stride_w * v->stride_w;
  uint32_t index = (uint32_t)(image * v->pool_oh * v->pool_ow * v->k);
  int32_t py, px, i;
  for (py = 0; py < v->pool_oh; ++py) {
    for (px = 0; px < v->pool_ow; ++px) {
      const int32_t iy = py * step_h - v->pad_h, ix = px * step_w - v->pad_w;
      int32_t cell_y = 0, cell_x = 0;
      uint32_t flat[4];
      for (i = 0; i < 4; ++i) { /* fewer cells come again: none wins against itself */
        rt_gather_column(columns, i, size, v, x, iy + cell_y * v->stride_h, ix + cell_x * v->stride_w);
#ifdef RT_WRITES
        flat[i] = (uint32_t)(((image * v->oh + py * v->pool_stride_h + cell_y) * v->ow + px * v->pool_stride_w + cell_x) * v->k);
#endif
        if (++cell_x < v->pool_w) continue;
        cell_x = 0;
        if (++cell_y == v->pool_h) cell_y = 0;
      }
#ifdef RT_RVV
      if (rt_is_late(k))
        rt_keep_window(k, index, v, w, columns, size);
      else
#endif
        rt_put_window(k, index, v, w, columns, size, flat);
      index += (uint32_t)v->k;
    }
  }
#ifdef RT_REST
  if (k->kind != RT_WRITE) rt_measure_rest(k, v, x, w, columns);
#endif
}

#endif

#endif

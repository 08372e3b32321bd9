/* Convolutions and linear layers, with the ReLU and max-pool that follow: forward, the delta of the input, and the update.
 *
 * Backward visits the non-zero deltas alone. After a pool that is one cell of each window at most, so the delta of the
 * convolution's whole output is never written: the pool's own delta and the winning cells stand for it. */
#ifndef NITI_RT_CONV_H
#define NITI_RT_CONV_H

#include "niti_rt_dot.h"

/* x [h][w][c], weights [k][kh][kw][c / groups], output [oh][ow][k]. pool_h > 0: a max-pool follows, whose windows do not overlap
 * and have at most four cells. */
typedef struct rt_conv {
  uint16_t h, w, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w;
  uint16_t pool_h, pool_w, pool_stride_h, pool_stride_w, pool_oh, pool_ow;
  int32_t c, k;
  const int8_t *frozen; /* the weights, where they are constant; NULL: at `weight` among the network's */
#if RT_TRAINING
  uint32_t weight;
#endif
  int32_t weight_exponent;
#ifdef RT_GROUPED
  int32_t groups; /* 0: one; with more, forward alone, and no pool */
#endif
#ifdef RT_BIAS
  const int16_t *bias; /* [k], constant; NULL: none */
  int32_t bias_exponent;
#endif
} rt_conv;

static inline const int8_t *rt_weights(const rt *r, const rt_conv *v) {
#if RT_TRAINING
  if (!v->frozen) return r->weights + v->weight;
#endif
  (void)r;
  return v->frozen;
}

static inline int32_t rt_window_size(const rt_conv *v) { return v->kh * v->kw * v->c; }

/* The taps first .. end - 1 of a kernel whose window begins at `at` that meet an input of `size`. */
typedef struct rt_span {
  int32_t first, end;
} rt_span;

static inline rt_span rt_span_of(int32_t at, int32_t kernel, int32_t size) {
  rt_span s;
  s.first = at < 0 ? -at : 0;
  s.end = at + kernel > size ? size - at : kernel;
  if (s.end < s.first) s.end = s.first;
  return s;
}

/* ---- forward ---- */

typedef struct rt_forward {
  const rt_conv *conv;
  uint32_t x, y, high, columns;
#if RT_TRAINING
  uint32_t winner, packed; /* a byte, and at last two bits, per output of the pool; RT_NONE: no winners are wanted */
#endif
  uint16_t ex, ey, hint, relu;
  rt_rounding rounding;
} rt_forward;

/* The window that begins at (iy, ix) as one row, zeros where it leaves the image. */
RT_UNUSED static void rt_gather_border(int8_t *column, const rt_conv *v, const int8_t *x, int32_t iy, int32_t ix) {
  const int32_t row = v->kw * v->c;
  const rt_span span = rt_span_of(ix, v->kw, v->w);
  const int32_t first = span.first < v->kw ? span.first * v->c : row, end = span.end < v->kw ? span.end * v->c : row;
  int32_t ky;
  for (ky = 0; ky < v->kh; ++ky, column += row) {
    if (iy + ky < 0 || iy + ky >= v->h || first >= end) {
      rt_zero_bytes((uint8_t *)column, row);
      continue;
    }
    rt_zero_bytes((uint8_t *)column, first);
    rt_copy(column + first, x + ((iy + ky) * v->w + ix) * v->c + first, end - first);
    rt_zero_bytes((uint8_t *)column + end, row - end);
  }
}

static inline void rt_gather(int8_t *column, const rt_conv *v, const int8_t *x, int32_t iy, int32_t ix) {
#ifndef __OPTIMIZE_SIZE__
  if (iy >= 0 && ix >= 0 && iy + v->kh <= v->h && ix + v->kw <= v->w) { /* as most */
    const int32_t row = v->kw * v->c, line = v->w * v->c;
    int32_t ky = v->kh;
    for (x += iy * line + ix * v->c; ky > 0; --ky, column += row, x += line) rt_copy(column, x, row);
    return;
  }
#endif
  rt_gather_border(column, v, x, iy, ix);
}

#if defined(RT_DSP) && !defined(__OPTIMIZE_SIZE__)
/* Groups of zeros of a column. Returns the place of the next. */
static inline uint32_t *rt_blank(uint32_t *to, int32_t groups) {
  for (; groups > 0; --groups, to += 8) to[0] = to[1] = 0;
  return to;
}

/* Groups straight from the image, where every pixel begins one. */
RT_UNUSED static void rt_gather_groups(uint32_t *to, const rt_conv *v, const int8_t *x, int32_t iy, int32_t ix) {
  const int32_t line = v->w * v->c, pixel = v->c >> 2;
  if (iy >= 0 && ix >= 0 && iy + v->kh <= v->h && ix + v->kw <= v->w) {
    int32_t rows = v->kh;
    for (x += iy * line + ix * v->c; rows > 0; --rows, x += line) to = rt_widen(to, x, v->kw * pixel);
    return;
  }
  const rt_span high = rt_span_of(iy, v->kh, v->h), wide = rt_span_of(ix, v->kw, v->w);
  const int32_t left = wide.first * pixel, groups = (wide.end - wide.first) * pixel, right = v->kw * pixel - left - groups;
  int32_t ky;
  if (high.first >= high.end || wide.first >= wide.end) { /* a window beyond the image, perhaps by more than its own size */
    (void)rt_blank(to, v->kh * v->kw * pixel);
    return;
  }
  x += (iy + high.first) * line + (ix + wide.first) * v->c;
  to = rt_blank(to, high.first * v->kw * pixel);
  for (ky = high.first; ky < high.end; ++ky, x += line) {
    to = rt_blank(to, left);
    to = rt_widen(to, x, groups);
    to = rt_blank(to, right);
  }
  (void)rt_blank(to, (v->kh - high.end) * v->kw * pixel);
}
#endif

/* Column i of four: the window that begins at (iy, ix). */
RT_UNUSED static void rt_gather_column(int8_t *columns, int32_t i, int32_t size, const rt_conv *v, const int8_t *x, int32_t iy,
                                       int32_t ix) {
#if defined(RT_DSP) && !defined(__OPTIMIZE_SIZE__)
  if ((v->c & 3) == 0) {
    rt_gather_groups((uint32_t *)(void *)(columns + 8 * i), v, x, iy, ix);
    return;
  }
#endif
  rt_gather(rt_column(columns, i, size), v, x, iy, ix);
  rt_column_ready(columns, i, size);
}

/* The bias of an output channel, at the accumulators' exponent. */
static inline int32_t rt_bias(const rt_sink *k, const rt_conv *v, int32_t channel) {
#ifdef RT_BIAS
  const int32_t most = 1 << 29, b = v->bias ? v->bias[channel] : 0, size = b < 0 ? -b : b, d = k->lift;
  int32_t m;
  if (size == 0 || d < -16) return 0;
  if (d < 0) {
    m = (size + (1 << (-d - 1))) >> -d;
  } else {
    m = d > 29 || size > most >> d ? most : size << d;
  }
  return b < 0 ? -m : m;
#else
  (void)k, (void)v, (void)channel;
  return 0;
#endif
}

#ifdef RT_RVV
/* The sums of n output channels from `channel` on for four columns. Returns the row of weights behind theirs. */
static inline const int8_t *rt_block(int32_t *acc, const rt_sink *k, const rt_conv *v, int32_t channel, int32_t n,
                                     const int8_t *w, const int8_t *columns, int32_t size) {
  int32_t i;
  for (i = 0; i < n; ++i, ++acc, w += size) {
    const int32_t bias = rt_bias(k, v, channel + i);
    int32_t sums[4];
    rt_v_dot4(sums, w, columns, size, size);
    acc[0] = sums[0] + bias;
    acc[RT_V_BLOCK] = sums[1] + bias;
    acc[2 * RT_V_BLOCK] = sums[2] + bias;
    acc[3 * RT_V_BLOCK] = sums[3] + bias;
  }
  return w;
}
#endif

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

#ifdef RT_PLAIN
#ifdef RT_RVV
/* All channels of up to four outputs: LATE. */
RT_COLD static void rt_keep_outputs(rt_sink *k, uint32_t index, const rt_conv *v, const int8_t *w, const int8_t *columns,
                                    int32_t size, int32_t outputs) {
  int32_t acc[4 * RT_V_BLOCK], i, j, n;
  for (j = 0; j < v->k; j += n) {
    n = v->k - j < RT_V_BLOCK ? v->k - j : RT_V_BLOCK;
    w = rt_block(acc, k, v, j, n, w, columns, size);
    for (i = 0; i < outputs; ++i) {
      const uint32_t at = index + (uint32_t)(i * v->k + j);
      k->max = rt_v_keep(k->out + at, k->high + at, acc + i * RT_V_BLOCK, n, k->shift, k->relu, k->max);
    }
  }
}
#endif

RT_UNUSED static void rt_plain_image(rt_sink *k, const rt_forward *o, const int8_t *x, const int8_t *w, int8_t *columns,
                                     int32_t image) {
  const rt_conv *v = o->conv;
  const int32_t size = rt_window_size(v), pixels = v->oh * v->ow;
  int32_t p, i, j;
  for (p = 0; p < pixels; p += 4) {
    const int32_t some = pixels - p < 4 ? pixels - p : 4;
    const uint32_t index = (uint32_t)((image * pixels + p) * v->k);
    for (i = 0; i < some; ++i) {
      const int32_t oy = (p + i) / v->ow, ox = (p + i) % v->ow;
      rt_gather_column(columns, i, size, v, x, oy * v->stride_h - v->pad_h, ox * v->stride_w - v->pad_w);
    }
#ifdef RT_RVV
    if (rt_is_late(k)) {
      rt_keep_outputs(k, index, v, w, columns, size, some);
      continue;
    }
#endif
    const int8_t *row = w;
    for (j = 0; j < v->k; ++j) {
      const int32_t bias = rt_bias(k, v, j);
      int32_t acc[4];
      row = rt_dot_columns(acc, row, columns, size);
      for (i = 0; i < some; ++i) acc[i] += bias;
      rt_put_some(k, index + (uint32_t)j, (uint32_t)v->k, acc, some);
    }
  }
}

#endif

#ifdef RT_LINEAR
/* An image of one position: four rows of weights at a time. */
RT_UNUSED static void rt_linear_image(rt_sink *k, const rt_forward *o, const int8_t *x, const int8_t *w, int32_t image) {
  const rt_conv *v = o->conv;
  uint32_t index = (uint32_t)(image * v->k);
  int32_t j = 0;
#ifndef __OPTIMIZE_SIZE__
  int32_t acc[4], i;
  for (; j + 4 <= v->k; j += 4) {
    rt_dot4(acc, x, w + j * v->c, v->c, v->c);
    for (i = 0; i < 4; ++i) acc[i] += rt_bias(k, v, j + i);
    rt_put_some(k, index, 1, acc, 4);
    index += 4;
  }
#endif
  for (; j < v->k; ++j) rt_put(k, index++, rt_dot1(x, w + j * v->c, v->c) + rt_bias(k, v, j));
}

#endif

#ifdef RT_GROUPED
/* Every output channel reads the input channels of its own group. */
RT_HOT static int32_t rt_grouped_sum(const rt_conv *v, const int8_t *x, const int8_t *w, int32_t iy, int32_t ix) {
  const int32_t channels = v->c / v->groups;
  const rt_span rows = rt_span_of(iy, v->kh, v->h), columns = rt_span_of(ix, v->kw, v->w);
  int32_t acc = 0, ky, kx;
  for (ky = rows.first; ky < rows.end; ++ky) {
    for (kx = columns.first; kx < columns.end; ++kx)
      acc += rt_dot1(w + (ky * v->kw + kx) * channels, x + ((iy + ky) * v->w + ix + kx) * v->c, channels);
  }
  return acc;
}

RT_UNUSED static void rt_grouped_image(rt_sink *k, const rt_forward *o, const int8_t *x, const int8_t *w, int32_t image) {
  const rt_conv *v = o->conv;
  const int32_t inputs = v->c / v->groups, outputs = v->k / v->groups, size = v->kh * v->kw * inputs;
  uint32_t index = (uint32_t)(image * v->oh * v->ow * v->k);
  int32_t oy, ox, j;
  for (oy = 0; oy < v->oh; ++oy) {
    for (ox = 0; ox < v->ow; ++ox) {
      const int32_t iy = oy * v->stride_h - v->pad_h, ix = ox * v->stride_w - v->pad_w;
      for (j = 0; j < v->k; ++j)
        rt_put(k, index++, rt_grouped_sum(v, x + j / outputs * inputs, w + j * size, iy, ix) + rt_bias(k, v, j));
    }
  }
}

#endif

static inline int32_t rt_is_linear(const rt_conv *v) { return v->h * v->w * v->kh * v->kw == 1 && v->pad_h + v->pad_w == 0; }

RT_UNUSED static void rt_forward_pass(const rt *r, const void *operation, rt_sink *k) {
  const rt_forward *o = operation;
  const rt_conv *v = o->conv;
  const int8_t *x = rt_at(r, o->x), *w = rt_weights(r, v);
  int32_t n;
#ifdef RT_DSP
  if (o->columns != RT_NONE) rt_columns_start(rt_at(r, o->columns), rt_window_size(v));
#endif
  for (n = 0; n < r->n; ++n, x += v->h * v->w * v->c) {
#ifdef RT_GROUPED
    if (v->groups > 1) {
      rt_grouped_image(k, o, x, w, n);
      continue;
    }
#endif
#ifdef RT_LINEAR
    if (rt_is_linear(v)) rt_linear_image(k, o, x, w, n);
#endif
#ifdef RT_POOLED
    if (v->pool_h > 0) rt_pooled_image(k, o, x, w, rt_at(r, o->columns), n);
#endif
#ifdef RT_PLAIN
    if (v->pool_h == 0 && !rt_is_linear(v)) rt_plain_image(k, o, x, w, rt_at(r, o->columns), n);
#endif
  }
}

#if RT_TRAINING
/* Up to four winners in a byte, of each the two bits at `low`. */
static inline uint8_t rt_four_bits(const uint8_t *winner, uint32_t low, uint32_t count) {
  uint32_t byte = 0, i;
  for (i = 0; i < count; ++i) byte |= ((uint32_t)winner[i] >> low & 3u) << 2 * i;
  return (uint8_t)byte;
}
#endif

RT_UNUSED static void rt_conv_forward(rt *r, const rt_forward *o) {
  const rt_conv *v = o->conv;
  const int32_t positions = v->pool_h > 0 ? v->pool_oh * v->pool_ow : v->oh * v->ow;
  const uint32_t count = (uint32_t)(r->n * positions * v->k);
  rt_sink k = rt_plain_sink(r, o->y);
  int32_t shift;
  k.high = o->high == RT_NONE ? NULL : rt_at(r, o->high);
#if RT_TRAINING
  k.winner = o->winner == RT_NONE ? NULL : rt_bytes(r, o->winner);
#endif
  k.relu = o->relu;
#ifdef RT_BIAS
  k.lift = v->bias_exponent - r->exponents[o->ex] - v->weight_exponent;
#endif
  shift = rt_requantise(r, &k, rt_forward_pass, o, &o->rounding, count, r->hints + o->hint);
#if RT_TRAINING
  if (k.winner) { /* of LATE, the one of three shifts that it became */
    const uint32_t low = k.kind == RT_LATE ? 2u * (uint32_t)(shift - k.guess + 1) : 0u;
    uint8_t *packed = rt_bytes(r, o->packed);
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) *packed++ = rt_four_bits(k.winner + i, low, 4);
    if (i < count) *packed = rt_four_bits(k.winner + i, low, count - i);
  }
#endif
  r->exponents[o->ey] = r->exponents[o->ex] + v->weight_exponent + shift;
}

#if RT_TRAINING

/* ---- deltas of a convolution's output ---- */

/* dy: the convolution's own, or with winners its pool's. Where a mask is given, deltas count where it is positive. */
typedef struct rt_deltas {
  uint32_t dy, winner, mask;
} rt_deltas;

typedef struct rt_reader {
  const int8_t *dy, *mask;
  const uint8_t *winner;
  int32_t positions, width; /* per image, and per row, of dy */
} rt_reader;

RT_UNUSED static rt_reader rt_reader_of(const rt *r, const rt_conv *v, const rt_deltas *from) {
  rt_reader d;
  const int32_t pooled = from->winner != RT_NONE;
  d.dy = rt_at(r, from->dy);
  d.mask = from->mask == RT_NONE ? NULL : rt_at(r, from->mask);
  d.winner = pooled ? rt_bytes(r, from->winner) : NULL;
  d.width = pooled ? v->pool_ow : v->ow;
  d.positions = pooled ? v->pool_oh * v->pool_ow : v->oh * v->ow;
  return d;
}

static inline int32_t rt_read_delta(const rt_reader *d, uint32_t i) {
  const int32_t delta = d->dy[i];
  return delta != 0 && d->mask && d->mask[i] <= 0 ? 0 : delta;
}

/* ---- the delta of the input ---- */

typedef struct rt_backward {
  const rt_conv *conv;
  rt_deltas from;
  uint32_t dx, high, mask, rows; /* rows: [kh][w][c] int32 */
  uint16_t ed, edx, hint;
  rt_rounding rounding;
} rt_backward;

/* Adds the rows of weights collected for one output position to the accumulators that its window covers. */
RT_UNUSED static void rt_scatter(rt_rows *rows, int32_t *ring, const rt_conv *v, int32_t oy, int32_t ox) {
  const int32_t iy = oy * v->stride_h - v->pad_h, ix = ox * v->stride_w - v->pad_w;
  const rt_span high = rt_span_of(iy, v->kh, v->h), wide = rt_span_of(ix, v->kw, v->w);
  const int32_t length = (wide.end - wide.first) * v->c;
  int32_t ky;
  for (ky = high.first; ky < high.end && length > 0; ++ky) {
    int32_t *sum = ring + (((iy + ky) % v->kh) * v->w + ix + wide.first) * v->c;
    const int32_t offset = (ky * v->kw + wide.first) * v->c;
    rt_add_rows(sum, rows, offset, length);
  }
  rows->count = 0;
}

/* One position of dy: collects per column of the pool's window, as its winners in row `cell_y` say. */
RT_UNUSED static void rt_scatter_position(const rt_reader *d, const rt_conv *v, const int8_t *w, int32_t *ring, uint32_t index,
                                          int32_t oy, int32_t ox, int32_t cell_y) {
  rt_rows rows[4];
  const int32_t size = rt_window_size(v), columns = d->winner ? v->pool_w : 1;
  int32_t i, j;
  for (i = 0; i < columns; ++i) rows[i].count = 0;
  for (j = 0; j < v->k; ++j) {
    const int32_t delta = rt_read_delta(d, index + (uint32_t)j);
    int32_t at = 0;
    if (delta == 0) continue;
    if (d->winner) {
      at = (int32_t)rt_get_bits(d->winner, index + (uint32_t)j, 2) - cell_y * v->pool_w;
      if (at < 0 || at >= v->pool_w) continue;
    }
    rows[at].row[rows[at].count] = w + j * size;
    rows[at].factor[rows[at].count++] = (int8_t)delta;
    if (rows[at].count == 4) rt_scatter(&rows[at], ring, v, oy, ox + at);
  }
  for (i = 0; i < columns; ++i) {
    if (rows[i].count > 0) rt_scatter(&rows[i], ring, v, oy, ox + i);
  }
}

RT_UNUSED static void rt_scatter_row(const rt_reader *d, const rt_conv *v, const int8_t *w, int32_t *ring, int32_t image,
                                     int32_t oy) {
  int32_t py = oy, cell_y = 0, px;
  if (d->winner) {
    py = oy / v->pool_stride_h;
    cell_y = oy - py * v->pool_stride_h;
    if (cell_y >= v->pool_h || py >= v->pool_oh) return;
  }
  for (px = 0; px < d->width; ++px) {
    const uint32_t index = (uint32_t)((image * d->positions + py * d->width + px) * v->k);
    rt_scatter_position(d, v, w, ring, index, oy, d->winner ? px * v->pool_stride_w : px, cell_y);
  }
}

/* Hands over the rows of the input that no further output reaches. */
RT_UNUSED static int32_t rt_flush_rows(rt_sink *k, const rt_conv *v, int32_t *ring, int32_t image, int32_t from, int32_t end) {
  const int32_t count = v->w * v->c, stop = end < v->h ? end : v->h;
  for (; from < stop; ++from) rt_put_row(k, (uint32_t)((image * v->h + from) * count), ring + (from % v->kh) * count, count);
  return from;
}

RT_UNUSED static void rt_backward_pass(const rt *r, const void *operation, rt_sink *k) {
  const rt_backward *o = operation;
  const rt_conv *v = o->conv;
  const rt_reader d = rt_reader_of(r, v, &o->from);
  const int8_t *w = rt_weights(r, v);
  int32_t *ring = rt_words(r, o->rows);
  int32_t n, oy;
  rt_zero_words(ring, v->kh * v->w * v->c);
  for (n = 0; n < r->n; ++n) {
    int32_t done = 0;
    for (oy = 0; oy < v->oh; ++oy) {
      done = rt_flush_rows(k, v, ring, n, done, oy * v->stride_h - v->pad_h);
      rt_scatter_row(&d, v, w, ring, n, oy);
    }
    (void)rt_flush_rows(k, v, ring, n, done, v->h);
  }
}

RT_UNUSED static void rt_conv_backward(rt *r, const rt_backward *o) {
  const rt_conv *v = o->conv;
  const uint32_t count = (uint32_t)(r->n * v->h * v->w * v->c);
  rt_sink k = rt_plain_sink(r, o->dx);
  k.high = o->high == RT_NONE ? NULL : rt_at(r, o->high);
  r->exponents[o->edx] = r->exponents[o->ed] + v->weight_exponent +
                         rt_requantise(r, &k, rt_backward_pass, o, &o->rounding, count, r->hints + o->hint);
  if (o->mask != RT_NONE) {
    const int8_t *mask = rt_at(r, o->mask), *const end = mask + count;
    for (; mask < end; ++mask, ++k.out) {
      if (*mask <= 0) *k.out = 0;
    }
  }
}

/* ---- the weights' gradient and update `niti` ---- */

typedef struct rt_gradient {
  const rt_conv *conv;
  rt_deltas from;
  uint32_t x, sums; /* sums: int32, a row for each of the first `kept` output channels, and one that the others share */
  int32_t kept;
} rt_gradient;

/* Windows of the input that meet the same taps. */
typedef struct rt_windows {
  rt_rows rows;
  rt_span high, wide;
} rt_windows;

RT_UNUSED static void rt_gradient_flush(int32_t *sum, rt_windows *list, const rt_conv *v) {
  const int32_t length = (list->wide.end - list->wide.first) * v->c;
  int32_t ky, offset = 0;
  for (ky = list->high.first; ky < list->high.end && length > 0; ++ky, offset += v->w * v->c) {
    rt_add_rows(sum + (ky * v->kw + list->wide.first) * v->c, &list->rows, offset, length);
  }
  list->rows.count = 0;
}

/* The window at (iy, ix) joins those within the image, or those that leave it on the same side. */
RT_UNUSED static void rt_gradient_window(int32_t *sum, rt_windows lists[3], const rt_conv *v, const int8_t *x, int32_t iy,
                                         int32_t ix, int32_t delta) {
  rt_windows *list = &lists[1];
  int32_t at = (iy * v->w + ix) * v->c;
  if (iy < 0 || ix < 0 || iy + v->kh > v->h || ix + v->kw > v->w) {
    const rt_span high = rt_span_of(iy, v->kh, v->h), wide = rt_span_of(ix, v->kw, v->w);
    list = &lists[ix < 0 ? 0 : 2];
    if (list->rows.count > 0 && (high.first != list->high.first || high.end != list->high.end || wide.first != list->wide.first ||
                                 wide.end != list->wide.end)) {
      rt_gradient_flush(sum, list, v);
    }
    if (high.end <= high.first || wide.end <= wide.first) return;
    list->high = high;
    list->wide = wide;
    at += (high.first * v->w + wide.first) * v->c;
  }
  list->rows.row[list->rows.count] = x + at;
  list->rows.factor[list->rows.count++] = (int8_t)delta;
  if (list->rows.count == 4) rt_gradient_flush(sum, list, v);
}

/* The sums of output channel j; 0: no delta is there, and they are not set. */
RT_UNUSED static int32_t rt_gradient_row(const rt *r, const rt_gradient *o, const rt_reader *d, int32_t *sum, int32_t j) {
  const rt_conv *v = o->conv;
  const int8_t *x = rt_at(r, o->x);
  uint32_t index = (uint32_t)j;
  int32_t n, py, px, i, any = 0;
  rt_windows lists[3];
  for (i = 0; i < 3; ++i) lists[i].rows.count = 0;
  lists[1].high = rt_span_of(0, v->kh, v->kh);
  lists[1].wide = rt_span_of(0, v->kw, v->kw);
  for (n = 0; n < r->n; ++n, x += v->h * v->w * v->c) {
    for (py = 0; py < d->positions / d->width; ++py) {
      for (px = 0; px < d->width; ++px, index += (uint32_t)v->k) {
        const int32_t delta = rt_read_delta(d, index);
        int32_t oy = py, ox = px;
        if (delta == 0) continue;
        if (!any) rt_zero_words(sum, rt_window_size(v));
        any = 1;
        if (d->winner) {
          const int32_t cell = (int32_t)rt_get_bits(d->winner, index, 2);
          oy = py * v->pool_stride_h + cell / v->pool_w;
          ox = px * v->pool_stride_w + cell % v->pool_w;
        }
        rt_gradient_window(sum, lists, v, x, oy * v->stride_h - v->pad_h, ox * v->stride_w - v->pad_w, delta);
      }
    }
  }
  for (i = 0; i < 3; ++i) {
    if (lists[i].rows.count > 0) rt_gradient_flush(sum, &lists[i], v);
  }
  return any;
}

RT_UNUSED static uint32_t rt_largest(const int32_t *p, int32_t count, uint32_t max) {
#ifdef RT_MVE
  __asm__ volatile(
      "dlstp.32 lr, %[n]\n"
      "1:\n\t"
      "vldrw.32 q0, [%[p]], #16\n\t"
      "vmaxav.s32 %[max], q0\n\t"
      "letp lr, 1b"
      : [p] "+r"(p), [max] "+r"(max)
      : [n] "r"(count)
      : "lr", "q0", "memory");
#elif defined(RT_RVV)
  if (count > 0) max = rt_v_largest(p, count, max);
#else
  int32_t i;
  for (i = 0; i < count; ++i) {
    const uint32_t m = rt_magnitude(p[i]);
    if (m > max) max = m;
  }
#endif
  return max;
}

/* Less the gradient / 2^shift, pseudo-stochastic. */
RT_HOT static void rt_update_rounded(int8_t *w, const int32_t *g, int32_t count, int32_t shift) {
  const int32_t half = shift / 2;
  const uint32_t all = (1u << shift) - 1u, below = (1u << half) - 1u;
  for (; count > 0; --count, ++w) {
    const int32_t v = *g++;
    if (v != 0) {
      const uint32_t sign = v < 0 ? UINT32_MAX : 0u, m = ((uint32_t)v ^ sign) - sign;
      const uint32_t up = (((m & below) << (shift & 1)) - ((m & all) >> half)) >> 31; /* the lower half is less */
      const int32_t q = (int32_t)((m >> shift) + up), most = q > 127 ? 127 : q < 0 ? 0 : q;
      *w = rt_clip(*w - (int32_t)(((uint32_t)most ^ sign) - sign));
    }
  }
}

RT_UNUSED static void rt_update_row(int8_t *w, const int32_t *g, int32_t count, int32_t shift) {
  int32_t i = 0;
#ifdef RT_MVE
  if (shift >= 1) {
    const int32_t half = shift / 2;
    for (; i < count; i += 4) {
      const mve_pred16_t some = vctp32q((uint32_t)(count - i));
      const int32x4_t v = vldrwq_z_s32(g + i, some), m = vabsq_s32(v), rest = vandq_s32(m, vdupq_n_s32((1 << shift) - 1));
      const int32x4_t low = vshlq_r_s32(vandq_s32(rest, vdupq_n_s32((1 << half) - 1)), shift & 1);
      int32x4_t q = vshlq_r_s32(m, -shift);
      q = vaddq_m_n_s32(q, q, 1, vcmpgtq_s32(vshlq_r_s32(rest, -half), low));
      q = vminq_s32(q, vdupq_n_s32(127));
      q = vnegq_m_s32(q, q, vcmpltq_n_s32(v, 0));
      q = vsubq_s32(vldrbq_z_s32(w + i, some), q);
      vstrbq_p_s32(w + i, vmaxq_s32(vminq_s32(q, vdupq_n_s32(127)), vdupq_n_s32(-127)), some);
    }
    return;
  }
#elif defined(RT_RVV)
  if (shift >= 1 && count > 0) rt_v_update(w, g, count, shift);
  if (shift >= 1) return;
#endif
  if (shift < 1) {
    for (; i < count; ++i) w[i] = rt_clip(w[i] - g[i]);
    return;
  }
  rt_update_rounded(w, g, count, shift);
}

/* The largest and the least input, 0 among them. */
typedef struct rt_range {
  int32_t high, low;
} rt_range;

RT_UNUSED static rt_range rt_range_of(const int8_t *x, int32_t count) {
  rt_range s = {0, 0};
  for (; count > 0; --count, ++x) {
    s.high = *x > s.high ? *x : s.high;
    s.low = *x < s.low ? *x : s.low;
  }
  return s;
}

/* No sum of output channel j is larger than this: its positive deltas meet the largest inputs, and its negative ones the least.
 */
RT_UNUSED static uint32_t rt_gradient_bound(const rt *r, const rt_reader *d, const rt_range *x, int32_t j, int32_t k) {
  const int32_t count = r->n * d->positions * k;
  int32_t up = 0, down = 0, most, least;
  for (; j < count; j += k) {
    const int32_t delta = d->dy[j];
    up += delta > 0 ? delta : 0;
    down += delta;
  }
  down = up - down; /* the magnitude of the negative ones */
  most = up * x->high - down * x->low;
  least = down * x->high - up * x->low;
  return (uint32_t)(most > least ? most : least);
}

/* Update `niti`: the largest gradient decides the shift, so the sums are kept, or made twice where there is no memory for them.
 * The first time matters only for channels that could have a larger one than those before. */
RT_UNUSED static void rt_conv_update(rt *r, const rt_gradient *o) {
  const rt_conv *v = o->conv;
  const rt_reader d = rt_reader_of(r, v, &o->from);
  const int32_t size = rt_window_size(v);
  int32_t *sums = rt_words(r, o->sums), *row = sums;
  int8_t *w = r->weights + v->weight;
  const rt_range x = rt_range_of(rt_at(r, o->x), o->kept < v->k ? r->n * v->h * v->w * v->c : 0);
  uint32_t max = 0;
  int32_t j, shift;
  for (j = 0; j < v->k; ++j) {
    if (j >= o->kept && rt_bits(rt_gradient_bound(r, &d, &x, j, v->k)) <= rt_bits(max)) continue;
    if (rt_gradient_row(r, o, &d, row, j)) {
      max = rt_largest(row, size, max);
    } else {
      rt_zero_words(row, size);
    }
    if (j < o->kept) row += size;
  }
  if (rt_bits(max) == 0) return;
  shift = rt_bits(max) - r->mu;
  for (j = 0, row = sums; j < v->k; ++j) {
    if (j < o->kept || rt_gradient_row(r, o, &d, row, j)) rt_update_row(w + j * size, row, size, shift);
    if (j < o->kept) row += size;
  }
}

#endif
#endif

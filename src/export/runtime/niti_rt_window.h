/* What the kernels of convolutions and linear layers share: their geometry and weights, windows of the input as rows, and the
 * bias of their sums. */
#ifndef NITI_RT_WINDOW_H
#define NITI_RT_WINDOW_H

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

#endif

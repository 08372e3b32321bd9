/* Convolutions and linear layers, forward, with the ReLU that follows; with a max-pool, as niti_rt_pooled.h has them. */
#ifndef NITI_RT_CONV_H
#define NITI_RT_CONV_H

#include "niti_rt_pooled.h"

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

#endif

/* The gradient of the weights of a convolution or linear layer, and update `niti`, from the non-zero deltas alone. */
#ifndef NITI_RT_UPDATE_H
#define NITI_RT_UPDATE_H

#include "niti_rt_backward.h"

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

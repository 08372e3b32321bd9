/* Pools on their own, ReLU, residual additions and dropout. */
#ifndef NITI_RT_LAYERS_H
#define NITI_RT_LAYERS_H

#include "niti_rt.h"

/* x [h][w][c] to y [oh][ow][c]. */
typedef struct rt_pool {
  int32_t h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w;
  int32_t factor, exponent; /* averages: the sum times factor, at this exponent more */
  uint32_t width;           /* maxima: bits per winner */
} rt_pool;

/* An operation on a pool: from and to; packed: the winners, or RT_NONE; mask: deltas count where it is positive, or RT_NONE. */
typedef struct rt_pooling {
  const rt_pool *pool;
  uint32_t from, to, packed, mask;
  uint16_t ef, et;
  rt_rounding rounding;
} rt_pooling;

#ifdef RT_MAXPOOL
RT_UNUSED static void rt_maxpool_forward(rt *r, const rt_pooling *o) {
  const rt_pool *p = o->pool;
  const int8_t *x = rt_at(r, o->from);
  int8_t *y = rt_at(r, o->to);
  uint32_t index = 0;
  int32_t n, oy, ox, c, ky, kx;
  for (n = 0; n < r->n; ++n, x += p->h * p->w * p->c) {
    for (oy = 0; oy < p->oh; ++oy) {
      for (ox = 0; ox < p->ow; ++ox) {
        for (c = 0; c < p->c; ++c, ++index) {
          int32_t best = -128;
          uint32_t winner = 0;
          for (ky = 0; ky < p->kh; ++ky) {
            for (kx = 0; kx < p->kw; ++kx) {
              const int32_t iy = oy * p->stride_h - p->pad_h + ky, ix = ox * p->stride_w - p->pad_w + kx;
              int32_t m;
              if (iy < 0 || ix < 0 || iy >= p->h || ix >= p->w) continue;
              m = x[(iy * p->w + ix) * p->c + c];
              if (m <= best) continue;
              best = m;
              winner = (uint32_t)(ky * p->kw + kx);
            }
          }
          y[index] = (int8_t)best;
          if (o->packed != RT_NONE) rt_append_bits(rt_bytes(r, o->packed), index, p->width, winner);
        }
      }
    }
  }
  r->exponents[o->et] = r->exponents[o->ef];
}
#endif

#ifdef RT_AVGPOOL
RT_UNUSED static void rt_avgpool_pass(const rt *r, const void *operation, rt_sink *k) {
  const rt_pooling *o = operation;
  const rt_pool *p = o->pool;
  const int8_t *x = rt_at(r, o->from);
  uint32_t index = 0;
  int32_t n, oy, ox, c, ky, kx;
  for (n = 0; n < r->n; ++n, x += p->h * p->w * p->c) {
    for (oy = 0; oy < p->oh; ++oy) {
      for (ox = 0; ox < p->ow; ++ox) {
        for (c = 0; c < p->c; ++c) {
          const int8_t *at = x + ((oy * p->stride_h) * p->w + ox * p->stride_w) * p->c + c;
          int32_t sum = 0;
          for (ky = 0; ky < p->kh; ++ky) {
            for (kx = 0; kx < p->kw; ++kx) sum += at[(ky * p->w + kx) * p->c];
          }
          rt_put(k, index++, sum * p->factor);
        }
      }
    }
  }
}

RT_UNUSED static void rt_avgpool_forward(rt *r, const rt_pooling *o) {
  const rt_pool *p = o->pool;
  rt_sink k = rt_plain_sink(r, o->to);
  r->exponents[o->et] = r->exponents[o->ef] + p->exponent +
                        rt_requantise(r, &k, rt_avgpool_pass, o, &o->rounding, (uint32_t)(r->n * p->oh * p->ow * p->c), NULL);
}
#endif

#if RT_TRAINING && (defined(RT_MAXPOOL) || defined(RT_AVGPOOL))
/* The windows first .. last - 1 along one side that cover a position, counted from the padding's start. */
static inline int32_t rt_first_window(int32_t padded, int32_t kernel, int32_t stride) {
  return padded < kernel ? 0 : (padded - kernel) / stride + 1;
}

static inline int32_t rt_end_window(int32_t padded, int32_t stride, int32_t windows) {
  return padded / stride + 1 < windows ? padded / stride + 1 : windows;
}

/* The delta that one input position receives from the windows that cover it. */
RT_UNUSED static int32_t rt_pool_delta(const rt *r, const rt_pooling *o, int32_t n, int32_t iy, int32_t ix, int32_t c) {
  const rt_pool *p = o->pool;
  const int32_t y = iy + p->pad_h, x = ix + p->pad_w;
  const int32_t end_y = rt_end_window(y, p->stride_h, p->oh), end_x = rt_end_window(x, p->stride_w, p->ow);
  const int8_t *dy = rt_at(r, o->from);
  int32_t sum = 0, oy, ox;
  for (oy = rt_first_window(y, p->kh, p->stride_h); oy < end_y; ++oy) {
    for (ox = rt_first_window(x, p->kw, p->stride_w); ox < end_x; ++ox) {
      const uint32_t index = (uint32_t)(((n * p->oh + oy) * p->ow + ox) * p->c + c);
      if (dy[index] == 0 || (o->mask != RT_NONE && *rt_at(r, o->mask + index) <= 0)) continue;
      if (o->packed != RT_NONE) {
        const int32_t cell = (y - oy * p->stride_h) * p->kw + x - ox * p->stride_w;
        if ((int32_t)rt_get_bits(rt_bytes(r, o->packed), index, p->width) != cell) continue;
      }
      sum += dy[index];
    }
  }
  return sum * p->factor;
}

RT_UNUSED static void rt_pool_backward_pass(const rt *r, const void *operation, rt_sink *k) {
  const rt_pooling *o = operation;
  const rt_pool *p = o->pool;
  uint32_t index = 0;
  int32_t n, iy, ix, c;
  for (n = 0; n < r->n; ++n) {
    for (iy = 0; iy < p->h; ++iy) {
      for (ix = 0; ix < p->w; ++ix) {
        for (c = 0; c < p->c; ++c) rt_put(k, index++, rt_pool_delta(r, o, n, iy, ix, c));
      }
    }
  }
}

/* Of either kind: maxima have winners, and factor 1 and exponent 0. */
RT_UNUSED static void rt_pool_backward(rt *r, const rt_pooling *o) {
  const rt_pool *p = o->pool;
  rt_sink k = rt_plain_sink(r, o->to);
  r->exponents[o->et] = r->exponents[o->ef] + p->exponent +
                        rt_requantise(r, &k, rt_pool_backward_pass, o, &o->rounding, (uint32_t)(r->n * p->h * p->w * p->c), NULL);
}
#endif

/* An operation on values of equal shape: y of a and, for additions, b; `count` values per image. */
typedef struct rt_pointwise {
  uint32_t a, b, y;
  uint16_t ea, eb, ey, shared;
  int32_t count;
  rt_rounding rounding;
} rt_pointwise;

#ifdef RT_RELU
RT_UNUSED static void rt_relu_forward(rt *r, const rt_pointwise *o) {
  const int8_t *a = rt_at(r, o->a);
  int8_t *y = rt_at(r, o->y);
  int32_t i;
  for (i = 0; i < r->n * o->count; ++i) y[i] = a[i] > 0 ? a[i] : (int8_t)0;
  r->exponents[o->ey] = r->exponents[o->ea];
}
#endif

#if RT_TRAINING && defined(RT_RELU_BACKWARD)
/* a: the delta; b: the ReLU's output. */
RT_UNUSED static void rt_relu_backward(rt *r, const rt_pointwise *o) {
  const int8_t *a = rt_at(r, o->a), *b = rt_at(r, o->b);
  int8_t *y = rt_at(r, o->y);
  int32_t i;
  for (i = 0; i < r->n * o->count; ++i) y[i] = b[i] > 0 ? a[i] : (int8_t)0;
  r->exponents[o->ey] = r->exponents[o->ea];
}
#endif

#ifdef RT_ADD
/* How two exponents meet: (large << left) + nearest(small, right) at `exponent`. */
typedef struct rt_alignment {
  int32_t a_larger, left, right, exponent;
} rt_alignment;

RT_UNUSED static rt_alignment rt_align(int32_t ea, int32_t eb) {
  rt_alignment m;
  const int32_t large = ea >= eb ? ea : eb, small = ea >= eb ? eb : ea, d = large - small;
  m.a_larger = ea >= eb;
  m.left = d > 15 ? 15 : d;
  m.right = d > 15 ? (d - 15 > 8 ? 8 : d - 15) : 0;
  m.exponent = d > 15 ? large - 15 : small;
  return m;
}

RT_UNUSED static void rt_add_pass(const rt *r, const void *operation, rt_sink *k) {
  const rt_pointwise *o = operation;
  const rt_alignment m = rt_align(r->exponents[o->ea], r->exponents[o->eb]);
  const int8_t *large = rt_at(r, m.a_larger ? o->a : o->b), *small = rt_at(r, m.a_larger ? o->b : o->a);
  int32_t i;
  for (i = 0; i < r->n * o->count; ++i) {
    const int32_t less = rt_round(small[i], m.right, RT_NEAREST, 0);
    rt_put(k, (uint32_t)i, large[i] * (1 << m.left) + less);
  }
}

RT_UNUSED static void rt_add(rt *r, const rt_pointwise *o) {
  const rt_alignment m = rt_align(r->exponents[o->ea], r->exponents[o->eb]);
  rt_sink k = rt_plain_sink(r, o->y);
  r->exponents[o->ey] = m.exponent + rt_requantise(r, &k, rt_add_pass, o, &o->rounding, (uint32_t)(r->n * o->count), NULL);
}
#endif

#if RT_TRAINING && defined(RT_DROPOUT)
/* Forward and backward alike; rounding.layer names the mask's stream. */
RT_UNUSED static void rt_dropout(rt *r, const rt_pointwise *o) {
  const rt_stream stream = rt_stream_of(r, &o->rounding);
  const int8_t *a = rt_at(r, o->a);
  int8_t *y = rt_at(r, o->y);
  const int32_t drawn = o->shared ? o->count : r->n * o->count;
  int32_t i, j;
  for (i = 0; i < drawn; ++i) {
    const int32_t keep = (int32_t)(rt_word(&stream, (uint32_t)i) >> 31);
    for (j = i; j < r->n * o->count; j += drawn) y[j] = (int8_t)(keep ? a[j] : 0);
  }
  r->exponents[o->ey] = r->exponents[o->ea] + 1;
}
#endif

#endif

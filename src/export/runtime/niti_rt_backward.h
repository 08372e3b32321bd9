/* Convolutions and linear layers, backward: the delta of the input.
 *
 * Backward visits the non-zero deltas alone. After a pool that is one cell of each window at most, so the delta of the
 * convolution's whole output is never written: the pool's own delta and the winning cells stand for it. */
#ifndef NITI_RT_BACKWARD_H
#define NITI_RT_BACKWARD_H

#include "niti_rt_window.h"

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

#endif

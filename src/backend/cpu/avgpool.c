/* Average pool, forward and backward. */
#include <string.h>

#include "backend/cpu/pool.h"
#include "base/pool.h"

typedef struct Avgpool {
  NitiPool p;
  const int8_t *in;
  NitiReciprocal reciprocal; /* of the cells */
} Avgpool;

static Avgpool prepare(const NitiPool *p, const NitiTensor *in) {
  return (Avgpool){.p = *p, .in = in->data, .reciprocal = niti_reciprocal(p->kh * p->kw)};
}

static void add_cell(int32_t *restrict acc, const int8_t *restrict x, size_t count) {
  for (size_t c = 0; c < count; ++c) acc[c] += x[c];
}

static void scale(int32_t *acc, size_t count, int32_t factor) {
  if (factor == 1) return;
  for (size_t c = 0; c < count; ++c) acc[c] *= factor;
}

/* Cells of the padding are 0. */
static void gather_window(int32_t *acc, const void *context, int32_t n, int32_t oh, int32_t ow, int32_t c, int32_t count) {
  const Avgpool *a = context;
  const NitiPool *p = &a->p;
  const int32_t top = oh * p->stride_h - p->pad_h, left = ow * p->stride_w - p->pad_w;
  const size_t C = (size_t)p->c, K = (size_t)count;
  memset(acc, 0, K * sizeof *acc);
  for (int32_t h = top > 0 ? top : 0; h < top + p->kh && h < p->h; ++h) {
    const int8_t *row = a->in + ((size_t)n * (size_t)p->h + (size_t)h) * (size_t)p->w * C + (size_t)c;
    for (int32_t w = left > 0 ? left : 0; w < left + p->kw && w < p->w; ++w) add_cell(acc, row + (size_t)w * C, K);
  }
  scale(acc, K, a->reciprocal.factor);
}

static void gather_deltas(int32_t *acc, const void *context, int32_t n, int32_t h, int32_t w, int32_t c, int32_t count) {
  const Avgpool *a = context;
  const NitiPool *p = &a->p;
  const NitiWindows in_h = niti_windows(h + p->pad_h, p->kh, p->stride_h, p->oh);
  const NitiWindows in_w = niti_windows(w + p->pad_w, p->kw, p->stride_w, p->ow);
  const size_t C = (size_t)p->c, K = (size_t)count;
  memset(acc, 0, K * sizeof *acc);
  for (int32_t oh = in_h.first; oh <= in_h.last; ++oh) {
    const size_t row = ((size_t)n * (size_t)p->oh + (size_t)oh) * (size_t)p->ow;
    for (int32_t ow = in_w.first; ow <= in_w.last; ++ow) add_cell(acc, a->in + (row + (size_t)ow) * C + (size_t)c, K);
  }
  scale(acc, K, a->reciprocal.factor);
}

void niti_cpu_avgpool_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiPool *p,
                              const NitiRequantise *rq) {
  const Avgpool a = prepare(p, x);
  const NitiShape shape = {p->n, p->oh, p->ow, p->c};
  const int shift = niti_pool_requantise(niti_cpu(backend), y->data, shape, rq, gather_window, &a);
  *y->exponent = *x->exponent + a.reciprocal.exponent + shift;
}

void niti_cpu_avgpool_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiPool *p,
                               const NitiRequantise *rq) {
  const Avgpool a = prepare(p, dy);
  const NitiShape shape = {p->n, p->h, p->w, p->c};
  const int shift = niti_pool_requantise(niti_cpu(backend), dx->data, shape, rq, gather_deltas, &a);
  *dx->exponent = *dy->exponent + a.reciprocal.exponent + shift;
}

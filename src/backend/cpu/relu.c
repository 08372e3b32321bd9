/* ReLU forward and backward. Each has one loop for an output in place and one for a separate output, so that the compiler knows
 * whether they alias. */
#include "base/relu.h"

#include "backend/cpu/chunk.h"

typedef struct Relu {
  int8_t *out;
  const int8_t *in, *mask; /* mask: the layer's output, for backward */
  size_t count;
  int32_t limit; /* niti_relu_limit's */
} Relu;

static void relu_in_place(int8_t *x, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] = x[i] > 0 ? x[i] : 0;
}

static void relu_apart(int8_t *restrict y, const int8_t *restrict x, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] = x[i] > 0 ? x[i] : 0;
}

static void mask_in_place(int8_t *restrict x, const int8_t *restrict mask, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] = (int8_t)(x[i] & -(mask[i] > 0));
}

static void mask_apart(int8_t *restrict y, const int8_t *restrict x, const int8_t *restrict mask, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] = (int8_t)(x[i] & -(mask[i] > 0));
}

static void limit_to(int8_t *x, size_t count, int8_t limit) {
  for (size_t i = 0; i < count; ++i) x[i] = x[i] < limit ? x[i] : limit;
}

static void mask_limited(int8_t *restrict x, const int8_t *restrict mask, size_t count, int8_t limit) {
  for (size_t i = 0; i < count; ++i) x[i] = (int8_t)(x[i] & -(mask[i] < limit));
}

static void forward_tile(void *context, size_t thread, size_t item) {
  const Relu *r = context;
  const size_t first = item * NITI_CHUNK, count = niti_chunk_count(r->count, NITI_CHUNK, item);
  (void)thread;
  if (r->out == r->in) {
    relu_in_place(r->out + first, count);
  } else {
    relu_apart(r->out + first, r->in + first, count);
  }
  if (r->limit != NITI_RELU_UNLIMITED) limit_to(r->out + first, count, (int8_t)r->limit);
}

static void backward_tile(void *context, size_t thread, size_t item) {
  const Relu *r = context;
  const size_t first = item * NITI_CHUNK, count = niti_chunk_count(r->count, NITI_CHUNK, item);
  (void)thread;
  if (r->out == r->in) {
    mask_in_place(r->out + first, r->mask + first, count);
  } else {
    mask_apart(r->out + first, r->in + first, r->mask + first, count);
  }
  if (r->limit != NITI_RELU_UNLIMITED) mask_limited(r->out + first, r->mask + first, count, (int8_t)r->limit);
}

static void run(NitiBackend *backend, NitiTask task, NitiTensor *out, const NitiTensor *in, const int8_t *mask, int32_t limit) {
  Relu r = {.out = out->data, .in = in->data, .mask = mask, .count = niti_shape_count(in->shape), .limit = limit};
  niti_threads_run(niti_cpu(backend)->threads, task, &r, niti_divide_up(r.count, NITI_CHUNK));
  *out->exponent = *in->exponent;
}

void niti_cpu_relu_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, int32_t limit) {
  run(backend, forward_tile, y, x, NULL, niti_relu_limit(limit, *x->exponent));
}

void niti_cpu_relu_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *y, int32_t limit) {
  run(backend, backward_tile, dx, dy, y->data, limit == 0 ? NITI_RELU_UNLIMITED : niti_relu_limit(limit, *y->exponent));
}

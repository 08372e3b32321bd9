/* A device with layouts, packed weights and workspaces in the arena: the CPU's reference kernels, which read gradients' operands,
 * masks and weights out of them. Include cmocka before it. */
#ifndef NITI_TESTS_ARENA_DEVICE_H
#define NITI_TESTS_ARENA_DEVICE_H

#include "backend/kernels.h"
#include "programs.h"

static const NitiKernels *layout_kernels; /* the real ones */

static inline size_t layout_bytes(const NitiBackend *backend, NitiShape shape, int layout) {
  (void)backend;
  return niti_shape_count(shape) + (layout ? 0 : 300);
}

static inline int layout_mask_uses(const NitiBackend *backend, const NitiOperation *o, NitiShape mask, const NitiConvCall *call) {
  static const int uses[] = {NITI_USE_MASK, NITI_USE_MASK, NITI_USE_OTHER, NITI_USE_MASK | NITI_USE_OTHER};
  (void)backend, (void)mask;
  assert_true(o->opcode == NITI_OP_ADD || call->direction == NITI_BACKWARD);
  return uses[o->layer % 4];
}

/* A layout has the bits of its elements flipped; whatever a tensor's other images hold stays behind. */
static inline void layout_complete(NitiBackend *backend, const NitiTensor *t) {
  const size_t count = niti_shape_count(t->shape);
  (void)backend;
  for (int i = 0; i < NITI_LAYOUTS; ++i) {
    for (size_t k = 0; t->layouts[i] && k < count; ++k) t->layouts[i][k] = (int8_t)~t->data[k];
  }
}

/* The tensor with its elements out of a layout. The caller frees its data. */
static inline NitiTensor out_of_layout(const NitiTensor *t, int layout) {
  const size_t count = niti_shape_count(t->shape);
  NitiTensor own = *t;
  assert_true(t->placed);
  own.data = malloc(count);
  assert_non_null(own.data);
  for (size_t k = 0; k < count; ++k) own.data[k] = (int8_t)~t->layouts[layout][k];
  return own;
}

static inline void layout_download(NitiBackend *backend, int8_t *host, const NitiTensor *t, int32_t n) {
  NitiTensor own = out_of_layout(t, 0);
  (void)backend;
  memcpy(host, own.data, (size_t)n * niti_shape_image(t->shape));
  free(own.data);
}

/* Not what the reference kernels need, which have reserved memory for that. */
static inline size_t scratch_bytes(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiConv *s = &call->shape;
  (void)backend;
  return s->k % 3 == 0 ? 0 : (size_t)s->n * (size_t)s->k * 40 + (call->direction == NITI_GRADIENT ? 5000 : 0);
}

/* Overwrites the call's workspace, before the operation and so after its operands have been written. */
static inline void use_scratch(NitiBackend *backend, const NitiConvCall *call) {
  const size_t bytes = scratch_bytes(backend, call);
  must(layout_kernels->reserve(backend, layout_kernels->conv_workspace(backend, call)));
  if ((bytes > 0) != (call->workspace != NULL)) fail_msg("a workspace of %zu bytes is at %p", bytes, (void *)call->workspace);
  if (bytes > 0) memset(call->workspace, 0x5a, bytes);
}

static inline void layout_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                                   const NitiConvCall *call) {
  use_scratch(backend, call);
  if (niti_conv_grouped(&call->shape)) {
    layout_kernels->conv_gradient(backend, gradient, dy, x, call);
    return;
  }
  const NitiTensor own_dy = out_of_layout(dy, 0), own_x = out_of_layout(x, 0);
  layout_kernels->conv_gradient(backend, gradient, &own_dy, &own_x, call);
  free(own_dy.data);
  free(own_x.data);
}

static inline NitiTensor mask_of(const NitiTensor *mask) {
  return mask && mask->layouts[1] ? out_of_layout(mask, 1) : (NitiTensor){0};
}

static inline size_t count_of_weights(const NitiConv *s) {
  return (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)niti_conv_group_inputs(s);
}

static size_t packed_more; /* bytes behind those of backward */

/* Some convolutions pack none, some none for a smaller batch, and some want more for that than for the whole one. */
static inline size_t packed_bytes(const NitiBackend *backend, const NitiConvCall *call) {
  const NitiConv *s = &call->shape;
  (void)backend;
  assert_true(call->direction != NITI_GRADIENT);
  if (s->k % 4 == 3 || (s->k % 4 == 0 && s->n % 2)) return 0;
  return count_of_weights(s) + (s->k % 4 == 1 && s->n % 2 ? 300 : 0) + (call->direction == NITI_BACKWARD ? packed_more : 0);
}

static int packed_calls, unpacked_calls, pack_calls;

static inline void pack_weights(NitiBackend *backend, const NitiPacking *packings, int count) {
  (void)backend;
  assert_true(count > 0);
  ++pack_calls;
  for (int i = count - 1; i >= 0; --i) { /* what is too long ends in what was there before */
    const NitiConvCall *call = packings[i].call;
    const size_t weights = count_of_weights(&call->shape);
    assert_true(call->direction != NITI_GRADIENT && niti_shape_count(packings[i].w->shape) == weights);
    assert_true(packed_bytes(backend, call) >= weights);
    for (size_t k = 0; k < weights; ++k) call->packed[k] = (int8_t)~packings[i].w->data[k];
    memset(call->packed + weights, 1, packed_bytes(backend, call) - weights);
  }
}

/* The weights as they were packed, or as they are. The caller frees the data where it is not w's. */
static inline NitiTensor packed_weights(const NitiTensor *w, const NitiConvCall *call) {
  const size_t count = niti_shape_count(w->shape);
  NitiTensor own = *w;
  packed_calls += call->packed != NULL;
  unpacked_calls += call->packed == NULL;
  if (!call->packed) return own;
  own.data = malloc(count);
  assert_non_null(own.data);
  for (size_t k = 0; k < count; ++k) own.data[k] = (int8_t)~call->packed[k];
  return own;
}

static inline void packed_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w,
                                  const NitiTensor *bias, const NitiConvCall *call, const NitiRequantise *rq) {
  use_scratch(backend, call);
  const NitiTensor weights = packed_weights(w, call);
  layout_kernels->conv_forward(backend, y, x, &weights, bias, call, rq);
  if (weights.data != w->data) free(weights.data);
}

static inline void layout_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w,
                                   const NitiTensor *mask, const NitiConvCall *call, const NitiRequantise *rq) {
  use_scratch(backend, call);
  const NitiTensor own = mask_of(mask), weights = packed_weights(w, call);
  layout_kernels->conv_backward(backend, dx, dy, &weights, own.data ? &own : mask, call, rq);
  free(own.data);
  if (weights.data != w->data) free(weights.data);
}

static inline void layout_add(NitiBackend *backend, NitiTensor *y, const NitiTensor *a, const NitiTensor *b,
                              const NitiTensor *mask, bool relu, const NitiRequantise *rq) {
  const NitiTensor own = mask_of(mask);
  layout_kernels->add(backend, y, a, b, own.data ? &own : mask, relu, rq);
  free(own.data);
}

static inline NitiKernels with_layouts(NitiBackend *backend) {
  layout_kernels = backend->kernels;
  NitiKernels kernels = *layout_kernels;
  kernels.layout_bytes = layout_bytes;
  kernels.mask_uses = layout_mask_uses;
  kernels.complete = layout_complete;
  kernels.download_elements = layout_download;
  kernels.conv_gradient = layout_gradient;
  kernels.takes_workspace = true;
  kernels.conv_workspace = scratch_bytes;
  kernels.conv_packed_bytes = packed_bytes;
  kernels.conv_pack = pack_weights;
  kernels.conv_forward = packed_forward;
  kernels.conv_backward = layout_backward;
  kernels.add = layout_add;
  return kernels;
}

#endif

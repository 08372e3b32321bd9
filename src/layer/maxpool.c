/* Max-pool: the first maximum of a window wins and gets its error. */
#include "layer/shape.h"

enum { WINDOW_MAX = 255 }; /* the winner's position is kept in a byte */

static const NitiLayerField fields[] = {
    {"kernel", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, kernel), true, 0, 1, WINDOW_MAX, NULL},
    {"stride", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, stride), false, NITI_FIELD_SAME_AS_KERNEL, 1, 1024, NULL},
    {"padding", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, padding), false, 0, 0, WINDOW_MAX, NULL},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  if (spec->kernel[0] * spec->kernel[1] > WINDOW_MAX) {
    return niti_fail(NITI_ERROR_MODEL, "a window of %dx%d has more than %d cells", spec->kernel[0], spec->kernel[1], WINDOW_MAX);
  }
  if (spec->padding[0] >= spec->kernel[0] || spec->padding[1] >= spec->kernel[1]) {
    return niti_fail(NITI_ERROR_MODEL, "padding %dx%d leaves windows without a cell (expected less than the kernel, %dx%d)",
                     spec->padding[0], spec->padding[1], spec->kernel[0], spec->kernel[1]);
  }
  out->n = in->n;
  out->c = in->c;
  return niti_window_shape(spec, *in, out);
}

static NitiPool pool_of(const NitiNode *node, int32_t n) {
  const NitiLayerSpec *s = &node->spec;
  return (NitiPool){.n = n,
                    .h = node->in[0].h,
                    .w = node->in[0].w,
                    .c = node->in[0].c,
                    .oh = node->out.h,
                    .ow = node->out.w,
                    .kh = s->kernel[0],
                    .kw = s->kernel[1],
                    .stride_h = s->stride[0],
                    .stride_w = s->stride[1],
                    .pad_h = s->padding[0],
                    .pad_w = s->padding[1]};
}

static size_t extra_bytes(const NitiNode *node) { return niti_shape_count(node->out); }

static NitiGate gate(const NitiNode *node) {
  const NitiPool pool = pool_of(node, 1);
  return niti_pool_apart(&pool) ? NITI_GATE_OUTPUT : NITI_GATE_NONE;
}

static void forward(NitiNode *node, NitiBackend *backend) {
  const NitiPool pool = pool_of(node, node->y.shape.n);
  backend->ops->maxpool_forward(backend, &node->y, node->extra, &node->x[0], &pool);
}

static void backward(NitiNode *node, NitiBackend *backend) {
  const NitiPool pool = pool_of(node, node->y.shape.n);
  const NitiTensor *mask = node->gate == NITI_GATE_OUTPUT ? &node->y : NULL;
  if (node->dx[0].data)
    backend->ops->maxpool_backward(backend, &node->dx[0], &node->dy, node->extra, mask, &pool, &node->backward_rq);
}

const NitiLayerType niti_layer_maxpool = {
    .name = "maxpool",
    .fields = fields,
    .inputs = 1,
    .keeps_positive = true, /* cells of the padding never win */
    .shape = shape,
    .extra_bytes = extra_bytes,
    .gate = gate,
    .forward = forward,
    .backward = backward,
};

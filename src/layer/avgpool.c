/* Average pool over a window without padding, and over the whole image (`global-avgpool`). */
#include "base/bounds.h"
#include "layer/shape.h"

enum { CELLS_MAX = 1 << NITI_RECIPROCAL_BITS };

static const NitiLayerField fields[] = {
    {"kernel", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, kernel), true, 0, 1, 1024, NULL},
    {"stride", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, stride), false, NITI_FIELD_SAME_AS_KERNEL, 1, 1024, NULL},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};
static const NitiLayerField no_fields[] = {{NULL, 0, 0, false, 0, 0, 0, NULL}};

static NitiStatus check_cells(int64_t cells) {
  if (cells <= CELLS_MAX) return NITI_OK;
  return niti_fail(NITI_ERROR_MODEL, "a window of %lld cells cannot be averaged (expected at most %d)", (long long)cells,
                   CELLS_MAX);
}

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  NITI_TRY(check_cells((int64_t)spec->kernel[0] * spec->kernel[1]));
  out->n = in->n;
  out->c = in->c;
  return niti_window_shape(spec, *in, out);
}

static NitiStatus global_shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  (void)spec;
  NITI_TRY(check_cells((int64_t)in->h * in->w));
  *out = (NitiShape){in->n, 1, 1, in->c};
  return NITI_OK;
}

static NitiPool pool_of(const NitiNode *node, int32_t n) {
  const NitiLayerSpec *s = &node->spec;
  const NitiShape in = node->in[0];
  const bool global = s->type == &niti_layer_global_avgpool;
  return (NitiPool){.n = n,
                    .h = in.h,
                    .w = in.w,
                    .c = in.c,
                    .oh = node->out.h,
                    .ow = node->out.w,
                    .kh = global ? in.h : s->kernel[0],
                    .kw = global ? in.w : s->kernel[1],
                    .stride_h = global ? in.h : s->stride[0],
                    .stride_w = global ? in.w : s->stride[1],
                    .pad_h = 0,
                    .pad_w = 0};
}

static void terms(const NitiNode *node, int64_t *forward, int64_t *backward, int64_t *gradient) {
  const NitiPool pool = pool_of(node, 1);
  *forward = niti_bound_avgpool_forward(pool.kh, pool.kw);
  *backward = niti_bound_avgpool_backward(pool.kh, pool.kw, pool.stride_h, pool.stride_w);
  *gradient = 0;
}

static void forward(NitiNode *node, NitiBackend *backend) {
  const NitiPool pool = pool_of(node, node->y.shape.n);
  backend->ops->avgpool_forward(backend, &node->y, &node->x[0], &pool, &node->forward_rq);
}

static void backward(NitiNode *node, NitiBackend *backend) {
  const NitiPool pool = pool_of(node, node->y.shape.n);
  if (node->dx[0].data) backend->ops->avgpool_backward(backend, &node->dx[0], &node->dy, &pool, &node->backward_rq);
}

const NitiLayerType niti_layer_avgpool = {
    .name = "avgpool",
    .fields = fields,
    .inputs = 1,
    .keeps_positive = true,
    .shape = shape,
    .terms = terms,
    .forward = forward,
    .backward = backward,
};

const NitiLayerType niti_layer_global_avgpool = {
    .name = "global-avgpool",
    .fields = no_fields,
    .inputs = 1,
    .keeps_positive = true,
    .shape = global_shape,
    .terms = terms,
    .forward = forward,
    .backward = backward,
};

/* Average pool over windows, and over the whole image (`global-avgpool`). */
#include "base/pool.h"
#include "layer/shape.h"

enum { CELLS_MAX = 1 << NITI_RECIPROCAL_BITS };

static const NitiLayerField fields[] = {
    {"kernel", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, kernel), true, 0, 1, 1024, NULL},
    {"stride", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, stride), false, NITI_FIELD_SAME_AS_KERNEL, 1, 1024, NULL},
    {"padding", NITI_FIELD_PAIR, offsetof(NitiLayerSpec, padding), false, 0, 0, 1023, NULL},
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
  NITI_TRY(niti_check_padding(spec));
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

static void forward(NitiLowering *l, NitiLayer *layer) {
  layer->y = niti_lower_output(l, layer);
  NitiOperation o = niti_lower_forward(l, layer, NITI_OP_AVGPOOL_FORWARD, layer->x[0], layer->y);
  o.pool = niti_pool_of(layer);
  niti_lower_append(l, &o);
}

static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  if (!wanted[0]) return;
  dx[0] = niti_lower_delta(l, layer, 0);
  NitiOperation o = niti_lower_backward(l, layer, NITI_OP_AVGPOOL_BACKWARD, dy, dx[0]);
  o.pool = niti_pool_of(layer);
  niti_lower_append(l, &o);
}

const NitiLayerType niti_layer_avgpool = {
    .name = "avgpool",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};

const NitiLayerType niti_layer_global_avgpool = {
    .name = "global-avgpool",
    .fields = no_fields,
    .inputs = 1,
    .shape = global_shape,
    .forward = forward,
    .backward = backward,
};

/* The addition that ends a residual block: y = body + shortcut at a common exponent. */
#include "layer/layer.h"

static const NitiLayerField fields[] = {{NULL, 0, 0, false, 0, 0, 0, NULL}};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  (void)spec;
  if (in[0].h != in[1].h || in[0].w != in[1].w || in[0].c != in[1].c) {
    return niti_fail(NITI_ERROR_MODEL, "the residual's body gives %dx%dx%d but its shortcut %dx%dx%d (expected equal shapes)",
                     in[0].h, in[0].w, in[0].c, in[1].h, in[1].w, in[1].c);
  }
  *out = in[0];
  return NITI_OK;
}

static void forward(NitiLowering *l, NitiLayer *layer) {
  layer->y = niti_lower_output(l, layer);
  NitiOperation o = niti_lower_forward(l, layer, NITI_OP_ADD, layer->x[0], layer->y);
  o.inputs[1] = layer->x[1];
  niti_lower_append(l, &o);
}

/* Both branches receive the delta unchanged. */
static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  (void)l;
  for (int i = 0; i < layer->spec->type->inputs; ++i) {
    if (wanted[i]) dx[i] = dy;
  }
}

const NitiLayerType niti_layer_add = {
    .name = "add",
    .fields = fields,
    .inputs = 2,
    .joins = "residual",
    .shape = shape,
    .forward = forward,
    .backward = backward,
};

/* Dropout: a mask, and what stays is scaled up; no operation at evaluation. Backward draws the same mask. */
#include "layer/layer.h"

static const char *const per_choices[] = {"feature", "element", NULL};

static const NitiLayerField fields[] = {
    {"rate", NITI_FIELD_MILLIONTHS, offsetof(NitiLayerSpec, rate), false, 500000, 0, 999999, NULL},
    {"per", NITI_FIELD_CHOICE, offsetof(NitiLayerSpec, per), false, 0, 0, 1, per_choices},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  (void)spec;
  *out = *in;
  return NITI_OK;
}

static void append(NitiLowering *l, NitiOperation o, const NitiLayer *layer) {
  o.dropout = (NitiDropout){layer->spec->per == 0, layer->spec->rate};
  o.rounding = (NitiRoundingRecord){.purpose = NITI_DRAW_DROPOUT, .stream = (uint32_t)layer->number};
  niti_lower_append(l, &o);
}

static void forward(NitiLowering *l, NitiLayer *layer) {
  layer->y = layer->x[0];
  if (!l->training) return;
  layer->y = niti_lower_output(l, layer);
  append(l, niti_lower_forward(l, layer, NITI_OP_DROPOUT, layer->x[0], layer->y), layer);
}

static void backward(NitiLowering *l, const NitiLayer *layer, int32_t dy, const bool *wanted, int32_t *dx) {
  if (!wanted[0]) return;
  dx[0] = niti_lower_delta(l, layer, 0);
  append(l, niti_lower_backward(l, layer, NITI_OP_DROPOUT, dy, dx[0]), layer);
}

const NitiLayerType niti_layer_dropout = {
    .name = "dropout",
    .fields = fields,
    .inputs = 1,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};

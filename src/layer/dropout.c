/* Dropout at rate 1/2: a 0/1 mask and one more in the exponent; nothing at evaluation. The mask is drawn again in backward.
 * In place over a ReLU's output it also clears what that ReLU's backward looks at, where the error is 0 anyway. */
#include "layer/layer.h"

static const char *const per_choices[] = {"feature", "element", NULL};

static const NitiLayerField fields[] = {
    {"per", NITI_FIELD_CHOICE, offsetof(NitiLayerSpec, per), false, 0, 0, 1, per_choices},
    {NULL, 0, 0, false, 0, 0, 0, NULL},
};

static NitiStatus shape(const NitiLayerSpec *spec, const NitiShape *in, NitiShape *out) {
  (void)spec;
  *out = *in;
  return NITI_OK;
}

static void forward(NitiNode *node, NitiBackend *backend) {
  if (node->training) {
    backend->ops->dropout(backend, &node->y, &node->x[0], (uint32_t)node->index, node->spec.per == 0);
  } else {
    backend->ops->copy(backend, &node->y, &node->x[0]);
  }
}

static void backward(NitiNode *node, NitiBackend *backend) {
  if (node->dx[0].data) backend->ops->dropout(backend, &node->dx[0], &node->dy, (uint32_t)node->index, node->spec.per == 0);
}

const NitiLayerType niti_layer_dropout = {
    .name = "dropout",
    .fields = fields,
    .inputs = 1,
    .in_place = true,
    .keeps_positive = true,
    .shape = shape,
    .forward = forward,
    .backward = backward,
};

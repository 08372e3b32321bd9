/* The addition that ends a residual block: y = body + shortcut at a common exponent. */
#include "base/bounds.h"
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

static void terms(const NitiNode *node, int64_t *forward, int64_t *backward, int64_t *gradient) {
  (void)node;
  *forward = niti_bound_add();
  *backward = 0;
  *gradient = 0;
}

static void forward(NitiNode *node, NitiBackend *backend) {
  backend->ops->add(backend, &node->y, &node->x[0], &node->x[1], &node->forward_rq);
}

static void backward(NitiNode *node, NitiBackend *backend) {
  for (int i = 0; i < 2; ++i) {
    if (node->dx[i].data) niti_node_pass(backend, &node->dx[i], &node->dy);
  }
}

const NitiLayerType niti_layer_add = {
    .name = "add",
    .fields = fields,
    .inputs = 2,
    .joins = true,
    .passes_delta = true,
    .keeps_positive = true,
    .shape = shape,
    .terms = terms,
    .forward = forward,
    .backward = backward,
};

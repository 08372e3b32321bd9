/* The table of layer types. */
#include "layer/layer.h"

#include <string.h>

static const NitiLayerType *const types[] = {
    &niti_layer_conv,           &niti_layer_linear,  &niti_layer_relu,    &niti_layer_maxpool, &niti_layer_avgpool,
    &niti_layer_global_avgpool, &niti_layer_flatten, &niti_layer_dropout, &niti_layer_add,     NULL,
};

const NitiLayerType *const *niti_layer_types(void) { return types; }

const NitiLayerType *niti_layer_find(const char *name) {
  for (const NitiLayerType *const *t = types; *t; ++t) {
    if (strcmp((*t)->name, name) == 0) return *t;
  }
  return NULL;
}

const NitiLayerType *niti_layer_joining(const char *construct) {
  for (const NitiLayerType *const *t = types; *t; ++t) {
    if ((*t)->joins && strcmp((*t)->joins, construct) == 0) return *t;
  }
  return NULL;
}

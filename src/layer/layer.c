/* The table of layer types. */
#include "layer/layer.h"

#include <string.h>

#define LIST(name) &niti_layer_##name,
static const NitiLayerType *const types[] = {NITI_LAYERS(LIST) NULL};

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

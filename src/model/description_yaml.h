/* Descriptions as parts of other documents: a recipe may hold its model. */
#ifndef NITI_MODEL_DESCRIPTION_YAML_H
#define NITI_MODEL_DESCRIPTION_YAML_H

#include "config/yaml.h"
#include "model/description.h"

enum {
  NITI_NODES_MAX = 4096,
  NITI_DIMENSION_MAX = 65536, /* of the input; layers' fields have limits of their own */
  NITI_VALUES_MAX = 1 << 28,  /* of one image at one node */
  NITI_NESTING_MAX = 16,      /* repeats, blocks and residuals inside each other */
};

/* From a mapping of `document`, into which the overrides are written. source is for messages. */
NitiStatus niti_description_from_yaml(NitiDescription **out, NitiYamlDocument *document, NitiYaml *mapping, const char *source,
                                      const NitiDescriptionOverrides *overrides);
/* Reads `input: [H, W, C]`. */
NitiStatus niti_description_input(NitiShape *out, const NitiYaml *node);
/* Reads `classes: N`. */
NitiStatus niti_description_classes(int32_t *out, const NitiYaml *node);
/* Expands `blocks` and `layers` of a description's mapping into description->nodes, checking every shape. name, input and
 * classes are set. On failure the caller closes the description. */
NitiStatus niti_description_expand(NitiDescription *description, const NitiYaml *mapping);
/* Freezes the layers that a list names, and no others: all must have weights, and one layer with weights must remain. */
NitiStatus niti_description_freeze(NitiDescription *description, const NitiYaml *list);

#endif

/* A network description: YAML text -> a flat list of layers with their inputs. docs/model-reference.md has the format. */
#ifndef NITI_MODEL_DESCRIPTION_H
#define NITI_MODEL_DESCRIPTION_H

#include "layer/layer.h"

typedef struct NitiDescribedNode {
  NitiLayerSpec spec;
  int32_t inputs[NITI_INPUTS_MAX]; /* node numbers: 0 the network's input, i the i-th node from 1; unused -1 */
  int32_t input_count;
  bool frozen; /* its weights stay as they are in training */
} NitiDescribedNode;

typedef struct NitiDescription {
  char name[NITI_NAME_MAX];
  char *source;    /* "built-in NAME" or the file's path, for messages */
  char *text;      /* self-contained YAML that reproduces this description, overrides included */
  NitiShape input; /* n = 1 */
  int32_t classes;
  NitiDescribedNode *nodes; /* nodes[i] is node i + 1, in the order of docs/arithmetic.md */
  int32_t node_count;
} NitiDescription;

/* Values with which a recipe or caller overrides the description's. */
typedef struct NitiDescriptionOverrides {
  int32_t classes; /* 0: as described */
  NitiShape input; /* h 0: as described */
} NitiDescriptionOverrides;

/* model: a built-in's name or a file (a name with '/' or ending in .yaml or .yml is a file). overrides may be NULL. */
NitiStatus niti_description_load(NitiDescription **out, const char *model, const NitiDescriptionOverrides *overrides);
/* From text; source is for messages. */
NitiStatus niti_description_parse(NitiDescription **out, const char *text, const char *source,
                                  const NitiDescriptionOverrides *overrides);
void niti_description_close(NitiDescription *description);

/* Names of built-in models, NULL-terminated. */
const char *const *niti_builtin_models(void);

#endif

/* A layer type: its keys in a model description, its shapes, and how it lowers into operations, in one file of this folder.
 * To add one: write the file, list its type in NITI_LAYERS below (docs/add-a-layer.md). */
#ifndef NITI_LAYER_LAYER_H
#define NITI_LAYER_LAYER_H

#include "layer/lowering.h"

enum { NITI_NAME_MAX = NITI_LAYER_NAME_MAX };

typedef struct NitiLayerType NitiLayerType;

/* One layer as described: the values of its fields (each type reads only its own). */
typedef struct NitiLayerSpec {
  const NitiLayerType *type;
  char name[NITI_NAME_MAX];                 /* given, or type name + ordinal within the type: conv1, conv2, linear1 */
  int32_t out;                              /* conv: output channels; linear: output features */
  int32_t kernel[2], stride[2], padding[2]; /* height, width */
  int32_t groups;                           /* conv; NITI_GROUPS_CHANNELS: one per input channel */
  int32_t bias;                             /* conv, linear: 1: they have one */
  int32_t per, rate;                        /* dropout: index into its choices, millionths */
  int32_t max;                              /* relu: millionths; 0: none */
  int line, column;                         /* its position in the description, from 1; 0 unknown */
} NitiLayerSpec;

/* A field of a layer's mapping in YAML, such as `kernel: 3`. Unknown keys are errors. */
typedef enum NitiLayerFieldKind {
  NITI_FIELD_COUNT,      /* an integer, or the word `classes` (the network's number of classes) */
  NITI_FIELD_PAIR,       /* an integer, or [height, width]; stored in two int32_t */
  NITI_FIELD_CHOICE,     /* one of `choices`, stored as its index in an int32_t */
  NITI_FIELD_MILLIONTHS, /* a decimal of at most six places, stored in millionths, as min and max are */
  NITI_FIELD_FLAG,       /* true or false, stored in an int32_t */
  NITI_FIELD_GROUPS,     /* an integer, or the word `channels`, stored as NITI_GROUPS_CHANNELS */
} NitiLayerFieldKind;

typedef struct NitiLayerField {
  const char *name;
  NitiLayerFieldKind kind;
  size_t offset; /* in NitiLayerSpec */
  bool required;
  int32_t fallback; /* when absent; NITI_FIELD_SAME_AS_KERNEL: the kernel's values */
  int32_t min, max;
  const char *const *choices; /* NULL-terminated, for NITI_FIELD_CHOICE */
} NitiLayerField;

enum { NITI_FIELD_SAME_AS_KERNEL = -1, NITI_GROUPS_CHANNELS = 0 };

struct NitiLayerType {
  const char *name;
  const NitiLayerField *fields; /* ends with name NULL */
  int inputs;                   /* 1, or 2 for a type that joins two branches */
  bool wide;                    /* it has 16-bit parameters, which not every optimiser trains */
  const char *joins;            /* the construct in descriptions that it ends ("residual"); NULL: it is written as a layer */
  /* Computes the output shape from the input shapes; fails if there is none (the caller adds the place to the message). */
  NitiStatus (*shape)(const NitiLayerSpec *, const NitiShape *in, NitiShape *out);
  /* Weight shape {out, KH, KW, in}; NULL: no weights. */
  void (*weight_shape)(const NitiLayerSpec *, NitiShape in, NitiShape *out);
  /* Appends the forward operations and sets layer->y; y may be x[0] if the layer does nothing. */
  void (*forward)(NitiLowering *, NitiLayer *);
  /* Appends the backward operations, given the delta dy of the output: writes the gradients of weights, which
   * frozen layers need not have (none is used), and sets dx[i] to the delta of input i wherever wanted[i] (it may be dy itself).
   * Called for training only. */
  void (*backward)(NitiLowering *, const NitiLayer *, int32_t dy, const bool *wanted, int32_t *dx);
};

/* The registered types. */
const NitiLayerType *niti_layer_find(const char *name);         /* NULL: none */
const NitiLayerType *niti_layer_joining(const char *construct); /* NULL: no such construct */
const NitiLayerType *const *niti_layer_types(void);             /* NULL-terminated */

/* The table of types, one line per type: niti_layer_NAME. */
#define NITI_LAYERS(LAYER) \
  LAYER(conv)              \
  LAYER(linear)            \
  LAYER(relu)              \
  LAYER(maxpool)           \
  LAYER(avgpool)           \
  LAYER(global_avgpool)    \
  LAYER(flatten)           \
  LAYER(dropout)           \
  LAYER(norm)              \
  LAYER(add)

#define NITI_DECLARE_LAYER(name) extern const NitiLayerType niti_layer_##name;
NITI_LAYERS(NITI_DECLARE_LAYER)

#endif

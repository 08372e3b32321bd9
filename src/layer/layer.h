/* A layer type: its parameters in a model description, its shapes, its forward and backward, in one file of this folder.
 * To add one: write the file, list its type in layer.c (docs/add-a-layer.md). */
#ifndef NITI_LAYER_LAYER_H
#define NITI_LAYER_LAYER_H

#include "backend/backend.h"

enum { NITI_NAME_MAX = 64, NITI_INPUTS_MAX = 2 };

typedef struct NitiLayerType NitiLayerType;

/* One layer as described: the values of its fields (each type reads only its own). */
typedef struct NitiLayerSpec {
  const NitiLayerType *type;
  char name[NITI_NAME_MAX];                 /* given, or type name + ordinal within the type: conv1, conv2, linear1 */
  int32_t out;                              /* conv: output channels; linear: output features */
  int32_t kernel[2], stride[2], padding[2]; /* height, width */
  int32_t per;                              /* dropout: index into its choices */
  int line, column;                         /* where the description has it, from 1; 0 unknown */
} NitiLayerSpec;

/* A field of a layer's mapping in YAML, such as `kernel: 3`. Unknown keys are errors. */
typedef enum NitiLayerFieldKind {
  NITI_FIELD_COUNT,  /* an integer, or the word `classes` (the network's number of classes) */
  NITI_FIELD_PAIR,   /* an integer, or [height, width]; stored in two int32_t */
  NITI_FIELD_CHOICE, /* one of `choices`, stored as its index in an int32_t */
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

enum { NITI_FIELD_SAME_AS_KERNEL = -1 };

/* Which of a layer's tensors tells where a ReLU right before it let its input through, so that the layer's backward can do the
 * ReLU's as well. */
typedef enum NitiGate { NITI_GATE_NONE = 0, NITI_GATE_INPUT, NITI_GATE_OUTPUT } NitiGate;

/* A node of a built network, as its layer sees it. Tensors are views into the network's plan. */
typedef struct NitiNode {
  NitiLayerSpec spec;
  int32_t index;                   /* from 1; 0 is the input */
  int32_t inputs[NITI_INPUTS_MAX]; /* node indices; unused: -1 */
  int32_t input_count;
  NitiShape in[NITI_INPUTS_MAX], out; /* at the planned (largest) batch */
  NitiTensor x[NITI_INPUTS_MAX], y;   /* this batch's views */
  NitiTensor dx[NITI_INPUTS_MAX], dy; /* dx[i].data NULL: no error wanted there */
  NitiTensor weight;                  /* shape {out, KH, KW, in}; data NULL: none */
  NitiGradient gradient;
  /* Whether no mantissa of x[i] or y is ever negative, because a ReLU has seen to it. */
  bool x_positive[NITI_INPUTS_MAX], y_positive;
  void *packed; /* inference: backend memory for weights as the backend packed them (NitiConv.packed); NULL: none */
  void *extra;  /* backend memory of extra_bytes(node), from forward to backward: e.g. pooling winners */
  NitiRequantise forward_rq, backward_rq;
  bool fused_relu; /* of a layer that fuses_relu: applies the ReLU after it; of that ReLU: is applied already */
  NitiGate gate;   /* backward does that of the ReLU before it too: its own x[0] or y is the mask */
  bool gated;      /* of that ReLU: its dy has been through the mask already */
  bool training;
} NitiNode;

struct NitiLayerType {
  const char *name;
  const NitiLayerField *fields; /* ends with name NULL */
  int inputs;                   /* 1, or 2 for layers that join (made by `residual`, not written in descriptions) */
  bool in_place;                /* y may share x[0]'s memory, dx[0] dy's, where nobody else needs it */
  bool needs_input;             /* backward reads x */
  bool needs_output;            /* backward reads y */
  bool joins;                   /* not to be written in a description: made by a construct */
  bool passes_delta;            /* dx[0] is dy unchanged and may share its memory; dx[1] is a copy */
  bool fuses_relu;              /* forward applies a following ReLU where node->fused_relu is set */
  bool positive;                /* y has no negative mantissa */
  bool keeps_positive;          /* nor has it where no input has one */
  bool keeps_exponent;          /* y has x[0]'s exponent, dx[0] dy's; where they share memory they may share it */
  int weight_dims;              /* 4: [out][KH][KW][in]; 2: [out][in]; 0: no weights */
  /* Output shape from input shapes; an impossible one fails (message without the place, the caller adds it). */
  NitiStatus (*shape)(const NitiLayerSpec *, const NitiShape *in, NitiShape *out);
  /* Weight shape {out, KH, KW, in}; NULL: no weights. */
  void (*weight_shape)(const NitiLayerSpec *, NitiShape in, NitiShape *out);
  /* Terms of the widest forward / backward accumulator and of the gradient's (0: none). */
  void (*terms)(const NitiNode *, int64_t *forward, int64_t *backward, int64_t *gradient);
  /* Multiply-adds of one image forward; NULL: 0. */
  int64_t (*multiply_adds)(const NitiNode *);
  size_t (*extra_bytes)(const NitiNode *);                    /* NULL: 0 */
  NitiGate (*gate)(const NitiNode *);                         /* what it could do; NULL: NITI_GATE_NONE */
  size_t (*workspace)(const NitiNode *, const NitiBackend *); /* NULL: 0 */
  size_t (*packed)(const NitiNode *, const NitiBackend *);    /* bytes of node->packed; NULL: 0 */
  /* The backend's kernel for "forward", "backward" or "gradient"; NULL: none worth naming. */
  const char *(*kernel)(const NitiNode *, const NitiBackend *, const char *direction);
  void (*forward)(NitiNode *, NitiBackend *);
  void (*backward)(NitiNode *, NitiBackend *); /* dy -> dx, and the gradient */
};

/* to = from, for layers that change nothing: no work where they are one tensor. */
static inline void niti_node_pass(NitiBackend *backend, NitiTensor *to, const NitiTensor *from) {
  if (to->data != from->data || to->exponent != from->exponent) backend->ops->copy(backend, to, from);
}

/* The registered types. */
const NitiLayerType *niti_layer_find(const char *name); /* NULL: none */
const NitiLayerType *const *niti_layer_types(void);     /* NULL-terminated */

extern const NitiLayerType niti_layer_conv, niti_layer_linear, niti_layer_relu, niti_layer_maxpool, niti_layer_avgpool,
    niti_layer_global_avgpool, niti_layer_flatten, niti_layer_dropout, niti_layer_add;

#endif

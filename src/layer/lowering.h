/* Lowering: how layers, losses and optimisers turn into the records of a program. A layer type appends its forward operations
 * and, for training, its backward ones; model/lower.c calls them in order and adds the deltas of tensors with several consumers.
 * No function here returns a failure: the program records that memory ran out (niti_program_check). */
#ifndef NITI_LAYER_LOWERING_H
#define NITI_LAYER_LOWERING_H

#include "program/program.h"

enum { NITI_INPUTS_MAX = 2 };

typedef struct NitiLowering {
  NitiProgram *program;
  bool training; /* if false, dropout does nothing and no rounding draws random words */
  NitiRounding round_activation, round_delta;
  int32_t clip_activation, clip_delta; /* NitiRoundingRecord.clip */
  bool nesterov;                       /* the optimiser looks ahead */
  bool clips_norm;                     /* it clips gradients by their norm */
  int32_t squares;                     /* the sum of all gradients' squares so far, or NITI_NONE */
  bool ranks;                          /* several processes share the batch and add their gradients */
  int32_t summed;                      /* sums over all ranks have begun of what operations before this one made */
} NitiLowering;

/* A layer while its network is lowered. Forward sets y and what backward needs. */
typedef struct NitiLayer {
  const struct NitiLayerSpec *spec;
  int32_t number;                     /* from 1: the `layer` of its random words */
  int32_t sources[NITI_INPUTS_MAX];   /* the numbers of the layers whose outputs it reads; 0: the network's input */
  NitiShape in[NITI_INPUTS_MAX], out; /* at the program's batch */
  int32_t x[NITI_INPUTS_MAX], y;      /* tensors */
  int32_t weight, bias, saved;        /* tensors that forward declared, or NITI_NONE */
  bool alone;                         /* no other layer reads what it reads */
  bool frozen;                        /* its parameters are not trained: backward makes no gradient */
} NitiLayer;

/* The layer's output: "NAME.out", s8 with one exponent. */
int32_t niti_lower_output(NitiLowering *, const NitiLayer *);
/* The delta of the layer's input i: "SOURCE.delta". */
int32_t niti_lower_delta(NitiLowering *, const NitiLayer *, int i);
/* A trained s8 tensor: "NAME.weight". shape {out, KH, KW, in}; rank 4, or 2 for [out][in]. */
int32_t niti_lower_weight(NitiLowering *, const NitiLayer *, NitiShape shape, int32_t rank, int64_t fan_in, int64_t fan_out);
/* A trained or running tensor beside the weight: "NAME.what", [rows][columns] or, with 0 rows, [columns]. */
int32_t niti_lower_parameter(NitiLowering *, const NitiLayer *, const char *what, NitiDtype, NitiInitial, int64_t rows,
                             int64_t columns);
/* The exact gradient of a weight, "NAME.gradient", for an accumulation length of `length`. */
int32_t niti_lower_gradient(NitiLowering *, int32_t weight, int64_t length);
/* A gradient in s64 with an exponent of its own: "NAME.gradient", "NAME.bias.gradient". */
int32_t niti_lower_sum(NitiLowering *, int32_t weight);
/* An optimiser's state for a weight, "NAME.what" or "NAME.bias.what", of the weight's shape with one exponent; initially zero. At
 * most 32 bits. */
int32_t niti_lower_state(NitiLowering *, int32_t weight, const char *what, NitiDtype);
/* A scalar that a later operation of the step reads, made of a weight's gradient: "NAME.what", s64 [2], mantissa and exponent. */
int32_t niti_lower_scalar(NitiLowering *, int32_t weight, const char *what);
/* A saved tensor, which backward reads beside the activations: "NAME.what", of the output's shape, u8. */
int32_t niti_lower_saved(NitiLowering *, const NitiLayer *, const char *what);
/* A saved tensor of a channel's sums or multipliers: "NAME.what", [channels][columns], with one exponent. */
int32_t niti_lower_channels(NitiLowering *, const NitiLayer *, const char *what, NitiDtype, int64_t channels, int64_t columns);
/* A forward or backward record of this layer: inputs[0] and outputs[0] as given, rounding as the recipe sets it. */
NitiOperation niti_lower_forward(const NitiLowering *, const NitiLayer *, NitiOpcode, int32_t x, int32_t y);
NitiOperation niti_lower_backward(const NitiLowering *, const NitiLayer *, NitiOpcode, int32_t dy, int32_t dx);
/* With ranks, sums of gradients begin before it as soon as there is enough for an exchange, and travel meanwhile. */
void niti_lower_append(NitiLowering *, const NitiOperation *);
/* With ranks: begins the sums of all gradients of products and biases that are left; a norm's are made of sums already. */
void niti_lower_sums(NitiLowering *);

#endif

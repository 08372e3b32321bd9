/* A network on a backend: the plan's nodes with memory under them, forward and backward. */
#ifndef NITI_MODEL_NETWORK_H
#define NITI_MODEL_NETWORK_H

#include "model/plan.h"

typedef struct NitiNetworkOptions {
  int32_t batch; /* the largest */
  bool training; /* plan backward too */
  NitiRounding round_activation, round_error;
} NitiNetworkOptions;

typedef struct NitiNetwork {
  NitiBackend *backend; /* borrowed */
  NitiPlan *plan;
  NitiNetworkOptions options;
  NitiTensor input;  /* to be written after set_batch, before forward */
  NitiTensor logits; /* after forward: {n, 1, 1, classes} */
  NitiTensor delta;  /* to be written before backward; data NULL: inference only */
  NitiRequantise loss_rq;
  void *arena, *scalars, *weights, *gradients, *packed;
  size_t memory_bytes; /* all of these and the workspace */
} NitiNetwork;

/* One weight tensor, in host terms. */
typedef struct NitiWeight {
  const char *layer; /* its layer's name; the tensor is called LAYER.weight */
  int32_t node;
  int ndim;
  uint32_t dims[4]; /* [out][KH][KW][in] or [out][in] */
  size_t count;
} NitiWeight;

/* Builds the plan and allocates everything a step needs. Weights are zero until init or set. The description may go afterwards.
 * NITI_ERROR_MEMORY says, where the backend knows, which batch would fit. */
NitiStatus niti_network_open(NitiNetwork **out, const NitiDescription *description, NitiBackend *backend,
                             const NitiNetworkOptions *options);
void niti_network_close(NitiNetwork *net);

/* What the next input, forward and backward are: 1 .. batch images; training: with dropout and the recipe's rounding, else
 * neither dropout nor random rounding (and no backward). */
void niti_network_set_batch(NitiNetwork *net, int32_t n, bool training);
/* input -> logits. */
void niti_network_forward(NitiNetwork *net);
/* delta -> the gradients of every weight tensor. */
void niti_network_backward(NitiNetwork *net);
/* The part of it that is node i's; for i from the last to 1, with *fork 0 at first. */
void niti_network_backward_node(NitiNetwork *net, int32_t i, int32_t *fork);

/* Weights, numbered 0 .. count - 1 in node order. */
int32_t niti_network_weight_count(const NitiNetwork *net);
NitiWeight niti_network_weight(const NitiNetwork *net, int32_t i);
NitiNode *niti_network_weight_node(const NitiNetwork *net, int32_t i);
void niti_network_get_weight(const NitiNetwork *net, int32_t i, int8_t *mantissas, int32_t *exponent);
void niti_network_set_weight(NitiNetwork *net, int32_t i, const int8_t *mantissas, int32_t exponent);
/* Fresh weights by docs/arithmetic.md; one tensor, or all. */
NitiStatus niti_network_init_weight(NitiNetwork *net, int32_t i, uint64_t seed);
NitiStatus niti_network_init(NitiNetwork *net, uint64_t seed);

#endif

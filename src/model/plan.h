/* The plan of a network: its nodes with shapes, where every activation and error lies in one arena (shared by lifetime), and
 * the proof that no accumulator overflows. Pure computation: allocates no tensor and asks a backend only for sizes. */
#ifndef NITI_MODEL_PLAN_H
#define NITI_MODEL_PLAN_H

#include "model/description.h"

enum { NITI_ALIGN = 256 };

/* A place in the arena; offset < 0: none. */
typedef struct NitiPlace {
  int64_t offset;
  size_t bytes;
} NitiPlace;

/* An error that node `node` sends along input `slot` into a sum that another consumer began. */
typedef struct NitiForkEdge {
  int32_t node, slot;
  int32_t addition; /* the how-manieth addition at that fork, from 0 */
  NitiPlace place;  /* where the error waits to be added */
} NitiForkEdge;

/* What a node's output, and the error there, have to do with others. */
typedef struct NitiLink {
  int32_t act_exponent, delta_exponent; /* the node under whose number the exponent is kept: another's where memory is shared */
  bool act_operand, delta_operand;      /* conv_gradient reads it */
  bool delta_only_operand;              /* and nothing else does */
  bool forks;                           /* the error is a sum: the node has several consumers */
} NitiLink;

typedef struct NitiPlan {
  int32_t count;       /* nodes; nodes[0] stands for the input, nodes[count] is the last */
  NitiNode *nodes;     /* [count + 1], tensors not yet placed */
  NitiPlace *act;      /* [count + 1] outputs */
  NitiPlace *delta;    /* [count + 1] errors at the outputs; none where nobody wants them or the network is for inference */
  NitiPlace *extra;    /* [count + 1] */
  NitiLink *links;     /* [count + 1] */
  bool *active;        /* [count + 1] weights lie in or before the node: its backward runs */
  NitiForkEdge *forks; /* [fork_count], in the order of backward */
  int32_t fork_count;
  size_t arena_bytes; /* activations and errors together */
  int32_t batch;
  bool training;
} NitiPlan;

typedef struct NitiNodeTerms {
  int64_t terms;     /* of the widest accumulator in int32, in products of 127^2; 0: none */
  int headroom_bits; /* bits left above it: floor(log2(NITI_MAX_TERMS / terms)) */
  int gradient_bits; /* 32 or 64; 0: no weights */
} NitiNodeTerms;

/* backend: where the tensors will lie; NULL: their elements are all the room they take.
 * A layer whose accumulators cannot be proven exact fails with its name, place and terms (NITI_ERROR_MODEL); so does one whose
 * output at this batch has more values than random numbers can tell apart, 2^34. */
NitiStatus niti_plan_open(NitiPlan **out, const NitiDescription *description, const NitiBackend *backend, int32_t batch,
                          bool training);
void niti_plan_close(NitiPlan *plan);
/* consumers[count + 1]: how many inputs each node's output is. */
void niti_plan_consumers(const NitiPlan *plan, int32_t *consumers);
/* fuse.c, called by niti_plan_open: work that one node does for another. Before memory is placed: a ReLU's backward in that of
 * its consumer. After: a ReLU in the layer before it, and the links. */
void niti_plan_gate(NitiPlan *plan, const int32_t *consumers);
void niti_plan_fuse(NitiPlan *plan, const int32_t *consumers);
NitiNodeTerms niti_plan_terms(const NitiPlan *plan, int32_t node);

#endif

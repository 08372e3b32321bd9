/* How an exported network works: the steps of its training and inference programs, and the place of every tensor in one arena. */
#ifndef NITI_EXPORT_PLAN_H
#define NITI_EXPORT_PLAN_H

#include "model/lower.h"

typedef enum NitiExportKind {
  NITI_EXPORT_CONV_FORWARD, /* with ReLU and max-pool where they follow */
  NITI_EXPORT_CONV_BACKWARD,
  NITI_EXPORT_UPDATE, /* a weight's gradient and update `niti` */
  NITI_EXPORT_MAXPOOL_FORWARD,
  NITI_EXPORT_AVGPOOL_FORWARD,
  NITI_EXPORT_POOL_BACKWARD, /* of either kind */
  NITI_EXPORT_RELU_FORWARD,
  NITI_EXPORT_RELU_BACKWARD,
  NITI_EXPORT_ADD,
  NITI_EXPORT_DROPOUT,
  NITI_EXPORT_LOSS,
} NitiExportKind;

/* What a step uses: spaces (NitiExportPlan), NITI_NONE where it uses none. */
typedef enum NitiExportUse {
  NITI_EXPORT_FROM,    /* x, or dy */
  NITI_EXPORT_OTHER,   /* the second operand: an addition's, a ReLU's output, an update's x */
  NITI_EXPORT_TO,      /* y, or dx */
  NITI_EXPORT_HIGH,    /* scratch: upper bytes of an output whose shift is not known yet */
  NITI_EXPORT_WINNERS, /* scratch: winners for three shifts */
  NITI_EXPORT_PACKED,  /* a pool's winners in bits */
  NITI_EXPORT_MASK,    /* of dy */
  NITI_EXPORT_CUT,     /* the mask of dx */
  NITI_EXPORT_WORK,    /* scratch: columns, rows or sums */
  NITI_EXPORT_USES
} NitiExportUse;

typedef struct NitiExportStep {
  NitiExportKind kind;
  int32_t operation; /* of the plan's program */
  int32_t pool;      /* CONV_FORWARD: the operation of the max-pool that is part of it, or NITI_NONE */
  int32_t use[NITI_EXPORT_USES];
  int32_t hint;  /* number of the shift that it predicts, or NITI_NONE */
  int32_t width; /* bits per winner */
  int32_t kept;  /* UPDATE: output channels whose sums stay in memory; the others share a row, and are summed twice */
} NitiExportStep;

/* A part of the arena: tensor `i` of the program has space i; scratch follows. Tensors may share the memory of another's. */
typedef struct NitiExportSpace {
  int32_t storage;     /* the space whose memory it uses: its own, or another's */
  int64_t bytes;       /* of the storage */
  int64_t offset;      /* in the arena; -1: never used */
  int32_t first, last; /* steps; last -1: never used */
} NitiExportSpace;

typedef struct NitiExportPlan {
  NitiProgram *program; /* owned */
  NitiExportStep *steps;
  int32_t step_count;
  NitiExportSpace *spaces;
  int32_t space_count, space_capacity;
  int32_t hint_count;
  int64_t arena_bytes;
} NitiExportPlan;

/* Plans a program of `description`, which it keeps. fast_bytes: an update keeps the sums of all channels where they take no more
 * than that. NITI_ERROR_UNSUPPORTED, naming layer and operation: what the runtime cannot do. */
/* Fails with the first operation of a kind, or with an attribute, that exports lack: its layer, and what it has. */
NitiStatus niti_export_check(const NitiProgram *program);
NitiStatus niti_export_plan_open(NitiExportPlan *out, const NitiDescription *description, const NitiLowerOptions *options,
                                 int64_t fast_bytes);
/* Makes the arena no larger than `bytes` where it can, at the price of time: at the fullest step, an output's shift is measured
 * in a pass of its own, instead of upper bytes being kept until it is known; then at the others. Which plans it tries, and in
 * which order, does not depend on `bytes`: the first that fits is taken, so that more bytes never fail where fewer are enough.
 * Where none fits, arena_bytes is that of the smallest, and the plan is good for nothing else. */
NitiStatus niti_export_plan_shrink(NitiExportPlan *plan, int64_t bytes);
/* Updates keep the sums of as many channels as fit in an arena of `bytes`, which must be what it has or more, and remains so. */
NitiStatus niti_export_plan_fill(NitiExportPlan *plan, int64_t bytes);
void niti_export_plan_close(NitiExportPlan *plan);
/* Whether a convolution's only window is the image itself, so that no columns are gathered: rt_is_linear of the runtime. */
bool niti_export_is_linear(const NitiConv *conv);
/* Whether a LOSS is `softmax`; whether a DROPOUT's images share one mask. */
bool niti_export_is_softmax(const NitiOperation *operation);
bool niti_export_shares_mask(const NitiOperation *operation);
/* The place of a space in the arena, or -1. */
int64_t niti_export_offset(const NitiExportPlan *plan, int32_t space);
/* "backward of conv2" */
void niti_export_step_name(char *out, size_t size, const NitiExportPlan *plan, int32_t step);
/* The step at which the arena is fullest, and how many bytes are alive there. */
int32_t niti_export_fullest(const NitiExportPlan *plan, int64_t *bytes);

#endif

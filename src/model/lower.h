/* Lowers a network to a program: forward, loss, backward and the optimiser's update. */
#ifndef NITI_MODEL_LOWER_H
#define NITI_MODEL_LOWER_H

#include "model/description.h"
#include "optimizer/optimizer.h"

typedef struct NitiLowerOptions {
  int32_t batch; /* the largest */
  int32_t whole; /* of all ranks together; 0: of a process by itself */
  bool training; /* with loss, backward and update; else forward and metrics, without dropout or random rounding */
  NitiRounding round_activation, round_delta;
  int32_t clip_activation, clip_delta; /* NitiRoundingRecord.clip of layers' outputs and deltas, not of the loss's delta */
  NitiLossKind loss;
  int64_t smoothing;              /* of labels, in billionths; loss softmax only */
  bool nesterov;                  /* of update sgd */
  bool clips_norm;                /* likewise: gradients are clipped by their norm, the bound scalar `clip` */
  bool changes_images;            /* samples may be scaled, coloured or mixed */
  const NitiOptimizer *optimizer; /* NULL: update `niti` */
} NitiLowerOptions;

/* Names of tensors in every lowered program. */
#define NITI_TENSOR_PIXELS "pixels"   /* u8 [images][H][W][C]; the source images, whose size is bound */
#define NITI_TENSOR_SAMPLES "samples" /* s32 [N][8]: one NitiSample per image */
#define NITI_TENSOR_LABELS "labels"   /* s32 [N] */
#define NITI_TENSOR_TABLE "table"     /* s8 [C][256] with one exponent: docs/arithmetic.md, "Input" */
#define NITI_TENSOR_METRICS "metrics" /* s64 [3]: NitiMetrics */

/* NITI_ERROR_MODEL with file, place and layer if an accumulator cannot be proven exact, or a tensor exceeds the 34-bit index
 * space of random words. */
NitiStatus niti_lower(NitiProgram **out, const NitiDescription *description, const NitiLowerOptions *options);
/* The last layer's output: s8 [N][classes]. */
int32_t niti_program_logits(const NitiProgram *);

#endif

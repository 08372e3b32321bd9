/* Shapes of images, activations and weights. */
#ifndef NITI_PROGRAM_SHAPE_H
#define NITI_PROGRAM_SHAPE_H

#include "platform/status.h"

/* NHWC. A matrix [N][features] is {N, 1, 1, features}. */
typedef struct NitiShape {
  int32_t n, h, w, c;
} NitiShape;

enum { NITI_CHANNELS_MAX = 4096 }; /* of a network's input: each has its own mean and deviation */

/* Elements of one image, and of the whole. */
static inline size_t niti_shape_image(NitiShape s) { return (size_t)s.h * (size_t)s.w * (size_t)s.c; }
static inline size_t niti_shape_count(NitiShape s) { return (size_t)s.n * niti_shape_image(s); }

#endif

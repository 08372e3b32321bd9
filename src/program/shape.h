/* Shapes of images, activations and weights. */
#ifndef NITI_PROGRAM_SHAPE_H
#define NITI_PROGRAM_SHAPE_H

#include "platform/status.h"

/* NHWC. A matrix [N][features] is {N, 1, 1, features}. */
typedef struct NitiShape {
  int32_t n, h, w, c;
} NitiShape;

enum { NITI_CHANNELS_MAX = 4096 }; /* of a network's input: each has its own mean and deviation */

/* Elements of one image, and of the whole. SIZE_MAX where size_t cannot hold those of an image. */
static inline size_t niti_shape_image(NitiShape s) {
  const uint64_t count = (uint64_t)s.h * (uint64_t)s.w * (uint64_t)s.c;
  return sizeof(size_t) < sizeof count && count > UINT32_MAX ? SIZE_MAX : (size_t)count;
}
static inline size_t niti_shape_count(NitiShape s) { return (size_t)s.n * niti_shape_image(s); }

#endif

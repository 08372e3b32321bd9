/* Inside src/data: the random choices of docs/arithmetic.md, "Input and initial weights": functions of (seed, epoch, image)
 * alone. */
#ifndef NITI_DATA_AUGMENT_H
#define NITI_DATA_AUGMENT_H

#include "data/image.h"

/* order[count] = the epoch's permutation of 0 .. count - 1. */
void niti_order_shuffle(uint32_t *order, int64_t count, uint64_t seed, uint32_t epoch);
/* The words that choose a random window. */
NitiWindow niti_window_draw(uint64_t seed, uint32_t epoch, uint32_t image);
/* Whether columns are mirrored. */
bool niti_flip_draw(uint64_t seed, uint32_t epoch, uint32_t image);
/* Where a window starts along one side of an image, counted from the image's own first pixel: -pad .. size + pad - window.
 * size + 2 pad >= window. */
int32_t niti_window_start(int32_t size, int32_t pad, int32_t window, bool centre, uint32_t word);

#endif

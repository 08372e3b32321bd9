/* Inside src/data: the random choices of docs/arithmetic.md, "Input and initial weights": functions of (seed, epoch, image)
 * alone. niti.h has more of them. */
#ifndef NITI_DATA_AUGMENT_H
#define NITI_DATA_AUGMENT_H

#include "data/image.h"
#include "program/program.h"

/* The words that choose a random window. */
NitiWindow niti_window_draw(uint64_t seed, uint32_t epoch, uint32_t image);
/* The words that choose a resized crop. */
NitiWindow niti_resized_draw(uint64_t seed, uint32_t epoch, uint32_t image);
/* The centre of the cutout square into the sample, where the options have one, for an input of this size. */
void niti_cutout_draw(NitiSample *sample, const NitiDataOptions *options, NitiShape input, uint64_t seed, uint32_t epoch,
                      uint32_t image);
/* The sample's colours, where the options have colour jitter; grey: niti_image_grey of the source image. */
void niti_colours_draw(NitiSample *sample, const NitiDataOptions *options, uint16_t grey, uint64_t seed, uint32_t epoch,
                       uint32_t image);

/* How much of the next image of the batch is mixed in, 0 to NITI_SHARE_MAX 256ths. */
uint8_t niti_share_draw(const NitiDataOptions *options, uint64_t seed, uint32_t epoch, uint32_t image);

/* Rows y .. y + h - 1 and columns x .. x + w - 1 of an image. */
typedef struct NitiRectangle {
  int32_t y, x, h, w;
} NitiRectangle;
/* Of an image of h x w pixels, at most 2^28. scale and aspect: least and most, as in NitiDataOptions. */
NitiRectangle niti_rectangle(const int32_t scale[2], const int32_t aspect[2], int32_t h, int32_t w, NitiWords words);

/* Where a window starts along one side of an image, counted from the image's own first pixel: -pad .. size + pad - window.
 * size + 2 pad >= window. */
int32_t niti_window_start(int32_t size, int32_t pad, int32_t window, bool centre, uint32_t word);

#endif

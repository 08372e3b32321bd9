/* Pictures to look at: rectangles, texts and images on a canvas, as a PNG file's bytes. */
#ifndef NITI_IO_PICTURE_H
#define NITI_IO_PICTURE_H

#include "platform/status.h"

enum {
  NITI_LETTER_WIDTH = 4,
  NITI_LETTER_HEIGHT = 6,
  NITI_PICTURE_SIDE_MAX = 16384
}; /* of a letter with its gaps, times the scale */

/* Colours are 0xRRGGBB. What lies outside the canvas is not drawn. */
typedef struct NitiPicture {
  int32_t width, height;
  uint8_t *rgb; /* [height][width][3] */
} NitiPicture;

/* A canvas of one colour, sides 1 .. NITI_PICTURE_SIDE_MAX; closed by niti_picture_close, which accepts a zeroed one. */
NitiStatus niti_picture_open(NitiPicture *out, int32_t width, int32_t height, uint32_t colour);
void niti_picture_close(NitiPicture *picture);
void niti_picture_fill(NitiPicture *picture, int32_t x, int32_t y, int32_t width, int32_t height, uint32_t colour);
/* The first `most` characters of a text in capitals; characters beyond ASCII are drawn as '?'. */
void niti_picture_text(NitiPicture *picture, int32_t x, int32_t y, int32_t scale, uint32_t colour, const char *text,
                       int32_t most);
/* pixels [height][width][channels], 1 or 3 channels, each as scale x scale pixels. */
void niti_picture_image(NitiPicture *picture, int32_t x, int32_t y, int32_t scale, const uint8_t *pixels, int32_t height,
                        int32_t width, int32_t channels);
/* The picture as a PNG file in new memory, which the caller frees. */
NitiStatus niti_picture_png(uint8_t **out, size_t *size, const NitiPicture *picture);

#endif

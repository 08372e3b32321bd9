/* Inside src/data: JPEG and PNG files -> uint8 pixels of a wanted size, with integers only. */
#ifndef NITI_DATA_IMAGE_H
#define NITI_DATA_IMAGE_H

#include "base/random.h"
#include "data/dataset.h"

typedef struct NitiImage {
  int32_t h, w, c; /* c: 1 (grey) or 3 (RGB) */
  uint8_t *pixels; /* [h][w][c]; freed by the caller */
} NitiImage;

enum { NITI_IMAGE_BYTES_MAX = 1 << 30 /* of a file */ };

/* Which window of the fitted and padded image: the middle one, or chosen by two random words; or a rectangle of the image itself,
 * chosen by four. */
typedef struct NitiWindow {
  bool centre, resized;
  uint32_t word_y, word_x;
  NitiWords words;
} NitiWindow;

/* Decodes a JPEG or PNG file of `size` bytes (the first bytes decide), at most 2^26 pixels; `name` is for messages.
 * Whatever the decoders find wrong that may have changed a pixel is an error, a file cut short included; a JPEG whose pixels are
 * all there is accepted (an unknown JFIF revision, bytes after the last scan, no end marker). EXIF orientation is applied, of
 * JPEG and PNG. Gamma and colour profiles are ignored, and so is transparency: the colour stored with it counts. 16-bit PNG
 * samples are rounded to 8 bits; CMYK becomes RGB as C * K / 255, rounded. channels 1: colour becomes grey (19595 R + 38470 G +
 * 7471 B + 32768) >> 16. channels 3: grey stays grey (out->c is 1). */
NitiStatus niti_image_decode(NitiImage *out, const uint8_t *bytes, size_t size, const char *name, int32_t channels);
/* The same of a file. */
NitiStatus niti_image_load(NitiImage *out, const char *path, int32_t channels);

/* Finds most files that niti_image_decode would refuse without decoding them: reads the header, and looks for the end of a JPEG
 * and for all chunks of a PNG with their checksums; a file that lacks these is decoded. Damage inside a JPEG is not seen. */
NitiStatus niti_image_glance(const uint8_t *bytes, size_t size, const char *name);
/* The same of a file. */
NitiStatus niti_image_glance_at(const char *path);

/* Scales an image and cuts the window `size` {1, H, W, C} out of it into out [H][W][C]; grey is repeated where C is 3. `path` is
 * for messages. C is 1 where image->c is 1 or 3 (then equal), or 3.
 *
 * The fitted size: STRETCH: H x W. CROP: with `resize` the short side becomes `resize`, the other side follows, rounded to
 * nearest; without, the smallest size of the same shape that covers H x W. The fitted image is padded with `pad` zero pixels on
 * each side and the window is cut as docs/arithmetic.md says ("Input and initial weights").
 *
 * A resized window: niti_rectangle of the image is scaled to H x W; fit, resize and pad do not count.
 *
 * Scaling, each axis by itself: base/scale.h. The one rounding, to nearest with ties up, is at the end. */
NitiStatus niti_image_fit(uint8_t *out, const NitiImage *image, const NitiDataOptions *options, NitiShape size, NitiWindow window,
                          const char *path);

/* niti_dataset_read of any window. grey: NULL, or receives the mean grey of the source image. */
NitiStatus niti_dataset_read_window(const NitiDataset *dataset, NitiSplit split, int64_t index, const NitiWindow *window,
                                    uint16_t *grey, uint8_t *out);

/* Whether images can be fitted so at all: H, W in range, C 1 or 3, and `resize` with padding not smaller than the window. */
NitiStatus niti_fit_check(const NitiDataOptions *options, NitiShape size);

#endif

/* EXIF orientation: one number out of a TIFF directory that anyone may have written, and the eight ways to turn an image. */
#include "data/exif.h"

#include <stddef.h>
#include <stdlib.h>

enum { HEADER = 8, ENTRY = 12, TAG_ORIENTATION = 0x112, TYPE_SHORT = 3, TILE = 32 };

typedef struct Tiff {
  const uint8_t *bytes;
  size_t size;
  bool big_endian;
} Tiff;

/* `count` bytes as a number; 0 where they are not all inside. */
static uint32_t number_at(const Tiff *tiff, size_t at, size_t count) {
  uint32_t value = 0;
  if (at > tiff->size || tiff->size - at < count) return 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | tiff->bytes[at + (tiff->big_endian ? i : count - 1 - i)];
  return value;
}

int niti_exif_orientation(const uint8_t *bytes, size_t size) {
  const Tiff tiff = {.bytes = bytes, .size = size, .big_endian = size > 0 && bytes[0] == 'M'};
  if (size < HEADER || bytes[0] != bytes[1] || (bytes[0] != 'M' && bytes[0] != 'I') || number_at(&tiff, 2, 2) != 42) return 1;
  const size_t directory = number_at(&tiff, 4, 4);
  const size_t entries = number_at(&tiff, directory, 2);
  for (size_t i = 0; i < entries; ++i) {
    const size_t at = directory + 2 + ENTRY * i;
    if (number_at(&tiff, at, 2) != TAG_ORIENTATION) continue;
    const uint32_t orientation = number_at(&tiff, at + 8, 2);
    const bool good = number_at(&tiff, at + 2, 2) == TYPE_SHORT && number_at(&tiff, at + 4, 4) == 1;
    return good && orientation >= 1 && orientation <= 8 ? (int)orientation : 1;
  }
  return 1;
}

/* out [h][w][c] from pixels that lie down and right apart (in bytes), tile by tile: a column's neighbours share cache lines. */
static void gather(uint8_t *out, NitiImage size, const uint8_t *first, ptrdiff_t down, ptrdiff_t right) {
  const size_t c = (size_t)size.c;
  for (int32_t left = 0; left < size.w; left += TILE) {
    const int32_t end = size.w - left < TILE ? size.w : left + TILE;
    for (int32_t y = 0; y < size.h; ++y) {
      uint8_t *to = out + ((size_t)y * (size_t)size.w + (size_t)left) * c;
      for (int32_t x = left; x < end; ++x, to += c) {
        const uint8_t *from = first + y * down + x * right;
        to[0] = from[0];
        if (c == 1) continue;
        to[1] = from[1];
        to[2] = from[2];
      }
    }
  }
}

NitiStatus niti_image_turn(NitiImage *image, int orientation, const char *path) {
  const bool swap = orientation >= 5;
  const bool mirror_rows = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool mirror_columns = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const ptrdiff_t c = image->c, stride = c * image->w;
  const ptrdiff_t row = mirror_rows ? -stride : stride, column = mirror_columns ? -c : c;
  const uint8_t *first = image->pixels + (mirror_rows ? stride * (image->h - 1) : 0) + (mirror_columns ? c * (image->w - 1) : 0);
  if (orientation == 1) return NITI_OK;
  NitiImage turned = {.h = swap ? image->w : image->h, .w = swap ? image->h : image->w, .c = image->c};
  turned.pixels = malloc((size_t)stride * (size_t)image->h);
  if (!turned.pixels) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for turning %dx%d pixels", path, image->h, image->w);
  gather(turned.pixels, turned, first, swap ? column : row, swap ? row : column);
  free(image->pixels);
  *image = turned;
  return NITI_OK;
}

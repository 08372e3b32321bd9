/* Colour jitter, inline, shared by every backend (C and CUDA): docs/arithmetic.md, "Augmentation". */
#ifndef NITI_BASE_COLOUR_H
#define NITI_BASE_COLOUR_H

#include "base/round.h"

enum { NITI_COLOUR_BITS = 11, NITI_FACTOR_BITS = 12, NITI_GREY_BITS = 8 };

/* A pixel v of grey y becomes (pixel * v + grey * y + offset) / 2^11, rounded and clipped. */
typedef struct NitiColours {
  int16_t pixel, grey;
  int32_t offset;
} NitiColours;

/* A factor of NITI_FACTOR_BITS fraction bits from a random word; strength in millionths, at most 10^6. */
NITI_INLINE int32_t niti_colour_factor(int32_t strength, uint32_t word) {
  const int32_t one = 1 << NITI_FACTOR_BITS, reach = (int32_t)(((int64_t)strength * one + 500000) / 1000000);
  return one - reach + (int32_t)(((uint64_t)word * (uint32_t)(2 * reach + 1)) >> 32);
}

/* Factors 0 .. 8192; mean: of the image's grey, NITI_GREY_BITS fraction bits. */
NITI_INLINE NitiColours niti_colours(int32_t brightness, int32_t contrast, int32_t saturation, uint16_t mean) {
  const int32_t one = 1 << NITI_FACTOR_BITS;
  const int64_t both = (int64_t)contrast * brightness, half = (int64_t)1 << 24, away = (int64_t)(one - contrast) * brightness;
  const NitiColours c = {(int16_t)((saturation * both + half) >> 25), (int16_t)(((one - saturation) * both + half) >> 25),
                         (int32_t)((away * mean + (1 << 20)) >> 21)};
  return c;
}

NITI_INLINE int32_t niti_grey(int32_t red, int32_t green, int32_t blue) {
  return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
}

NITI_INLINE uint8_t niti_coloured(NitiColours c, int32_t v, int32_t y) {
  const int16_t a = (int16_t)v, b = (int16_t)y; /* products and results of 16 bits: what vectors do best */
  const int32_t sum = c.pixel * a + c.grey * b + c.offset + (1 << (NITI_COLOUR_BITS - 1));
  const int16_t out = (int16_t)(sum >> NITI_COLOUR_BITS);
  return (uint8_t)(out < 0 ? 0 : out > 255 ? 255 : out);
}

#endif

/* What the example programs teach a network, on the board alone: which of four ways stripes run. The images are drawn here, so
 * no camera is needed; a program of yours takes them from one instead. C99 and C++. */
#ifndef LESSON_H
#define LESSON_H

#include "stripes.h"

enum { LESSON_STEPS = 400, LESSON_TESTS = 100, LESSON_FIRST_TEST = 1000000 };

/* Draws image n: stripes across, down, or along either diagonal, two pixels wide, somewhere, with noise. Returns its label. */
static uint16_t lesson_image(uint32_t n, uint8_t pixels[STRIPES_HEIGHT * STRIPES_WIDTH]) {
  uint32_t random = n * 2654435761u + 1u;
  const uint16_t label = (uint16_t)(n % STRIPES_CLASSES);
  const uint32_t start = random >> 16;
  uint32_t y, x;
  for (y = 0; y < STRIPES_HEIGHT; ++y) {
    for (x = 0; x < STRIPES_WIDTH; ++x) {
      const uint32_t at = label == 0 ? y : label == 1 ? x : label == 2 ? x + y : x + STRIPES_HEIGHT - y;
      random = random * 1664525u + 1013904223u;
      *pixels++ = (uint8_t)(((at + start) >> 1 & 1u ? 150u : 40u) + (random >> 26));
    }
  }
  return label;
}

/* How many of LESSON_TESTS images that training does not use are classified correctly. */
static int lesson_test(stripes *network) {
  static uint8_t pixels[STRIPES_HEIGHT * STRIPES_WIDTH];
  int right = 0;
  uint32_t n;
  for (n = LESSON_FIRST_TEST; n < LESSON_FIRST_TEST + LESSON_TESTS; ++n) {
    const uint16_t label = lesson_image(n, pixels);
    right += stripes_predict(network, pixels, 0) == label;
  }
  return right;
}

/* Training step n, with image n. */
static void lesson_step(stripes *network, uint32_t n) {
  static uint8_t pixels[STRIPES_HEIGHT * STRIPES_WIDTH];
  const uint16_t label = lesson_image(n, pixels);
  (void)stripes_train(network, pixels, &label, 1);
}

#endif

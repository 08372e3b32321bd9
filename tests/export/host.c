/* Trains an exported network on this machine: NET_H is its header, and NET(x) its name with _x.
 *
 *   host STEPS < BATCHES     BATCHES: of every step the number of images, labels (both uint16) and pixels, as they lie in memory
 *
 * Prints the hash of the weights, after each step where STEPS is 1 and at the end. BY_ROWS: a callback gives the images. */
#include NET_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t arena[(MAX(ARENA_BYTES) + 3) / 4];
static NETWORK network;

#ifdef BY_ROWS
/* Rows come in order; `at` counts them. */
typedef struct Rows {
  const uint8_t *pixels;
  int32_t at;
} Rows;

static void next_row(void *user, int32_t image, int32_t row, uint8_t *pixels) {
  Rows *rows = user;
  const int32_t length = MAX(WIDTH) * MAX(CHANNELS);
  if (rows->at != image * MAX(HEIGHT) + row) exit(2);
  memcpy(pixels, rows->pixels + length * rows->at++, (size_t)length);
}

static int32_t train(const uint8_t *pixels, const uint16_t *labels, int32_t n) {
  Rows rows = {pixels, 0};
  const int32_t correct = NET(train_rows)(&network, next_row, &rows, labels, n);
  return rows.at == n * MAX(HEIGHT) ? correct : -1;
}
#else
static int32_t train(const uint8_t *pixels, const uint16_t *labels, int32_t n) { return NET(train)(&network, pixels, labels, n); }
#endif

int main(int argc, char **argv) {
  static uint8_t pixels[MAX(BATCH) * MAX(HEIGHT) * MAX(WIDTH) * MAX(CHANNELS)];
  uint16_t labels[MAX(BATCH)], n;
  char hash[65];
  const int every = argc > 1 && atoi(argv[1]) == 1;
  NET(init)(&network, arena);
  while (fread(&n, sizeof n, 1, stdin) == 1) {
    const size_t image = sizeof pixels / MAX(BATCH);
    if (n > MAX(BATCH) || fread(labels, sizeof *labels, n, stdin) != n || fread(pixels, image, n, stdin) != n) return 1;
    if (train(pixels, labels, n) < 0) return 1;
    NET(hash)(&network, hash);
    if (every) puts(hash);
  }
  NET(hash)(&network, hash);
  puts(hash);
  return 0;
}

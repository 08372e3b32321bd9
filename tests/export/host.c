/* Trains an exported network on this machine: NET_H is its header, and NET(x) its name with _x.
 *
 *   host STEPS < BATCHES     BATCHES: of every step the number of images, labels (both uint16) and pixels, as they lie in memory
 *
 * Prints the hash of the weights, after each step where STEPS is 1 and at the end. */
#include NET_H

#include <stdio.h>
#include <stdlib.h>

static int32_t arena[(MAX(ARENA_BYTES) + 3) / 4];
static NETWORK network;

int main(int argc, char **argv) {
  static uint8_t pixels[MAX(BATCH) * MAX(HEIGHT) * MAX(WIDTH) * MAX(CHANNELS)];
  uint16_t labels[MAX(BATCH)], n;
  char hash[65];
  const int every = argc > 1 && atoi(argv[1]) == 1;
  NET(init)(&network, arena);
  while (fread(&n, sizeof n, 1, stdin) == 1) {
    const size_t image = sizeof pixels / MAX(BATCH);
    if (n > MAX(BATCH) || fread(labels, sizeof *labels, n, stdin) != n || fread(pixels, image, n, stdin) != n) return 1;
    if (NET(train)(&network, pixels, labels, n) < 0) return 1;
    NET(hash)(&network, hash);
    if (every) puts(hash);
  }
  NET(hash)(&network, hash);
  puts(hash);
  return 0;
}

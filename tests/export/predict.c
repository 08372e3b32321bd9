/* Predicts with an exported network on this machine: NET_H is its header, and NET(x) its name with _x.
 *
 *   predict < IMAGES     one after another, as they lie in memory
 *
 * Prints the hash of the weights, and a line for each image: the class and the logits. */
#include NET_H

#include <stdio.h>

static int32_t arena[(MAX(ARENA_BYTES) + 3) / 4];
static NETWORK network;

int main(void) {
  static uint8_t pixels[MAX(HEIGHT) * MAX(WIDTH) * MAX(CHANNELS)];
  int8_t logits[MAX(CLASSES)];
  char hash[65];
  int i;
  NET(init)(&network, arena);
  NET(hash)(&network, hash);
  puts(hash);
  while (fread(pixels, sizeof pixels, 1, stdin) == 1) {
    printf("%d", (int)NET(predict)(&network, pixels, logits));
    for (i = 0; i < MAX(CLASSES); ++i) printf(" %d", logits[i]);
    putchar('\n');
  }
  return 0;
}

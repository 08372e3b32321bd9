/* Learns on the board, and prints how well, and the hash of the weights: to whatever printf is retargeted to. */
#include <stdio.h>

#include "lesson.h"

static stripes network;
static int32_t arena[STRIPES_ARENA_BYTES / 4];

int main(void) {
  char hash[65];
  uint32_t n;
  stripes_init(&network, arena);
  printf("before: %d of 100 right\n", lesson_test(&network));
  for (n = 0; n < LESSON_STEPS; ++n) lesson_step(&network, n);
  printf("after: %d of 100 right\n", lesson_test(&network));
  stripes_hash(&network, hash);
  printf("%s\n", hash);
  return 0;
}

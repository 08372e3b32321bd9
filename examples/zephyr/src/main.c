/* Learns on the board, and prints how well, and the hash of the weights. */
#include <zephyr/kernel.h>

#include "lesson.h"

static stripes network;
static int32_t arena[STRIPES_ARENA_BYTES / 4];

int main(void) {
  char hash[65];
  uint32_t n;
  stripes_init(&network, arena);
  printk("before: %d of 100 right\n", lesson_test(&network));
  for (n = 0; n < LESSON_STEPS; ++n) lesson_step(&network, n);
  printk("after: %d of 100 right\n", lesson_test(&network));
  stripes_hash(&network, hash);
  printk("%s\n", hash);
  return 0;
}

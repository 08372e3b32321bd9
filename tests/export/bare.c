/* Trains an exported network on an emulated board, and measures the memory that is really used. feed.h has the steps: FEED_STEPS,
 * feed_n, feed_labels, feed_order, feed_pixels. Prints hash HASH; stack BYTES; count predict N; count train N (instructions, of
 * the last image and step) and, from a second start with saved state, "saved" if the hash is the same. */
#include NET_H
#include "bare.h"

#include "feed.h"

__attribute__((noinline)) static void paint_stack(void) {
  volatile uint32_t *p = bare_stack_low;
  volatile uint32_t here;
  for (; p < &here - 8; ++p) *p = 0xdeadbeef;
}

static uint32_t painted_away(void) {
  const volatile uint32_t *p = bare_stack_low;
  while (p < bare_stack_top && *p == 0xdeadbeef) ++p;
  return (uint32_t)((const uint8_t *)bare_stack_top - (const uint8_t *)p);
}

/* user: the numbers of the step's images. */
static void feed_row(void *user, int32_t image, int32_t row, uint8_t *pixels) {
  const uint16_t *order = user;
  const size_t length = (size_t)(MAX(WIDTH) * MAX(CHANNELS));
  memcpy(pixels, feed_pixels + ((size_t)order[image] * MAX(HEIGHT) + (size_t)row) * length, length);
}

static NETWORK network;
static int32_t arena[(MAX(ARENA_BYTES) + 3) / 4];

int main(void) {
  const uint8_t *own = feed_labels;
  const uint16_t *order = feed_order;
  const uint8_t *pixels = feed_pixels;
  uint16_t labels[MAX(BATCH)];
  char hash[66];
  int i, n;
#ifndef NO_PAINT
  paint_stack();
#endif
  NET(init)(&network, arena);
  (void)NET(predict)(&network, pixels, 0); /* predicts shifts from the second time on */
  counter_start();
  (void)NET(predict)(&network, pixels, 0);
  print_number("predict ", counter_ticks());
  for (i = 0; i < FEED_STEPS; ++i) {
    for (n = 0; n < feed_n[i]; ++n) labels[n] = *own++;
    counter_start();
    if (NET(train_rows)(&network, feed_row, (void *)(uintptr_t)order, labels, feed_n[i]) < 0) print("refused\n");
    if (i == FEED_STEPS - 1) print_number("train ", counter_ticks());
    order += feed_n[i];
  }
#ifndef NO_PAINT
  print_number("stack ", painted_away());
#endif
  NET(hash)(&network, hash);
  hash[64] = '\n';
  hash[65] = 0;
  print("hash ");
  print(hash);
  return 0;
}

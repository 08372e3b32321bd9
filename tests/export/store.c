/* Cuts the power at every byte of a save: the slots hold two whole states, and the third save stops after `limit` bytes. Whatever
 * it is, load must find the second state or the third, with its step, and saving must work again. Prints how many cuts it made.
 */
#include NET_H

#include <stdio.h>
#include <string.h>

static uint8_t slots[2][MAX(SLOT_BYTES)];
static long limit; /* bytes until the power fails */
static int32_t arena[(MAX(ARENA_BYTES) + 3) / 4];

static long reads = -1; /* until one fails; below 0: none does */

static int read_slot(void *user, int slot, uint32_t offset, void *data, uint32_t size) {
  (void)user;
  if (reads >= 0 && reads-- == 0) return 1;
  if (offset + size > sizeof slots[slot]) return 1;
  memcpy(data, slots[slot] + offset, size);
  return 0;
}

static uint32_t written[2]; /* each byte of a slot is written once, in ascending order, in whole units of the flash */
enum { UNIT = 32 };

static int write_slot(void *user, int slot, uint32_t offset, const void *data, uint32_t size) {
  (void)user;
  if (offset == 0) written[slot] = 0;
  if (offset != written[slot] || offset + size > sizeof slots[slot] || offset % UNIT != 0 || size % UNIT != 0) {
    puts("a write that is not of whole units");
    return 1;
  }
  written[slot] += size;
  for (uint32_t i = 0; i < size; ++i, --limit) {
    if (limit == 0) return 1;
    slots[slot][offset + i] = ((const uint8_t *)data)[i];
  }
  return 0;
}

static int fail(const char *what, long cut) {
  printf("%s at a cut after %ld bytes\n", what, cut);
  return 1;
}

int main(void) {
  static uint8_t pixels[MAX(BATCH) * MAX(HEIGHT) * MAX(WIDTH) * MAX(CHANNELS)], before[2][MAX(SLOT_BYTES)];
  static NETWORK network, second, third, found;
  uint16_t label[MAX(BATCH)] = {1};
  char hashes[3][65];
  for (size_t i = 0; i < sizeof pixels; ++i) pixels[i] = (uint8_t)(i * i * 7 + i);
  memset(slots, 0xff, sizeof slots);
  NET(init)(&network, arena);
  if (NET(load)(&network, read_slot, NULL) != -1) return fail("an empty slot was loaded", 0);
  for (int k = 0; k < 3; ++k) {
    if (NET(train)(&network, pixels, label, 1) < 0) return 1;
    network.mu = 5 + k;
    label[0] = (uint16_t)(k & 1);
    limit = -1;
    if (k == 1) second = network;
    if (k == 2) third = network;
    if (k < 2 && NET(save)(&network, read_slot, write_slot, NULL) != 0) return fail("save", k);
  }
  NET(hash)(&second, hashes[1]);
  NET(hash)(&third, hashes[2]);
  if (strcmp(hashes[1], hashes[2]) == 0) return fail("nothing was learned", 0);
  memcpy(before, slots, sizeof slots);
  long cut = 0, ended = 0;
  for (; cut <= (long)MAX(SLOT_BYTES); ++cut) {
    memcpy(slots, before, sizeof slots);
    limit = cut;
    const int whole = NET(save)(&third, read_slot, write_slot, NULL) == 0;
    NET(init)(&found, arena);
    if (NET(load)(&found, read_slot, NULL) != 0) return fail("nothing was loaded", cut);
    NET(hash)(&found, hashes[0]);
    const NETWORK *expected = found.step == third.step ? &third : &second;
    if (whole && expected != &third) return fail("the new state was lost", cut);
    if (strcmp(hashes[0], hashes[expected == &third ? 2 : 1]) != 0 || found.step != expected->step || found.mu != expected->mu ||
        found.seed != expected->seed)
      return fail("another state", cut);
    ended += expected == &third;
    limit = -1;
    if (NET(save)(&third, read_slot, write_slot, NULL) != 0 || NET(load)(&found, read_slot, NULL) != 0 ||
        found.step != third.step)
      return fail("saving again", cut);
  }
  /* Whichever read fails, a save says so and leaves both slots alone. */
  for (long k = 0;; ++k) {
    memcpy(slots, before, sizeof slots);
    reads = k;
    const int failed = NET(save)(&third, read_slot, write_slot, NULL) != 0, all = reads >= 0;
    reads = -1;
    if (all && !failed) break; /* there are no more reads */
    if (!failed || memcmp(slots, before, sizeof slots) != 0) return fail("a read failed, and a save went on", k);
  }
  /* A single byte that is wrong anywhere makes the slot worthless, and the other one is taken. */
  for (long at = 0; at < (long)MAX(SLOT_BYTES); ++at) {
    memcpy(slots, before, sizeof slots);
    slots[1][at] ^= 1;
    if (NET(load)(&found, read_slot, NULL) != 0 || found.step == second.step) return fail("a damaged slot", at);
  }
  printf("%ld cuts\n", cut);
  return ended >= 1 ? 0 : fail("the new state never came", cut);
}

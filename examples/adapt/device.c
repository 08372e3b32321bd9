/* What the firmware does, on this machine: trains on what comes, saves its state, and tells the hash of its weights. On a board, `slots` is flash, and images
 * come from a sensor: camera_train_rows asks for them row by row. */
#include "camera.h"

#include <stdio.h>
#include <string.h>

static camera network;
static int32_t arena[(CAMERA_ARENA_BYTES + 3) / 4];
static uint8_t slots[2][CAMERA_SLOT_BYTES];

static int read_slot(void *user, int slot, uint32_t offset, void *data, uint32_t size) {
  (void)user;
  memcpy(data, slots[slot] + offset, size);
  return 0;
}

static int write_slot(void *user, int slot, uint32_t offset, const void *data, uint32_t size) {
  (void)user;
  memcpy(slots[slot] + offset, data, size);
  return 0;
}

int main(int argc, char **argv) {
  static uint8_t pixels[CAMERA_BATCH * CAMERA_HEIGHT * CAMERA_WIDTH * CAMERA_CHANNELS];
  uint16_t labels[CAMERA_BATCH], n;
  char hash[65];
  FILE *dump = argc > 1 ? fopen(argv[1], "wb") : NULL;
  camera_init(&network, arena);
  if (camera_load(&network, read_slot, NULL) != 0) network.mu = 2; /* nothing was saved: begin gently from the exported weights */
  while (fread(&n, sizeof n, 1, stdin) == 1) {
    if (n > CAMERA_BATCH || fread(labels, sizeof *labels, n, stdin) != n || fread(pixels, sizeof pixels / CAMERA_BATCH, n, stdin) != n) return 1;
    if (camera_train(&network, pixels, labels, n) < 0) return 1;
  }
  if (camera_save(&network, read_slot, write_slot, NULL) != 0) return 1;
  if (!dump || fwrite(slots, 1, sizeof slots, dump) != sizeof slots || fclose(dump) != 0) return 1;
  camera_hash(&network, hash);
  puts(hash);
  return 0;
}

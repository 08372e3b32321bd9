/* Writes one file of each format, for the Python tests to open with other people's readers; reads a checkpoint back.
 *   write_formats write FOLDER      checkpoint.safetensors, metrics.* and event files (values: see the tests)
 *   write_formats hash CHECKPOINT   prints the hash of a checkpoint that loads, or why it does not (exit 1) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint.h"
#include "io/events.h"
#include "io/log.h"
#include "io/picture.h"
#include "platform/path.h"

static NitiStatus write_checkpoint(const char *path) {
  static int8_t conv[4 * 3 * 3 * 3], fc[10 * 7];
  static int16_t wide[3] = {-300, 0, 32767};
  static int64_t running[2] = {INT64_MIN, INT64_MAX};
  static int32_t state[2] = {INT32_MIN, INT32_MAX};
  NitiCheckpoint *checkpoint;
  for (size_t i = 0; i < sizeof conv; ++i) conv[i] = (int8_t)((int)(i * 37 % 255) - 127);
  for (size_t i = 0; i < sizeof fc; ++i) fc[i] = (int8_t)((int)(i * 11 % 255) - 127);
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  NITI_TRY(niti_checkpoint_add(checkpoint, "fc.weight", NITI_I8, 2, (const uint32_t[]){10, 7}, -6, fc));
  NITI_TRY(niti_checkpoint_add(checkpoint, "conv.weight", NITI_I8, 4, (const uint32_t[]){4, 3, 3, 3}, -8, conv));
  NITI_TRY(niti_checkpoint_add(checkpoint, "wide", NITI_I16, 1, (const uint32_t[]){3}, 2, wide));
  NITI_TRY(niti_checkpoint_add(checkpoint, "running", NITI_I64, 1, (const uint32_t[]){2}, 0, running));
  NITI_TRY(niti_checkpoint_add(checkpoint, "state", NITI_I32, 1, (const uint32_t[]){2}, 0, state));
  NITI_TRY(niti_checkpoint_set(checkpoint, "model", "name: caf\xc3\xa9\n"));
  NITI_TRY(niti_checkpoint_set(checkpoint, "recipe", "batch: 64\n\t\"quoted\"\n"));
  NITI_TRY(niti_checkpoint_set(checkpoint, "seed", "18446744073709551615"));
  NITI_TRY(niti_checkpoint_save(checkpoint, path));
  niti_checkpoint_close(checkpoint);
  return NITI_OK;
}

/* Grey 5x2 in a frame, and a letter beyond the edge. */
static NitiStatus write_picture(NitiEvents *events) {
  NitiPicture picture;
  const uint8_t grey[2] = {17, 200};
  uint8_t *png;
  size_t size;
  NITI_TRY(niti_picture_open(&picture, 20, 10, 0x102030));
  niti_picture_image(&picture, 2, 3, 2, grey, 1, 2, 1);
  niti_picture_text(&picture, 8, 1, 1, 0xff0000, "l\xc3\xa9", 2);
  niti_picture_text(&picture, 18, 8, 3, 0x00ff00, "X", 1);
  NitiStatus status = niti_picture_png(&png, &size, &picture);
  if (status == NITI_OK) status = niti_events_image(events, "picture", 3, png, size, picture.width, picture.height, 3);
  if (status == NITI_OK) free(png);
  niti_picture_close(&picture);
  return status;
}

static NitiStatus write_settings(NitiEvents *events) {
  const NitiSetting settings[] = {{"batch", "64", true}, {"rate", "-0.25", true}, {"flip", "true", true}, {"loss", "niti", true},
                                  {"name", "64", false}, {"odd", "1.2.3", true},  {"mu", "[4, 3]", false}};
  NITI_TRY(niti_events_text(events, "recipe", 0, "```yaml\nname: caf\xc3\xa9\n```\n"));
  NITI_TRY(niti_events_settings(events, settings, sizeof settings / sizeof *settings));
  return niti_events_success(events);
}

/* Scalar a = step / 4 for steps 0..9 and one histogram; then, as a resumed run, from step 6 on a = 100 + step for 6..7. */
static NitiStatus write_events(const char *folder) {
  NitiEvents *events;
  int64_t counts[NITI_EVENTS_BINS] = {0};
  counts[127 - 127] = 1;
  counts[127 - 2] = 3;
  counts[127 + 0] = 10;
  counts[127 + 5] = 6;
  NITI_TRY(niti_events_open(&events, folder));
  NITI_TRY(niti_events_start(events, 0));
  for (int64_t step = 0; step < 10; ++step) NITI_TRY(niti_events_ratio(events, "train/a", step, step, 4));
  NITI_TRY(niti_events_scalar(events, "b", INT64_C(1) << 40, -1.5));
  NITI_TRY(niti_events_histogram(events, "weights/conv", 2, counts, -3));
  NITI_TRY(write_picture(events));
  NITI_TRY(write_settings(events));
  NITI_TRY(niti_events_close(events));
  NITI_TRY(niti_events_open(&events, folder));
  NITI_TRY(niti_events_start(events, 6));
  for (int64_t step = 6; step < 8; ++step) NITI_TRY(niti_events_scalar(events, "train/a", step, (double)(100 + step)));
  return niti_events_close(events);
}

static NitiStatus write_log(const char *folder) {
  NitiLog *log;
  const char *const keys[] = {"epoch", "accuracy", "note"};
  NITI_TRY(niti_log_open(&log, folder, -1, keys, 3));
  for (int64_t epoch = 1; epoch <= 3; ++epoch) {
    const NitiField row[] = {niti_field_integer("epoch", epoch), niti_field_ratio("accuracy", 100 * epoch, 7, 3),
                             niti_field_integer("note", -epoch)};
    NITI_TRY(niti_log_row(log, row, sizeof row / sizeof *row));
  }
  niti_log_close(log);
  return NITI_OK;
}

static NitiStatus write_all(const char *folder) {
  char *path;
  NITI_TRY(niti_path_join(&path, folder, "checkpoint.safetensors"));
  const NitiStatus status = write_checkpoint(path);
  free(path);
  if (status != NITI_OK) return status;
  NITI_TRY(write_log(folder));
  return write_events(folder);
}

static NitiStatus print_hash(const char *path) {
  NitiCheckpoint *checkpoint;
  char text[65];
  NITI_TRY(niti_checkpoint_load(&checkpoint, path));
  const NitiStatus status = niti_checkpoint_hash(checkpoint, text);
  niti_checkpoint_close(checkpoint);
  if (status == NITI_OK) (void)puts(text);
  return status;
}

int main(int count, char **arguments) {
  NitiStatus status = NITI_ERROR_ARGUMENT;
  if (count == 3 && !strcmp(arguments[1], "write"))
    status = write_all(arguments[2]);
  else if (count == 3 && !strcmp(arguments[1], "hash"))
    status = print_hash(arguments[2]);
  else
    (void)fputs("usage: write_formats write FOLDER | hash CHECKPOINT\n", stderr);
  if (status != NITI_OK) (void)fprintf(stderr, "%s\n", niti_error());
  return status == NITI_OK ? 0 : 1;
}

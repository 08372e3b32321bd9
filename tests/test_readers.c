/* Readers of images, image folders and logs: what no other test has. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "data/image.h"
#include "data_open.h"
#include "io/log.h"

static void refused(NitiStatus status, NitiStatus expected, const char *a, const char *b) {
  check_error((int)status, (int)expected, niti_error(), a, b);
}

/* ---- JPEG ---- */

/* Where the segment with this marker begins. */
static size_t find_segment(const uint8_t *bytes, size_t size, uint8_t marker) {
  size_t at = 2;
  while (at + 4 < size && bytes[at + 1] != marker) at += 2 + ((size_t)bytes[at + 2] << 8 | bytes[at + 3]);
  assert_true(at + 4 < size && bytes[at] == 0xff);
  return at;
}

static void decode_one(uint8_t rgb[3], const uint8_t *bytes, size_t size) {
  uint8_t pixels[8 * 8 * 3];
  if (niti_image_read_bytes(bytes, size, "photo", NULL, (NitiShape){1, 8, 8, 3}, pixels) != NITI_OK) fail_msg("%s", niti_error());
  memcpy(rgb, pixels, 3);
}

static void check_colour(const uint8_t rgb[3], int r, int g, int b) {
  if (abs(rgb[0] - r) > 3 || abs(rgb[1] - g) > 3 || abs(rgb[2] - b) > 3) fail_msg("%d %d %d", rgb[0], rgb[1], rgb[2]);
}

/* Four inks, by Adobe's marker inverted; as lightness and colours by its last byte; without the marker as they are. */
static void inks_of_jpegs(void **state) {
  (void)state;
  enum { ADOBE = 0xee, ADOBE_BYTES = 16 };
  char *dir = make_temp();
  const char *path = path_of("%s/x.jpg", dir);
  uint8_t pixels[8 * 8 * 4], rgb[3];
  size_t size;
  for (int i = 0; i < 64; ++i) memcpy(pixels + 4 * i, (const uint8_t[]){255, 102, 0, 128}, 4);
  put_jpeg(path, 8, 8, 4, pixels);
  uint8_t *bytes = get_file(path, &size);
  const size_t at = find_segment(bytes, size, ADOBE);
  decode_one(rgb, bytes, size);
  check_colour(rgb, 128, 51, 0);
  bytes[at + ADOBE_BYTES - 1] = 2;
  decode_one(rgb, bytes, size);
  /* Y 255, Cb 102, Cr 0 are R 76, G 255, B 209, whose complements are the inks */
  check_colour(rgb, (255 - 76) * 128 / 255, 0, (255 - 209) * 128 / 255);
  memmove(bytes + at, bytes + at + ADOBE_BYTES, size - at - ADOBE_BYTES);
  decode_one(rgb, bytes, size - ADOBE_BYTES);
  check_colour(rgb, 0, (255 - 102) * 127 / 255, 127);
  free(bytes);
  remove_temp(dir);
}

/* APP1 segments that are not EXIF's, or shorter than they say. */
static void segments_of_jpegs(void **state) {
  (void)state;
  static const uint8_t small[] = {0xff, 0xe1, 0, 5, 'E', 'x', 'i'},
                       other[] = {0xff, 0xe1, 0, 10, 'h', 't', 't', 'p', ':', '/', '/', 0}, none[] = {0xff, 0xe1, 0, 2};
  static const struct {
    const uint8_t *bytes;
    size_t count;
  } segments[] = {{small, sizeof small}, {other, sizeof other}, {none, sizeof none}};
  char *dir = make_temp();
  const char *path = path_of("%s/x.jpg", dir);
  uint8_t pixels[64], rgb[3];
  size_t size;
  memset(pixels, 77, sizeof pixels);
  put_jpeg(path, 8, 8, 1, pixels);
  uint8_t *bytes = get_file(path, &size), *longer = malloc(size + 12);
  assert_non_null(longer);
  for (size_t i = 0; i < 3; ++i) {
    const size_t count = segments[i].count;
    memcpy(longer, bytes, 2);
    memcpy(longer + 2, segments[i].bytes, count);
    memcpy(longer + 2 + count, bytes + 2, size - 2);
    decode_one(rgb, longer, size + count);
    check_colour(rgb, 77, 77, 77);
  }
  memcpy(longer,
         "\xff\xd8\xff\xe1\xff\xff"
         "Exif\0\0II",
         14); /* longer than the file */
  for (size_t n = 3; n <= 14; ++n)
    refused(niti_image_read_bytes(longer, n, "photo", NULL, (NitiShape){1, 8, 8, 3}, pixels), NITI_ERROR_FORMAT, "photo", "JPEG");
  free(longer);
  free(bytes);
  remove_temp(dir);
}

static void requests_that_are_refused(void **state) {
  (void)state;
  const NitiShape size = {1, 8, 8, 1}, flat = {1, 0, 8, 1};
  const NitiDataOptions bad = {.pad = -1}, good = {.pad = 1};
  char *dir = make_temp();
  const char *path = path_of("%s/x.png", dir);
  uint8_t pixels[64] = {9};
  size_t bytes_size;
  put_png(path, 8, 8, 1, pixels);
  uint8_t *bytes = get_file(path, &bytes_size);
  refused(niti_image_read(path, &bad, size, pixels), NITI_ERROR_ARGUMENT, "pad", "-1");
  refused(niti_image_read_bytes(bytes, bytes_size, "x", &bad, size, pixels), NITI_ERROR_ARGUMENT, "pad", "-1");
  refused(niti_image_read_bytes(bytes, bytes_size, "x", NULL, flat, pixels), NITI_ERROR_ARGUMENT, "0x8", "1 to 16384");
  refused(niti_image_read_bytes(bytes, 7, "x", NULL, size, pixels), NITI_ERROR_FORMAT, "x", "neither a JPEG nor a PNG");
  assert_int_equal(niti_image_read_bytes(bytes, bytes_size, "x", &good, size, pixels), NITI_OK);
  free(bytes);
  remove_temp(dir);
}

/* ---- image folders ---- */

static void no_image_that_gives_a_size(void **state) {
  (void)state;
  char *dir = make_temp();
  put_dir(path_of("%s/train", dir));
  put_dir(path_of("%s/train/a", dir));
  put_file(path_of("%s/train/a/1.png", dir), "no image", 8);
  put_file(path_of("%s/train/a/2.png", dir), "", 0);
  NitiDataset *set;
  const NitiDataRequest request = {.need = NITI_SPLIT_BIT(NITI_TRAIN)};
  refused(niti_dataset_open(&set, dir, &(NitiDataOptions){.kind = NITI_DATA_FOLDER}, &request), NITI_ERROR_FORMAT,
          path_of("%s/train/a/2.png", dir), "it is empty");
  remove_temp(dir);
}

/* ---- logs ---- */

/* Continues a log after epoch 9: `csv` is set aside with a note that says this; NULL: `kept` bytes of it stay, and at most a note
 * that later rows are missing. */
static void continue_rows(const char *dir, const char *const *keys, size_t count, const char *csv, size_t kept,
                          const char *says) {
  NitiLog *log;
  put_file(path_of("%s/metrics.csv", dir), csv, strlen(csv));
  put_file(path_of("%s/metrics.jsonl", dir), "{\"epoch\": 9}\n", 13);
  if (niti_log_open(&log, dir, 9, keys, count) != NITI_OK) fail_msg("%s", niti_error());
  const char *note = niti_log_note(log, 0);
  if (says ? !note || !strstr(note, says) : note && !strstr(note, "metrics.csv: the rows of the last epochs up to epoch 9"))
    fail_msg("'%s': '%s'", csv, note ? note : "");
  niti_log_close(log);
  size_t size;
  uint8_t *bytes = get_file(path_of("%s/metrics.csv", dir), &size);
  assert_int_equal(size, kept);
  assert_memory_equal(bytes, csv, kept);
  free(bytes);
}

static void epochs_of_logs(void **state) {
  (void)state;
  static const char *const late[] = {"loss", "epochs", "epoch"}, *const alone[] = {"epoch"};
  char *dir = make_temp();
  continue_rows(dir, late, 3, "loss,epochs,epoch\n7,8,1\n", 24, NULL); /* not the first column, nor one that begins so */
  continue_rows(dir, late, 3, "loss,epochs,epoch\n1,1,\n", 0, "record 2");
  continue_rows(dir, alone, 1, "epoch\n1\n2\n", 10, NULL);
  continue_rows(dir, alone, 1, "epoch\n1\n\n", 8, NULL); /* a blank line at the end is no row */
  continue_rows(dir, alone, 1, "epoch\n1\n\n2\n", 0, "record 3");
  continue_rows(dir, alone, 1, "epoch\n99999999999999999999\n", 0, "record 2"); /* 2^63 and more */
  continue_rows(dir, alone, 1, "epoch\n000000000000000000000000001\n", 0, "record 2");
  continue_rows(dir, alone, 1, "epoch\n8\n9", 8, NULL); /* of which a digit may be missing */
  continue_rows(dir, late, 3, "loss,epochs,epoch\n7,8,8\n7,8,9", 24, NULL);
  continue_rows(dir, alone, 1, "epoch\n9\n10\x7f\n", 8, NULL);       /* torn, and not wanted */
  continue_rows(dir, alone, 1, "epoch\n8\n10\x7f\n", 0, "record 3"); /* 9 might be in it */
  const NitiField fewer[] = {niti_field_integer("epoch", 1), {.key = "a", .kind = NITI_FIELD_DECIMAL, .digits = -1}};
  const NitiField ratio[] = {{.key = "epoch", .kind = NITI_FIELD_DECIMAL, .digits = 2}};
  NitiLog *log;
  (void)unlink(path_of("%s/metrics.csv", dir));
  assert_int_equal(niti_log_open(&log, dir, -1, alone, 1), NITI_OK);
  refused(niti_log_row(log, fewer, 2), NITI_ERROR_ARGUMENT, "'a'", "-1 decimals");
  refused(niti_log_row(log, ratio, 1), NITI_ERROR_ARGUMENT, "log", "an integer `epoch`");
  niti_log_close(log);
  niti_log_close(NULL);
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(inks_of_jpegs),
      cmocka_unit_test(segments_of_jpegs),
      cmocka_unit_test(requests_that_are_refused),
      cmocka_unit_test(no_image_that_gives_a_size),
      cmocka_unit_test(epochs_of_logs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

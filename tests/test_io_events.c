/* Event files: framing, the order of their names, failures, and what a report writes into them. */
#include "io/events.h"
#include "io_test.h"
#include "train/report.h"

/* ---- events.h ----------------------------------------------------------------------------------------------------- */

/* The check values that the CRC catalogues and RFC 3720 (B.4) give for CRC-32C. */
static void test_crc32c(void **state) {
  (void)state;
  uint8_t bytes[32] = {0};
  assert_int_equal(niti_crc32c("", 0), 0);
  assert_int_equal(niti_crc32c("123456789", 9), 0xe3069283u);
  assert_int_equal(niti_crc32c(bytes, 32), 0x8a9136aau);
  memset(bytes, 255, sizeof bytes);
  assert_int_equal(niti_crc32c(bytes, 32), 0x62a8ab43u);
  for (uint8_t i = 0; i < 32; ++i) bytes[i] = i;
  assert_int_equal(niti_crc32c(bytes, 32), 0x46dd794eu);
}

/* The path of the only (index 0) or later event file, in order of names. */
static void event_path(char path[600], int index) {
  struct dirent **entries;
  const int count = scandir(folder, &entries, NULL, alphasort);
  assert_true(count > index + 2);
  (void)snprintf(path, 600, "%s/%s", folder, entries[index + 2]->d_name); /* after . and .. */
  for (int i = 0; i < count; ++i) free(entries[i]);
  free(entries);
}

static uint64_t little(const char *bytes, int count) {
  uint64_t value = 0;
  for (int i = 0; i < count; ++i) value |= (uint64_t)(uint8_t)bytes[i] << (8 * i);
  return value;
}

static uint32_t unmask(uint64_t masked) {
  const uint32_t rotated = (uint32_t)masked - 0xa282ead8u;
  return (rotated >> 17) | (rotated << 15);
}

static void test_event_frames(void **state) {
  (void)state;
  NitiEvents *events;
  int64_t counts[NITI_EVENTS_BINS] = {0};
  check_ok(niti_events_open(&events, folder));
  check_ok(niti_events_start(events, 0));
  check_ok(niti_events_scalar(events, "a", 1, 0.5));
  check_ok(niti_events_ratio(events, "a", 2, 1, 0));          /* nothing */
  check_ok(niti_events_histogram(events, "h", 3, counts, 0)); /* nothing */
  counts[254] = 1;
  check_ok(niti_events_histogram(events, "h", 3, counts, 0));
  check_ok(niti_events_close(events));
  char path[600];
  size_t size, frames = 0;
  event_path(path, 0);
  char *bytes = get_file(path, &size);
  for (size_t i = 0; i < size; ++frames) {
    assert_true(size - i >= 16);
    const size_t length = (size_t)little(bytes + i, 8);
    assert_true(length <= size - i - 16);
    assert_int_equal(unmask(little(bytes + i + 8, 4)), niti_crc32c(bytes + i, 8));
    assert_int_equal(unmask(little(bytes + i + 12 + length, 4)), niti_crc32c(bytes + i + 12, length));
    if (frames == 0) assert_non_null(find_bytes(bytes + i + 12, length, "brain.Event:2"));
    i += length + 16;
  }
  assert_int_equal(frames, 4);
  free(bytes);
}

/* A run that is resumed at once gets a second file, which sorts after the first. */
static void test_event_files_sort(void **state) {
  (void)state;
  NitiEvents *events;
  char paths[3][600];
  for (int i = 0; i < 3; ++i) {
    check_ok(niti_events_open(&events, folder));
    check_ok(niti_events_start(events, 1000 + i));
    if (i == 2) check_ok(niti_events_start(events, 1));
    check_ok(niti_events_close(events));
    assert_int_equal(count_files(), i + 1);
  }
  for (int i = 0; i < 3; ++i) event_path(paths[i], i);
  struct stat first, last;
  assert_int_equal(stat(paths[0], &first), 0);
  assert_int_equal(stat(paths[2], &last), 0);
  assert_true(last.st_size > first.st_size);
}

static void test_event_errors(void **state) {
  (void)state;
  NitiEvents *events;
  check_fails(niti_events_open(&events, at("none")), NITI_ERROR_FILE, at("none"), strerror(ENOENT));
  check_ok(niti_events_open(&events, folder));
  check_ok(niti_events_scalar(events, "a", 1, 1));
  limit_file_size(10);
  const NitiStatus flushed = niti_events_flush(events);
  limit_file_size(RLIM_INFINITY);
  check_fails(flushed, NITI_ERROR_FILE, "events.out.tfevents", strerror(EFBIG));
  (void)niti_events_close(events);
}

/* ---- report.h ----------------------------------------------------------------------------------------------------- */

/* 2^31-1 images, the most that a score counts, times 65536 are no 64 bits in millionths. */
static void test_mean_of_very_many_images(void **state) {
  (void)state;
  static const char tag[] = "loss/train_steps\x15"; /* and a float */
  const NitiStepRow row = {.step = 1, .since = {.loss = (int64_t)1 << 42, .images = INT32_MAX}};
  NitiRecipe *recipe = NULL;
  NitiReport *report;
  check_ok(niti_recipe_parse(&recipe, "name: t\nmodel: lenet5\ndata: {kind: idx}\nepochs: 1\nupdate: {kind: niti, mu: 3}\n",
                             "t.yaml", NULL, 0, NULL));
  check_ok(niti_recipe_place(recipe, 1, 1));
  check_ok(niti_report_open(&report, folder, recipe, -1, -1, false));
  check_ok(niti_report_step(report, &row, NULL));
  check_ok(niti_report_close(report, false));
  niti_recipe_close(recipe);
  char path[600];
  size_t size;
  event_path(path, 0);
  char *bytes = get_file(path, &size), *at_tag = find_bytes(bytes, size, tag);
  assert_non_null(at_tag);
  const uint32_t word = (uint32_t)little(at_tag + sizeof tag - 1, 4);
  float mean;
  memcpy(&mean, &word, sizeof mean);
  assert_float_equal(mean, 0.693147181f / 32, 2e-6f);
  free(bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_crc32c, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_event_frames, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_event_files_sort, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_event_errors, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_mean_of_very_many_images, make_folder, remove_folder),
  };
  return cmocka_run_group_tests_name("io_events", tests, NULL, NULL);
}

/* Event files and logs: framing, exact text, resuming after a crash, and full disks. */
#include <fcntl.h>

#include "io/events.h"
#include "io/log.h"
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

/* ---- log.h -------------------------------------------------------------------------------------------------------- */

static const char *const keys[] = {"epoch", "accuracy", "note"};

static NitiLog *open_log(int64_t keep_epoch) {
  NitiLog *log;
  check_ok(niti_log_open(&log, folder, keep_epoch, keys, 3));
  assert_null(niti_log_note(log, 0));
  return log;
}

static void add_row(NitiLog *log, int64_t epoch, int64_t note) {
  const NitiField row[] = {niti_field_integer("epoch", epoch), niti_field_ratio("accuracy", epoch, 3, 2),
                           niti_field_integer("note", note)};
  check_ok(niti_log_row(log, row, 3));
}

static void test_log_text(void **state) {
  (void)state;
  NitiLog *log = open_log(-1);
  const NitiField odd[] = {{.key = "epoch", .kind = NITI_FIELD_INTEGER, .integer = INT64_MIN},
                           {.key = "accuracy", .kind = NITI_FIELD_DECIMAL, .integer = INT64_MIN, .digits = 18},
                           niti_field_integer("note", INT64_MAX)};
  const NitiField small[] = {niti_field_integer("epoch", 2),
                             {.key = "accuracy", .kind = NITI_FIELD_DECIMAL, .integer = -5, .digits = 2},
                             niti_field_integer("note", 0)};
  add_row(log, 1, 7);
  check_ok(niti_log_row(log, odd, 3));
  check_ok(niti_log_row(log, small, 3));
  niti_log_close(log);
  assert_file(at("metrics.csv"),
              "epoch,accuracy,note\n1,0.33,7\n"
              "-9223372036854775808,-9.223372036854775808,9223372036854775807\n2,-0.05,0\n");
  assert_file(at("metrics.jsonl"),
              "{\"epoch\": 1, \"accuracy\": 0.33, \"note\": 7}\n"
              "{\"epoch\": -9223372036854775808, \"accuracy\": -9.223372036854775808, "
              "\"note\": 9223372036854775807}\n{\"epoch\": 2, \"accuracy\": -0.05, \"note\": 0}\n");
}

static void test_ratio(void **state) {
  (void)state;
  static const struct {
    int64_t numerator, denominator;
    int digits;
    int64_t expected;
  } cases[] = {
      {1, 3, 4, 3333},
      {2, 3, 4, 6667},
      {1, 2, 0, 1},
      {-1, 2, 0, -1},
      {1, -2, 0, -1},
      {-1, -2, 0, 1},
      {49, 100, 0, 0},
      {5, 1000, 2, 1},
      {4, 1000, 2, 0},
      {7, 0, 3, 0},
      {0, 5, 3, 0},
      {INT64_MAX, 1, 0, INT64_MAX},
      {INT64_MAX, 1, 9, INT64_MAX},
      {INT64_MIN, 1, 9, -INT64_MAX},
      {INT64_MAX, INT64_MAX, 9, 1000000000},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
    assert_true(niti_field_ratio("k", cases[i].numerator, cases[i].denominator, cases[i].digits).integer == cases[i].expected);
}

static void test_log_resumes(void **state) {
  (void)state;
  NitiLog *log = open_log(-1);
  for (int64_t epoch = 1; epoch <= 3; ++epoch) add_row(log, epoch, -123);
  niti_log_close(log);
  log = open_log(3); /* nothing to cut */
  niti_log_close(log);
  log = open_log(1);
  add_row(log, 2, 12);
  niti_log_close(log);
  assert_file(at("metrics.csv"), "epoch,accuracy,note\n1,0.33,-123\n2,0.67,12\n");
  assert_file(at("metrics.jsonl"),
              "{\"epoch\": 1, \"accuracy\": 0.33, \"note\": -123}\n"
              "{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 12}\n");
  log = open_log(0); /* no row left */
  niti_log_close(log);
  assert_file(at("metrics.csv"), "");
  log = open_log(0);
  add_row(log, 1, 5);
  niti_log_close(log);
  assert_file(at("metrics.csv"), "epoch,accuracy,note\n1,0.33,5\n");
  assert_int_equal(count_files(), 2);
}

/* A last line torn at any byte is dropped; all rows before it stay. */
static void test_log_torn(void **state) {
  (void)state;
  size_t sizes[2][3], size;
  static const char *const names[] = {"metrics.csv", "metrics.jsonl"};
  char *whole[2];
  NitiLog *log = open_log(-1);
  for (int row = 0; row < 3; ++row) {
    add_row(log, row, 1234567890123);
    for (int i = 0; i < 2; ++i) {
      whole[i] = get_file(at(names[i]), &sizes[i][row]);
      if (row < 2) free(whole[i]);
    }
  }
  niti_log_close(log);
  for (int i = 0; i < 2; ++i) {
    for (size_t length = 0; length <= sizes[i][2]; ++length) {
      put_file(at(names[i]), whole[i], length);
      niti_log_close(open_log(99));
      size_t expected = 0;
      for (int row = 0; row < 3; ++row)
        if (sizes[i][row] <= length) expected = sizes[i][row];
      char *text = get_file(at(names[i]), &size);
      assert_int_equal(size, expected);
      assert_memory_equal(text, whole[i], size);
      free(text);
    }
    free(whole[i]);
  }
}

static void test_log_refuses(void **state) {
  (void)state;
  NitiLog *log;
  const NitiField first[] = {niti_field_integer("epoch", 1), niti_field_integer("a", 1)};
  const NitiField renamed[] = {niti_field_integer("epoch", 1), niti_field_integer("b", 1)};
  const NitiField twice[] = {niti_field_integer("epoch", 1), niti_field_integer("epoch", 1)};
  const NitiField digits[] = {niti_field_integer("epoch", 1), {.key = "a", .kind = NITI_FIELD_DECIMAL, .digits = 19}};
  const char *const two[] = {"epoch", "a"};
  check_ok(niti_log_open(&log, folder, -1, two, 2));
  check_ok(niti_log_row(log, first, 2));
  check_fails(niti_log_row(log, renamed, 2), NITI_ERROR_ARGUMENT, at("metrics.csv"), "epoch,a");
  check_fails(niti_log_row(log, first, 1), NITI_ERROR_ARGUMENT, at("metrics.csv"), "epoch,a");
  check_fails(niti_log_row(log, twice, 2), NITI_ERROR_ARGUMENT, "'epoch'", "twice");
  check_fails(niti_log_row(log, digits, 2), NITI_ERROR_ARGUMENT, "'a'", "19 decimals");
  check_fails(niti_log_row(log, first + 1, 1), NITI_ERROR_ARGUMENT, "log", "`epoch`");
  niti_log_close(log);
  assert_file(at("metrics.csv"), "epoch,a\n1,1\n");
  assert_file(at("metrics.jsonl"), "{\"epoch\": 1, \"a\": 1}\n");
  check_fails(niti_log_open(&log, at("none"), -1, two, 2), NITI_ERROR_FILE, at("none"), strerror(ENOENT));
}

/* Where a log file holds `text`, it is renamed NAME.bak, and the other file is continued. */
static void check_set_aside(const char *name, const char *text, const char *place) {
  char backup[64];
  NitiLog *log = open_log(-1);
  add_row(log, 1, 7);
  niti_log_close(log);
  put_file(at(name), text, strlen(text));
  check_ok(niti_log_open(&log, folder, 9, keys, 3));
  assert_non_null(niti_log_note(log, 0));
  assert_null(niti_log_note(log, 1));
  (void)snprintf(backup, sizeof backup, "%s.bak", name);
  if (!strstr(niti_log_note(log, 0), place) || !strstr(niti_log_note(log, 0), at(backup))) fail_msg("%s", niti_log_note(log, 0));
  add_row(log, 2, 8);
  niti_log_close(log);
  assert_file(at(backup), text);
  const bool csv = strcmp(name, "metrics.csv") == 0;
  assert_file(at("metrics.csv"), csv ? "epoch,accuracy,note\n2,0.67,8\n" : "epoch,accuracy,note\n1,0.33,7\n2,0.67,8\n");
  assert_file(at("metrics.jsonl"), csv ? "{\"epoch\": 1, \"accuracy\": 0.33, \"note\": 7}\n"
                                         "{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 8}\n"
                                       : "{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 8}\n");
  assert_int_equal(unlink(at(backup)), 0);
}

static void test_log_sets_aside(void **state) {
  (void)state;
  static const char *const edited[][2] = {
      {"step,a\n1,1\n", "record 1"}, /* another table */
      {"\xef\xbb\xbf"
       "epoch,accuracy,note\n1,0.33,7\n",
       "record 1"}, /* as some editors save it */
      {"epoch,accuracy,note\r\n1,0.33,7\r\n", "record 1"},
      {"epoch,accuracy,note\r1,0.33,7\r", "record 1"},
      {"epoch;accuracy;note\n1;0,33;7\n", "record 1"},
      {"epoch,accuracy,note\n1,0.33,7\r\n", "record 2"},
      {"epoch,accuracy,note\n1,0.33,7\n\n", "record 3"},
      {"epoch,accuracy,note\n1,0.33,7\n1.5,0.33,7\n", "record 3"},
      {"epoch,accuracy,note\n1,0.33\n", "record 2"},
      {"\"epoch\",\"accuracy\",\"note\"\n1,0.33,7\n", "record 1"}, /* quoted, as some spreadsheets save it */
      {"epoch,accuracy,note\n\"1\",0.33,7\n", "record 2"},
      {"epoch,accuracy,note\n1,0.33,7,\n", "record 2"},
      {"epoch,accuracy\n1,0.33\n", "record 1"}, /* of another version */
  };
  for (size_t i = 0; i < sizeof edited / sizeof *edited; ++i) check_set_aside("metrics.csv", edited[i][0], edited[i][1]);
  check_set_aside("metrics.jsonl", "{\"epoch\": 1}\nnot json\n", "record 2");
  check_set_aside("metrics.jsonl", "{\"epoch\": \"1\"}\n", "record 1");
  check_set_aside("metrics.jsonl", "\xef\xbb\xbf{\"epoch\": 1}\n", "record 1");
}

/* Earlier backups are kept, and a folder in a log's place is set aside too. */
static void test_log_sets_aside_again(void **state) {
  (void)state;
  NitiLog *log;
  put_file(at("metrics.csv.bak"), "1", 1);
  put_file(at("metrics.csv.bak2"), "2", 1);
  put_file(at("metrics.csv"), "?\n", 2);
  assert_int_equal(mkdir(at("metrics.jsonl"), 0777), 0);
  check_ok(niti_log_open(&log, folder, 9, keys, 3));
  assert_non_null(strstr(niti_log_note(log, 0), at("metrics.csv.bak3")));
  assert_non_null(strstr(niti_log_note(log, 1), at("metrics.jsonl.bak")));
  add_row(log, 1, 7);
  niti_log_close(log);
  assert_file(at("metrics.csv.bak"), "1");
  assert_file(at("metrics.csv.bak3"), "?\n");
  assert_file(at("metrics.csv"), "epoch,accuracy,note\n1,0.33,7\n");
  assert_int_equal(rmdir(at("metrics.jsonl.bak")), 0);
}

/* ---- a rename that can be made to fail ---- */

static bool locked;

int rename(const char *from, const char *to) {
  if (!locked) return renameat(AT_FDCWD, from, AT_FDCWD, to);
  errno = EPERM;
  return -1;
}

/* A file that another program has locked: the log continues without it. */
static void test_log_locked(void **state) {
  (void)state;
  NitiLog *log;
  put_file(at("metrics.csv"), "?\n", 2);
  put_file(at("metrics.jsonl"), "", 0);
  locked = true;
  const NitiStatus status = niti_log_open(&log, folder, 9, keys, 3);
  locked = false;
  check_ok(status);
  assert_non_null(strstr(niti_log_note(log, 0), at("metrics.csv")));
  assert_non_null(strstr(niti_log_note(log, 0), "not recorded"));
  add_row(log, 1, 7);
  niti_log_close(log);
  assert_file(at("metrics.csv"), "?\n");
  assert_file(at("metrics.jsonl"), "{\"epoch\": 1, \"accuracy\": 0.33, \"note\": 7}\n");
}

/* However many bytes fit, a row that fails leaves both files as they were, and the next row is whole. */
static void test_log_full_disk(void **state) {
  (void)state;
  for (rlim_t room = 0; room < 42; room += 5) {
    NitiLog *log;
    const char *const two[] = {"epoch", "note"};
    const NitiField row[] = {niti_field_integer("epoch", 1), niti_field_integer("note", 1234567890123456789)};
    check_ok(niti_log_open(&log, folder, -1, two, 2));
    limit_file_size(room); /* the JSON line has 42 bytes */
    const NitiStatus status = niti_log_row(log, row, 2);
    limit_file_size(RLIM_INFINITY);
    check_fails(status, NITI_ERROR_FILE, "metrics.", strerror(EFBIG));
    assert_file(at("metrics.csv"), "");
    assert_file(at("metrics.jsonl"), "");
    check_ok(niti_log_row(log, row, 2));
    niti_log_close(log);
    assert_file(at("metrics.csv"), "epoch,note\n1,1234567890123456789\n");
  }
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
      cmocka_unit_test_setup_teardown(test_log_text, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_ratio, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_resumes, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_torn, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_refuses, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_sets_aside, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_sets_aside_again, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_locked, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_full_disk, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_mean_of_very_many_images, make_folder, remove_folder),
  };
  return cmocka_run_group_tests_name("io_logs", tests, NULL, NULL);
}

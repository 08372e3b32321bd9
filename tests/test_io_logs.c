/* Logs: exact text, resuming after a crash, and full disks. */
#include <fcntl.h>

#include "io/log.h"
#include "io_test.h"

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

static off_t size_of(const char *path) {
  struct stat info;
  assert_int_equal(stat(path, &info), 0);
  return info.st_size;
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

/* A last line torn at any byte, beyond the checkpoint, is dropped; all rows before it stay. */
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
      size_t expected = 0;
      int64_t covered = -1;
      for (int row = 0; row < 3 && sizes[i][row] <= length; ++row) {
        expected = sizes[i][row];
        covered = row;
      }
      put_file(at(names[1 - i]), whole[1 - i], sizes[1 - i][2]);
      put_file(at(names[i]), whole[i], length);
      niti_log_close(open_log(covered));
      char *text = get_file(at(names[i]), &size);
      assert_int_equal(size, expected);
      assert_memory_equal(text, whole[i], size);
      free(text);
    }
  }
  free(whole[0]);
  free(whole[1]);
}

/* As some editors save it: the last row lacks its newline, and stays if the checkpoint covers it, for it cannot be torn then. */
static void test_log_without_its_last_newline(void **state) {
  (void)state;
  static const char csv[] = "epoch,accuracy,note\n1,0.33,7\n2,0.67,8\n", jsonl[] = "{\"epoch\": 1}\n{\"epoch\": 2}\n";
  for (int64_t covered = 1; covered <= 2; ++covered) {
    put_file(at("metrics.csv"), csv, sizeof csv - 2);
    put_file(at("metrics.jsonl"), jsonl, sizeof jsonl - 2);
    NitiLog *log = open_log(covered);
    if (covered == 1) add_row(log, 2, 9);
    add_row(log, 3, 9);
    niti_log_close(log);
    assert_file(at("metrics.csv"), covered == 1 ? "epoch,accuracy,note\n1,0.33,7\n2,0.67,9\n3,1.00,9\n"
                                                : "epoch,accuracy,note\n1,0.33,7\n2,0.67,8\n3,1.00,9\n");
    assert_file(at("metrics.jsonl"), covered == 1 ? "{\"epoch\": 1}\n{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 9}\n"
                                                    "{\"epoch\": 3, \"accuracy\": 1.00, \"note\": 9}\n"
                                                  : "{\"epoch\": 1}\n{\"epoch\": 2}\n"
                                                    "{\"epoch\": 3, \"accuracy\": 1.00, \"note\": 9}\n");
    assert_int_equal(count_files(), 2);
  }
  put_file(at("metrics.csv"), csv, sizeof csv - 1);
  put_file(at("metrics.jsonl"), jsonl, 12); /* the only row */
  NitiLog *log;
  check_ok(niti_log_open(&log, folder, 2, keys, 3));
  assert_non_null(strstr(niti_log_note(log, 0), "metrics.jsonl: the rows of the last epochs up to epoch 2 are missing"));
  assert_null(niti_log_note(log, 1));
  niti_log_close(log);
  assert_file(at("metrics.jsonl"), "{\"epoch\": 1}\n");
}

/* As some editors save it: blank lines at the end go, without a note, and the next row comes right after the last one. */
static void test_log_with_a_blank_end(void **state) {
  (void)state;
  static const char *const ends[] = {"\n", "\n\n\n"};
  for (int i = 0; i < 4; ++i) {
    const int64_t covered = i / 2; /* 0: no row stays, so no header */
    char csv[64], jsonl[64];
    (void)snprintf(csv, sizeof csv, "epoch,accuracy,note\n%s%s", covered ? "1,0.33,7\n" : "", ends[i % 2]);
    (void)snprintf(jsonl, sizeof jsonl, "%s%s", covered ? "{\"epoch\": 1}\n" : "", ends[i % 2]);
    put_file(at("metrics.csv"), csv, strlen(csv));
    put_file(at("metrics.jsonl"), jsonl, strlen(jsonl));
    NitiLog *log = open_log(covered);
    add_row(log, 2, 9);
    niti_log_close(log);
    assert_file(at("metrics.csv"), covered ? "epoch,accuracy,note\n1,0.33,7\n2,0.67,9\n" : "epoch,accuracy,note\n2,0.67,9\n");
    assert_file(at("metrics.jsonl"), covered ? "{\"epoch\": 1}\n{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 9}\n"
                                             : "{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 9}\n");
    assert_int_equal(count_files(), 2);
  }
}

static void put_epochs(const int64_t *epochs, int count) {
  NitiLog *log = open_log(INT64_MIN);
  for (int i = 0; i < count; ++i) add_row(log, epochs[i], 7);
  niti_log_close(log);
}

/* Rows that are missing amid the others are told once for each file, before a missing end, and change nothing. */
static void test_log_with_gaps(void **state) {
  (void)state;
  static const struct {
    int64_t epochs[5];
    int count;
    int64_t from, to; /* where the first gap is; 0, 0: nowhere */
    bool ends;        /* before the last epoch that is kept, 8 */
  } cases[] = {
      {{1, 2, 3, 7, 8}, 5, 3, 7, false},
      {{1, 3, 5, 8}, 4, 1, 3, false},  /* one note for all gaps */
      {{7, 8}, 2, 0, 0, false},        /* a log that was begun anew has no gap */
      {{6, 7, 8, 11}, 4, 0, 0, false}, /* the last one goes */
      {{0, 8}, 2, 0, 8, false},
      {{0, 2, 8}, 3, 0, 2, false},
      {{-3, 2, 8}, 3, -3, 2, false},
      {{7, 8, 8}, 3, 8, 8, false},
      {{7, 6, 8}, 3, 7, 6, false},
      {{1, 2, 5}, 3, 2, 5, true},
      {{1, INT64_MIN}, 2, 1, INT64_MIN, true},
  };
  static const char *const names[] = {"metrics.csv", "metrics.jsonl"};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiLog *log;
    size_t next = 0;
    put_epochs(cases[i].epochs, cases[i].count);
    const off_t size = size_of(at("metrics.csv"));
    check_ok(niti_log_open(&log, folder, 8, keys, 3));
    for (int file = 0; file < 2; ++file) {
      char gap[200];
      (void)snprintf(gap, sizeof gap, "%s: after the row of epoch %lld comes that of epoch %lld: rows are missing", names[file],
                     (long long)cases[i].from, (long long)cases[i].to);
      if (cases[i].to) assert_non_null(strstr(niti_log_note(log, next++), gap));
      if (cases[i].ends) assert_non_null(strstr(niti_log_note(log, next++), "of the last epochs up to epoch 8 are missing"));
    }
    assert_null(niti_log_note(log, next));
    niti_log_close(log);
    if (i != 3) assert_true(size_of(at("metrics.csv")) == size);
  }
}

/* What has no value is an empty field in one file and null in the other, in every column but `epoch`. */
static void test_log_without_values(void **state) {
  (void)state;
  NitiLog *log = open_log(-1);
  const NitiField row[] = {niti_field_integer("epoch", 1), niti_field_none("accuracy"), niti_field_none("note")};
  const NitiField none[] = {niti_field_none("epoch"), niti_field_none("accuracy"), niti_field_none("note")};
  check_ok(niti_log_row(log, row, 3));
  check_fails(niti_log_row(log, none, 3), NITI_ERROR_ARGUMENT, "log", "`epoch`");
  niti_log_close(log);
  log = open_log(1);
  niti_log_close(log);
  assert_file(at("metrics.csv"), "epoch,accuracy,note\n1,,\n");
  assert_file(at("metrics.jsonl"), "{\"epoch\": 1, \"accuracy\": null, \"note\": null}\n");
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

/* The file that was set aside has row 2, the other one both. */
static void check_continued(bool csv) {
  assert_file(at("metrics.csv"), csv ? "epoch,accuracy,note\n2,0.67,8\n" : "epoch,accuracy,note\n1,0.33,7\n2,0.67,8\n");
  assert_file(at("metrics.jsonl"), csv ? "{\"epoch\": 1, \"accuracy\": 0.33, \"note\": 7}\n"
                                         "{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 8}\n"
                                       : "{\"epoch\": 2, \"accuracy\": 0.67, \"note\": 8}\n");
}

/* Where a log file holds `text`, it is renamed NAME.bak, and the other file is continued. */
static void check_set_aside_after(int64_t epoch, const char *name, const char *text, const char *place) {
  char backup[64];
  NitiLog *log = open_log(-1);
  add_row(log, 1, 7);
  niti_log_close(log);
  put_file(at(name), text, strlen(text));
  check_ok(niti_log_open(&log, folder, epoch, keys, 3));
  assert_non_null(niti_log_note(log, 0));
  assert_null(niti_log_note(log, 1));
  (void)snprintf(backup, sizeof backup, "%s.bak", name);
  if (!strstr(niti_log_note(log, 0), place) || !strstr(niti_log_note(log, 0), at(backup))) fail_msg("%s", niti_log_note(log, 0));
  if (epoch < 1) add_row(log, 1, 7);
  add_row(log, 2, 8);
  niti_log_close(log);
  assert_file(at(backup), text);
  const bool csv = strcmp(name, "metrics.csv") == 0;
  if (epoch >= 1) check_continued(csv);
  assert_int_equal(unlink(at(backup)), 0);
}

static void check_set_aside(const char *name, const char *text, const char *place) {
  check_set_aside_after(1, name, text, place);
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
      {"epoch,accuracy,note\n\n1,0.33,7\n", "record 2"}, /* blank, but not at the end */
      {"epoch,accuracy,note\n1,0.33,7\n \n", "record 3"},
      {"epoch,accuracy,note\n1,0.33,7\n1.5,0.33,7\n", "record 3"},
      {"epoch,accuracy,note\n1,0.33\n", "record 2"},
      {"\"epoch\",\"accuracy\",\"note\"\n1,0.33,7\n", "record 1"}, /* quoted, as some spreadsheets save it */
      {"epoch,accuracy,note\n\"1\",0.33,7\n", "record 2"},
      {"epoch,accuracy,note\n1,0.33,7,\n", "record 2"},
      {"epoch,accuracy\n1,0.33\n", "record 1"}, /* of another version */
      {"epoch,accuracy,note\n1,0.33,7\r", "record 2"},
      {"epoch,accuracy,note\n1,0.33", "record 2"}, /* no crash tears a row that the checkpoint covers */
      {"not a table, but one line", "record 1"},
      {"epoch,accuracy,note 1,0.33,7 ", "record 1"},
      {"epoch,accuracy,notes", "record 1"},
      {"\x01", "record 1"},
  };
  for (size_t i = 0; i < sizeof edited / sizeof *edited; ++i) check_set_aside("metrics.csv", edited[i][0], edited[i][1]);
  check_set_aside("metrics.jsonl", "{\"epoch\": 1}\nnot json\n", "record 2");
  check_set_aside("metrics.jsonl", "{\"epoch\": \"1\"}\n", "record 1");
  check_set_aside("metrics.jsonl", "\xef\xbb\xbf{\"epoch\": 1}\n", "record 1");
  check_set_aside("metrics.jsonl", "{\"epoch\": 1}\r", "record 1");
  check_set_aside("metrics.jsonl", "{\"epoch\": 1} {\"epoch\": 2} ", "record 1");
  check_set_aside("metrics.jsonl", "{\"epo", "record 1");
  check_set_aside_after(0, "metrics.csv", "not a table, but one line", "record 1"); /* before a row was synced */
  check_set_aside_after(0, "metrics.jsonl", "not a row, but one line", "record 1");
}

/* Before the first row was synced, what a crash leaves is no more than the beginning of it, or what the disk held. */
static void test_log_torn_at_once(void **state) {
  (void)state;
  static const char *const torn[][2] = {{"epoch,acc", ""},
                                        {"epoch,accuracy,note", "{"},
                                        {"epoch,accuracy,note\n1,0.", "{\"epoch\": 1, "},
                                        {"\x01", "\x01"},
                                        {"epoch,accuracy,note\n1,0.33,7\n99", "{\"epoch\": 1}\n99"}};
  for (size_t i = 0; i < sizeof torn / sizeof *torn; ++i) {
    put_file(at("metrics.csv"), torn[i][0], strlen(torn[i][0]));
    put_file(at("metrics.jsonl"), torn[i][1], strlen(torn[i][1]));
    niti_log_close(open_log(0));
    assert_file(at("metrics.csv"), "");
    assert_file(at("metrics.jsonl"), "");
  }
  assert_int_equal(count_files(), 2);
}

/* A file without the rows that the checkpoint covers begins anew, which one note says. */
static void test_log_that_lost_its_rows(void **state) {
  (void)state;
  static const char *const names[] = {"metrics.csv", "metrics.jsonl"}, *const left[] = {NULL, "", "\n", "epoch,accuracy,note"};
  for (int i = 0; i < 7; ++i) {
    const char *name = names[i % 2], *text = left[i / 2];
    NitiLog *log = open_log(-1);
    add_row(log, 1, 7);
    niti_log_close(log);
    if (text) put_file(at(name), text, strlen(text));
    if (!text) assert_int_equal(unlink(at(name)), 0);
    check_ok(niti_log_open(&log, folder, 1, keys, 3));
    const char *note = niti_log_note(log, 0);
    if (!note || !strstr(note, at(name)) || !strstr(note, "up to epoch 1 are missing")) fail_msg("%s", note ? note : "no note");
    assert_null(niti_log_note(log, 1));
    add_row(log, 2, 8);
    niti_log_close(log);
    check_continued(i % 2 == 0);
  }
  put_file(at("metrics.csv"), "", 0);
  niti_log_close(open_log(0));  /* no row is missing */
  for (int i = 0; i < 2; ++i) { /* rows, but not the last ones */
    NitiLog *log = open_log(-1);
    add_row(log, 1, 7);
    if (i == 0) add_row(log, 2, 8);
    niti_log_close(log);
    check_ok(niti_log_open(&log, folder, 2, keys, 3));
    const char *note = niti_log_note(log, 0), *other = niti_log_note(log, 1);
    assert_true(!note == (i == 0) && !other == (i == 0));
    if (note && !strstr(note, "metrics.csv: the rows of the last epochs up to epoch 2 are missing")) fail_msg("%s", note);
    if (other && !strstr(other, "metrics.jsonl: the rows of the last epochs up to epoch 2 are missing")) fail_msg("%s", other);
    niti_log_close(log);
  }
}

/* A link is set aside, wherever it leads, and what it leads to stays as it is. */
static void test_log_links(void **state) {
  (void)state;
  static const char *const targets[] = {"one line", "", "epoch,accuracy,note\n1,0.33,7\n9,0.33,7\n", NULL};
  for (int i = 0; i < 4; ++i) {
    NitiLog *log = open_log(-1);
    add_row(log, 1, 7);
    niti_log_close(log);
    assert_int_equal(unlink(at("metrics.csv")), 0);
    if (targets[i]) put_file(at("target"), targets[i], strlen(targets[i]));
    assert_int_equal(symlink(at("target"), at("metrics.csv")), 0);
    check_ok(niti_log_open(&log, folder, 1, keys, 3));
    const char *note = niti_log_note(log, 0);
    if (!note || !strstr(note, at("metrics.csv.bak")) || !strstr(note, "symbolic link")) fail_msg("%s", note ? note : "no note");
    assert_null(niti_log_note(log, 1));
    add_row(log, 2, 8);
    niti_log_close(log);
    check_continued(true);
    if (targets[i]) {
      assert_file(at("target"), targets[i]);
      assert_int_equal(unlink(at("target")), 0);
    }
    assert_int_equal(unlink(at("metrics.csv.bak")), 0);
    assert_int_equal(count_files(), 2);
  }
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

static int rename_error, rename_turn; /* 0: it works; which one fails, from 0 */

int rename(const char *from, const char *to) {
  if (!rename_error || rename_turn-- != 0) return renameat(AT_FDCWD, from, AT_FDCWD, to);
  errno = rename_error;
  return -1;
}

/* A file that another program has locked: the log continues without it. */
static void test_log_locked(void **state) {
  (void)state;
  NitiLog *log;
  put_file(at("metrics.csv"), "?\n", 2);
  put_file(at("metrics.jsonl"), "", 0);
  rename_error = EPERM;
  rename_turn = 0;
  const NitiStatus status = niti_log_open(&log, folder, 9, keys, 3);
  rename_error = 0;
  check_ok(status);
  assert_non_null(strstr(niti_log_note(log, 0), at("metrics.csv")));
  assert_non_null(strstr(niti_log_note(log, 0), "not recorded"));
  add_row(log, 1, 7);
  niti_log_close(log);
  assert_file(at("metrics.csv"), "?\n");
  assert_file(at("metrics.jsonl"), "{\"epoch\": 1, \"accuracy\": 0.33, \"note\": 7}\n");
}

/* A failing disk is no reason to set a log aside, and what is set aside is back where the new one cannot be made. */
static void test_log_failing_disk(void **state) {
  (void)state;
  static const char torn[] = "epoch,accuracy,note\n1,0.33,7\n2,0", damaged[] = "?\n";
  for (int i = 0; i < 3; ++i) {
    NitiLog *log;
    const char *text = i == 0 ? torn : damaged;
    put_file(at("metrics.csv"), text, strlen(text));
    put_file(at("metrics.jsonl"), "", 0);
    rename_error = i == 1 ? ENOSPC : EIO;
    rename_turn = i == 2 ? 1 : 0; /* the new file's, after that of the damaged one */
    const NitiStatus status = niti_log_open(&log, folder, 9, keys, 3);
    rename_error = 0;
    check_fails(status, NITI_ERROR_FILE, at("metrics.csv"), strerror(i == 1 ? ENOSPC : EIO));
    assert_file(at("metrics.csv"), text);
    assert_int_equal(count_files(), 2);
  }
}

static void test_log_without_room(void **state) {
  (void)state;
  NitiLog *log;
  static const char csv[] = "epoch,accuracy,note\n1,0.33,7\n2,0", jsonl[] = "{\"epoch\": 1}\n{\"epo";
  put_file(at("metrics.csv"), csv, sizeof csv - 1);
  put_file(at("metrics.jsonl"), jsonl, sizeof jsonl - 1);
  for (int i = 0; i < 2; ++i) {
    limit_file_size(0);
    const NitiStatus status = niti_log_open(&log, folder, 9, keys, 3);
    limit_file_size(RLIM_INFINITY);
    check_fails(status, NITI_ERROR_FILE, at("metrics.csv"), strerror(EFBIG));
    assert_file(at("metrics.csv"), csv);
    assert_file(at("metrics.jsonl"), jsonl);
    assert_int_equal(count_files(), 2);
  }
  check_ok(niti_log_open(&log, folder, 9, keys, 3));
  assert_non_null(strstr(niti_log_note(log, 1), "up to epoch 9 are missing"));
  niti_log_close(log);
  assert_file(at("metrics.csv"), "epoch,accuracy,note\n1,0.33,7\n");
  assert_file(at("metrics.jsonl"), "{\"epoch\": 1}\n");
}

/* As by an editor or a clean-up: no row goes to a file that has no name any more, nor to the other one. */
static void test_log_that_is_replaced(void **state) {
  (void)state;
  static const char *const names[] = {"metrics.csv", "metrics.jsonl"};
  for (int i = 0; i < 4; ++i) {
    const char *name = names[i / 2], *other = names[1 - i / 2];
    const NitiField row[] = {niti_field_integer("epoch", 2), niti_field_ratio("accuracy", 2, 3, 2),
                             niti_field_integer("note", 0)};
    NitiLog *log = open_log(-1);
    size_t size;
    add_row(log, 1, 7);
    char *text = get_file(at(name), &size), *kept = get_file(at(other), NULL);
    assert_int_equal(unlink(at(name)), 0);
    if (i % 2) put_file(at(name), text, size);
    check_fails(niti_log_row(log, row, 3), NITI_ERROR_FILE, at(name), i % 2 ? "was replaced" : "was removed");
    niti_log_close(log);
    if (i % 2) assert_file(at(name), text);
    assert_file(at(other), kept);
    free(text);
    free(kept);
    check_ok(niti_log_open(&log, folder, 1, keys, 3));
    assert_true(!niti_log_note(log, 0) == (i % 2 == 1));
    add_row(log, 2, 8);
    niti_log_close(log);
    assert_file(at("metrics.csv"), i == 0 ? "epoch,accuracy,note\n2,0.67,8\n" : "epoch,accuracy,note\n1,0.33,7\n2,0.67,8\n");
  }
}

/* Into the file that the run has open: as `>` or an editor that reads and then writes it. No row goes to either file. */
static void test_log_that_is_changed_in_place(void **state) {
  (void)state;
  static const char *const names[] = {"metrics.csv", "metrics.jsonl"};
  const NitiField row[] = {niti_field_integer("epoch", 3), niti_field_ratio("accuracy", 1, 1, 2), niti_field_integer("note", 9)};
  for (int i = 0; i < 12; ++i) {
    const char *name = names[i % 2], *other = names[1 - i % 2];
    const bool continued = i / 2 % 2;
    NitiLog *log = open_log(-1);
    add_row(log, 1, 7);
    if (continued) {
      niti_log_close(log);
      log = open_log(1);
    }
    const off_t before = size_of(at(name));
    add_row(log, 2, 8);
    char *kept = get_file(at(other), NULL);
    const off_t sizes[] = {0, before, size_of(at(name)) + 1};
    assert_int_equal(truncate(at(name), sizes[i / 4]), 0);
    check_fails(niti_log_row(log, row, 3), NITI_ERROR_FILE, at(name), "was changed");
    niti_log_close(log);
    assert_true(size_of(at(name)) == sizes[i / 4]);
    assert_file(at(other), kept);
    free(kept);
  }
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_log_text, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_ratio, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_resumes, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_torn, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_without_its_last_newline, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_with_a_blank_end, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_with_gaps, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_without_values, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_refuses, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_sets_aside, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_torn_at_once, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_that_lost_its_rows, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_links, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_sets_aside_again, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_locked, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_failing_disk, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_without_room, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_that_is_replaced, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_that_is_changed_in_place, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_log_full_disk, make_folder, remove_folder),
  };
  return cmocka_run_group_tests_name("io_logs", tests, NULL, NULL);
}

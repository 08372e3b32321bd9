/* Image folders, images and logs where the system or memory fails: each call of the table and each allocation is failed in turn.
 * A reader must end with a status and one line, leave nothing open, and where it succeeds give what it gives undisturbed. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include <errno.h>

#include "data/format.h"
#include "data/image.h"
#include "data_open.h"
#include "fail_memory.h"
#include "io/log.h"
#include "platform/system.h"

/* ---- the table of calls ---- */

static long calls_left = -1; /* calls until the one that fails; negative: none will */
static long calls_broken;    /* how many fail then, less those that have */
static bool one_alone;       /* not those after it */
static int why;              /* errno of those that fail */
static int open_count;       /* files and folders */
static int made_up;          /* 0, or so many folders are in each folder, the first of them `train` */
static int made_up_next;

static bool breaks(void) {
  if (calls_left < 0 || calls_left-- > 0) return false;
  if (--calls_broken > 0) calls_left = 0;
  errno = why;
  return true;
}

#define CALL(result, name, parameters, arguments, failure) \
  static result call_##name parameters { return breaks() ? (failure) : name arguments; }

NITI_SYSTEM_TRANSFERS(CALL)
NITI_SYSTEM_PLAIN_CALLS(CALL)
CALL(int, poll, (struct pollfd * files, nfds_t count, int milliseconds), (files, count, milliseconds), -1)

/* No power is lost here. */
static int call_fsync(int fd) { return fd < 0 || breaks() ? -1 : 0; }
static int call_fdatasync(int fd) { return call_fsync(fd); }

static int call_open(const char *path, int flags, mode_t mode) {
  const int fd = breaks() ? -1 : open(path, flags, mode);
  open_count += fd >= 0;
  return fd;
}

static DIR *call_opendir(const char *path) {
  DIR *folder = breaks() ? NULL : opendir(path);
  open_count += folder != NULL;
  made_up_next = 0;
  return folder;
}

static struct dirent *call_readdir(DIR *folder) {
  static struct dirent entry = {.d_type = DT_DIR};
  if (breaks()) return NULL;
  if (!made_up) return readdir(folder);
  if (made_up_next == made_up) return NULL;
  (void)snprintf(entry.d_name, sizeof entry.d_name, made_up_next ? "class%d" : "train", made_up_next);
  ++made_up_next;
  return &entry;
}

/* These end what they end, also where they fail. */
static int call_close(int fd) {
  --open_count;
  return close(fd) || breaks() ? -1 : 0;
}

static int call_closedir(DIR *folder) {
  --open_count;
  return closedir(folder) || breaks() ? -1 : 0;
}

/* Never fails. */
static int call_munmap(void *at, size_t size) { return munmap(at, size); }

#define ENTRY(result, name, parameters, arguments, failure) .name = call_##name,
const NitiSystem niti_system = {NITI_SYSTEM_CALLS(ENTRY)};

/* ---- failing everything ---- */

/* Fails the action's calls one after the other, each with `broken` - 1 after it, until there are no more. */
static void fail_calls(const char *what, Action action, const char *path, int reason, long broken) {
  long failed = 0;
  for (long n = 0; n < 20000; ++n) {
    calls_left = n;
    calls_broken = broken;
    one_alone = broken == 1;
    why = reason;
    const NitiStatus status = action(path);
    const bool ended = calls_broken == broken;
    calls_left = -1;
    if (open_count != 0) fail_msg("%s: call %ld: %d left open", what, n, open_count);
    if (status != NITI_OK) ++failed;
    if (status != NITI_OK && (!niti_error()[0] || strchr(niti_error(), '\n') || (int)status == NITI_ERROR_MEMORY))
      fail_msg("%s: call %ld: status %d: %s", what, n, (int)status, niti_error());
    /* other reasons may mean that something is not there, or may not be looked at */
    if (status != NITI_OK && reason == EIO && (status != NITI_ERROR_FILE || !strstr(niti_error(), strerror(EIO))))
      fail_msg("%s: call %ld: status %d: %s", what, n, (int)status, niti_error());
    if (!ended) continue;
    if (status != NITI_OK || failed == 0) fail_msg("%s: %ld failed, at the end status %d", what, failed, (int)status);
    return;
  }
  fail_msg("%s: no end", what);
}

static void fail_all(const char *what, Action action, const char *path) {
  static const int reasons[] = {EIO, EACCES, ENOENT};
  fail_each(what, action, path);
  assert_int_equal(open_count, 0);
  for (int i = 0; i < 3; ++i) fail_calls(what, action, path, reasons[i], 1);
}

/* ---- image folders ---- */

static NitiDataKind kind;
static NitiShape wanted;

/* Says in *altered whether the outcome is another one than that of the folder that put_photos makes. */
static NitiStatus open_photos(const char *path) {
  const NitiDataOptions options = {.kind = kind};
  const NitiDataRequest request = request_of(wanted.n ? &wanted : NULL);
  NitiDataset *set;
  NITI_TRY(niti_dataset_open(&set, path, &options, &request));
  const NitiShape shape = niti_dataset_shape(set);
  const bool same = niti_dataset_count(set, NITI_TRAIN) == 5 && niti_dataset_count(set, NITI_TEST) == 2 && shape.h == 8 &&
                    shape.w == 8 && niti_dataset_classes(set) == 2 && !strcmp(niti_dataset_class_label(set, 1), "a cow");
  niti_dataset_close(set);
  if (!same && why == EIO) fail_msg("%s: the folder is another one", path);
  return NITI_OK;
}

/* put_folder's, with files that give no size before the others, a loop of links, names, and validation images as the test's. */
static char *put_photos(void) {
  static uint8_t tall[NITI_IMAGE_SIDE_MAX + 1];
  char *dir = put_folder("val");
  put_file(path_of("%s/train/a/0.png", dir), "no image", 8);
  put_png(path_of("%s/train/a/1.png", dir), sizeof tall, 1, 1, tall);
  put_file(path_of("%s/classes.txt", dir), "a cat\nb a cow\n", 14);
  assert_int_equal(symlink(".", path_of("%s/train/b/loop", dir)), 0);
  return dir;
}

static void folders_that_fail(void **state) {
  (void)state;
  static const NitiDataKind kinds[] = {NITI_DATA_FOLDER, NITI_DATA_AUTO};
  char *dir = put_photos();
  for (int i = 0; i < 4; ++i) {
    kind = kinds[i / 2];
    wanted = i % 2 ? size8 : (NitiShape){0};
    fail_all("an image folder", open_photos, dir);
  }
  remove_temp(dir);
}

/* Where the message about a class without images is made, which looks at what is there instead. */
static void classes_without_images_that_fail(void **state) {
  (void)state;
  char *dir = make_temp();
  put_dir(path_of("%s/train", dir));
  put_dir(path_of("%s/train/a", dir));
  put_file(path_of("%s/train/a/notes.txt", dir), "no image", 8);
  const NitiDataOptions options = {.kind = NITI_DATA_FOLDER};
  NitiDataset *set;
  long others = 0;
  for (calls_broken = 1, why = EIO; calls_broken; ++others) { /* until there are fewer calls */
    calls_left = others;
    const NitiStatus status = niti_dataset_open(&set, dir, &options, NULL);
    const bool broken = calls_left < 0;
    calls_left = -1;
    check_error((int)status, broken && status == NITI_ERROR_FILE ? NITI_ERROR_FILE : NITI_ERROR_FORMAT, niti_error(), dir,
                status == NITI_ERROR_FILE ? strerror(EIO) : "expected at least one .jpg, .jpeg or .png file; not read: 1 file");
    assert_int_equal(open_count, 0);
    calls_broken = broken;
  }
  assert_true(others > 5);
  made_up = NITI_CLASSES_MAX + 1;
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_FOLDER, NULL, "65537 class folders", "at most 65536");
  made_up = 0;
  remove_temp(dir);
}

/* ---- images ---- */

static uint8_t first[16]; /* what the image is undisturbed */
static bool known;

static NitiStatus read_image(const char *path) {
  uint8_t pixels[4 * 4];
  NITI_TRY(niti_image_glance_at(path));
  NITI_TRY(niti_image_read(path, NULL, (NitiShape){1, 4, 4, 1}, pixels));
  if (!known) memcpy(first, pixels, sizeof first);
  known = true;
  assert_memory_equal(pixels, first, sizeof first);
  return NITI_OK;
}

static void fail_image(const char *path) {
  known = false;
  if (read_image(path) != NITI_OK) fail_msg("%s", niti_error());
  fail_all(path, read_image, path);
}

static void images_that_fail(void **state) {
  (void)state;
  static uint8_t turned[] = {'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0};
  const PngKind quarter = {
      .type = PNG_COLOR_TYPE_RGB, .depth = 8, .interlaced = true, .exif = turned, .exif_size = sizeof turned};
  char *dir = make_temp();
  uint8_t pixels[8 * 8 * 4];
  size_t size;
  for (size_t i = 0; i < sizeof pixels; ++i) pixels[i] = (uint8_t)(i * i + 3 * i);
  put_png_kind(path_of("%s/turned.png", dir), 8, 8, quarter, pixels, 24);
  fail_image(path_of("%s/turned.png", dir));
  for (int c = 1; c <= 4; ++c) {
    if (c == 2) continue;
    put_jpeg(path_of("%s/%d.jpg", dir, c), 8, 8, c, pixels);
    fail_image(path_of("%s/%d.jpg", dir, c));
  }
  uint8_t *bytes = get_file(path_of("%s/1.jpg", dir), &size); /* without the end marker, so that a glance decodes it */
  put_file(path_of("%s/cut.jpg", dir), bytes, size - 2);
  free(bytes);
  fail_image(path_of("%s/cut.jpg", dir));
  remove_temp(dir);
}

/* ---- logs ---- */

static const char *const keys[] = {"epoch", "note"};
static const char row1[] = "1,5\n", row2[] = "2,6\n", csv_head[] = "epoch,note\n";
static const char json1[] = "{\"epoch\": 1, \"note\": 5}\n", json2[] = "{\"epoch\": 2, \"note\": 6}\n";
static const char *csv_before, *json_before; /* NULL: not there */

static void put_or_remove(const char *path, const char *text) {
  if (text)
    put_file(path, text, strlen(text));
  else
    (void)unlink(path);
}

static bool holds(const char *path, const char *a, const char *b, const char *c) {
  char expected[200];
  size_t size;
  if (access(path, F_OK) != 0) return false;
  uint8_t *bytes = get_file(path, &size);
  (void)snprintf(expected, sizeof expected, "%s%s%s", a, b, c);
  const bool same = size == strlen(expected) && memcmp(bytes, expected, size) == 0;
  free(bytes);
  return same;
}

/* Neither counts nor fails what the test itself does. */
typedef struct Pause {
  long memory, calls;
} Pause;
static Pause pause_failures(void) {
  const Pause pause = {left, calls_left};
  left = -1;
  calls_left = -1;
  return pause;
}
static void go_on(Pause pause) {
  left = pause.memory;
  calls_left = pause.calls;
}

/* Continues the log after epoch 1 with epoch 2. A row that fails leaves none of itself. */
static NitiStatus continue_log(const char *dir) {
  const NitiField row[] = {niti_field_integer("epoch", 2), niti_field_integer("note", 6)};
  NitiLog *log;
  Pause pause = pause_failures();
  const char *csv = path_of("%s/metrics.csv", dir), *json = path_of("%s/metrics.jsonl", dir);
  const bool rows = csv_before && json_before && strcmp(csv_before, csv_head) > 0 && *csv_before != '?';
  put_or_remove(csv, csv_before);
  put_or_remove(json, json_before);
  go_on(pause);
  NITI_TRY(niti_log_open(&log, dir, 1, keys, 2));
  const bool there = why != ENOENT; /* else a log that is there may have been taken for missing, and begun anew */
  const char *note = niti_log_note(log, 0);
  const bool lost = note && strstr(note, "are missing"), noted = note && !lost;
  const bool reasoned = noted && (strstr(note, strerror(why)) || strstr(note, "record 1"));
  if (there && lost != !csv_before) fail_msg("%s: what is missing is not told, or told wrongly", note ? note : "no note");
  const NitiStatus status = niti_log_row(log, row, 2);
  pause = pause_failures();
  niti_log_close(log);
  if (!noted && status == NITI_OK && there) {
    assert_true(holds(csv, csv_head, rows ? row1 : "", row2));
    assert_true(holds(json, rows ? json1 : "", json2, ""));
  }
  if (!noted && status != NITI_OK && one_alone && there) {
    assert_true(holds(csv, rows ? csv_head : "", rows ? row1 : "", ""));
    assert_true(holds(json, rows ? json1 : "", "", ""));
  }
  if (noted && !reasoned) fail_msg("a note without the reason, %s", strerror(why));
  for (int i = 0; i < 2; ++i) {
    const char *name = i ? "jsonl" : "csv";
    (void)unlink(path_of("%s/metrics.%s.bak", dir, name));
    for (int n = 2; unlink(path_of("%s/metrics.%s.bak%d", dir, name, n)) == 0; ++n) {
    }
  }
  go_on(pause);
  return status;
}

static void logs_that_fail(void **state) {
  (void)state;
  static const char *const files[][2] = {
      {NULL, NULL},                                                            /* a new run */
      {"epoch,note\n1,5\n", "{\"epoch\": 1, \"note\": 5}\n"},                  /* nothing to cut */
      {"epoch,note\n1,5\n2,9\n3,", "{\"epoch\": 1, \"note\": 5}\n{\"epoch\""}, /* rows to cut */
      {"?\n", "{}\n"},                                                         /* not ours */
  };
  char *dir = make_temp();
  for (int i = 0; i < 4; ++i) {
    csv_before = files[i][0];
    json_before = files[i][1];
    why = EIO;
    fail_all("a log", continue_log, dir);
    fail_calls("a log, and nothing can be taken back", continue_log, dir, EIO, 2);
    fail_calls("a log, from then on", continue_log, dir, EIO, 9);
    fail_calls("a log that cannot be synced", continue_log, dir, EINVAL, 1); /* pipes and the like */
  }
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(folders_that_fail),
      cmocka_unit_test(classes_without_images_that_fail),
      cmocka_unit_test(images_that_fail),
      cmocka_unit_test(logs_that_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

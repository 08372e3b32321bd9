/* Image folders: which files make which split and class, what is left aside, names, and images that cannot be read. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include <dirent.h>
#include <dlfcn.h>

#include "data/loader.h"
#include "data_open.h"
#include "guarded.h"

/* Entries that were looked at. */
static int64_t entries;

struct dirent *readdir(DIR *folder) {
  struct dirent *(*next)(DIR *);
  *(void **)&next = dlsym(RTLD_NEXT, "readdir");
  ++entries;
  return next(folder);
}

static void folder_is_read(void **state) {
  (void)state;
  const char *tests[] = {"test", "val", "validation", "valid", "TESTING"};
  for (int t = 0; t < 5; ++t) {
    char *dir = put_folder(tests[t]);
    NitiDataset *dataset = open_good(dir, t ? NITI_DATA_AUTO : NITI_DATA_FOLDER, t == 2 ? NULL : &size8);
    assert_string_equal(niti_dataset_kind(dataset), "folder");
    assert_int_equal(niti_dataset_classes(dataset), 2);
    assert_string_equal(niti_dataset_class_name(dataset, 0), "a");
    assert_string_equal(niti_dataset_class_name(dataset, 1), "b");
    assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 3);
    assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 2);
    assert_null(niti_dataset_images(dataset, NITI_TRAIN));
    const NitiShape shape = niti_dataset_shape(dataset);
    assert_true(shape.n == 1 && shape.h == 8 && shape.w == 8 && shape.c == 1);
    for (int i = 0; i < 5; ++i) { /* byte order: 10.PNG before 9.png */
      uint8_t out[64];
      const NitiSplit split = i < 3 ? NITI_TRAIN : NITI_TEST;
      const int index = i < 3 ? i : i - 3;
      assert_int_equal(niti_dataset_read(dataset, split, index, true, 0, 0, out), NITI_OK);
      for (int p = 0; p < 64; ++p) assert_int_equal(out[p], 10 * i + 5);
      assert_int_equal(niti_dataset_label(dataset, split, index), i == 0 || i == 3 ? 0 : 1);
    }
    niti_dataset_close(dataset);
    remove_temp(dir);
  }
}

static void folder_damage_is_told(void **state) {
  (void)state;
  char *dir = put_folder("val");
  uint8_t out[64] = {0};
  const char *bad = path_of("%s/train/b/10.PNG", dir);
  put_file(bad, "not an image", 12);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8); /* nothing is decoded yet */
  check_error((int)niti_dataset_read(dataset, NITI_TRAIN, 1, true, 0, 0, out), NITI_ERROR_FORMAT, niti_error(), bad,
              "neither a JPEG nor a PNG");
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  check_error((int)niti_dataset_statistics(dataset, mean, std), NITI_ERROR_FORMAT, niti_error(), "10.PNG",
              "neither a JPEG nor a PNG");
  assert_int_equal(remove(bad), 0);
  check_error((int)niti_dataset_read(dataset, NITI_TRAIN, 1, true, 0, 0, out), NITI_ERROR_FILE, niti_error(), "10.PNG",
              "No such file");
  niti_dataset_close(dataset);
  expect_open(NITI_ERROR_ARGUMENT, dir, NITI_DATA_AUTO, &(NitiShape){1, 8, 8, 4}, "4 channels", "expected 1 (grey) or 3");

  put_dir(path_of("%s/val/c", dir));
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, &size8, "/train: class folder 'c' is missing", "/val has it");
  assert_int_equal(rmdir(path_of("%s/val/c", dir)), 0);
  put_dir(path_of("%s/train/ab", dir));
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, &size8, "/train/ab: expected at least one .jpg", ".png file");
  put_file(path_of("%s/train/ab/x.webp", dir), "x", 1);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, &size8, "/train/ab: expected at least one .jpg",
              "not read: 1 file of another type (ab/x.webp)");
  put_png(path_of("%s/train/ab/x.png", dir), 8, 8, 1, out);
  niti_dataset_close(open_good(dir, NITI_DATA_AUTO, &size8)); /* a class needs no test images */
  assert_int_equal(rename(path_of("%s/val", dir), path_of("%s/other", dir)), 0);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, &size8, "/test: not found", "valid or validation");
  assert_int_equal(rename(path_of("%s/train", dir), path_of("%s/val", dir)), 0);
  expect_open(NITI_ERROR_FILE, dir, NITI_DATA_AUTO, &size8, "/train: not found", dir);
  put_dir(path_of("%s/train", dir));
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, &size8, "/train: expected one folder per class, found none", dir);
  remove_temp(dir);
}

/* ---- layouts ---- */

/* A flat grey image of `value`. */
static void put_grey(const char *path, uint8_t value) {
  uint8_t pixels[64];
  memset(pixels, value, sizeof pixels);
  put_png(path, 8, 8, 1, pixels);
}

static uint8_t first_pixel(const NitiDataset *dataset, NitiSplit split, int64_t index) {
  uint8_t out[64];
  if (niti_dataset_read(dataset, split, index, true, 0, 0, out) != NITI_OK) fail_msg("%s", niti_error());
  return out[0];
}

/* Makes DIR/NAME and every folder above it. */
static const char *put_dirs(const char *dir, const char *name) {
  const char *path = path_of("%s/%s", dir, name);
  char part[512];
  for (size_t i = strlen(dir) + 1; i <= strlen(path); ++i) {
    if (path[i] != '/' && path[i] != 0) continue;
    (void)snprintf(part, sizeof part, "%.*s", (int)i, path);
    (void)mkdir(part, 0777);
  }
  return path;
}

static const char *find_note(const NitiDataset *dataset, const char *text) {
  const char *note;
  for (int i = 0; (note = niti_dataset_note(dataset, i)) != NULL; ++i) {
    if (strstr(note, text)) return note;
  }
  return NULL;
}

static void expect_note(const NitiDataset *dataset, const char *path, const char *text) {
  const char *note = find_note(dataset, path);
  if (!note || !strstr(note, text)) fail_msg("no note with '%s' and '%s', but '%s'", path, text, note ? note : "none");
}

static void nested_folders_are_read_in_byte_order(void **state) {
  (void)state;
  char *dir = put_folder("test");
  put_grey(path_of("%s/x.png", put_dirs(dir, "train/a/session 2")), 100);
  put_grey(path_of("%s/x.png", put_dirs(dir, "train/a/Session/deep/er")), 101);
  put_grey(path_of("%s/zz.png", put_dirs(dir, "train/b/zz")), 102);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  const struct {
    const char *file;
    int pixel, label;
  } expected[] = {{"a/Session/deep/er/x.png", 101, 0},
                  {"a/session 2/x.png", 100, 0},
                  {"a/z.png", 5, 0},
                  {"b/10.PNG", 15, 1},
                  {"b/9.png", 25, 1},
                  {"b/zz/zz.png", 102, 1}};
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 6);
  for (int i = 0; i < 6; ++i) {
    assert_string_equal(niti_dataset_file(dataset, NITI_TRAIN, i), expected[i].file);
    assert_int_equal(first_pixel(dataset, NITI_TRAIN, i), expected[i].pixel);
    assert_int_equal(niti_dataset_label(dataset, NITI_TRAIN, i), expected[i].label);
  }
  expect_note(dataset, "/train: not read: ", "2 files of other types (first: README), 1 hidden entry (.hidden)");
  assert_null(find_note(dataset, "/test"));
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void links_are_followed_but_not_in_circles(void **state) {
  (void)state;
  char *dir = put_folder("test");
  put_grey(path_of("%s/x.png", put_dirs(dir, "elsewhere/deep")), 100);
  assert_int_equal(symlink(path_of("%s/elsewhere", dir), path_of("%s/train/a/linked", dir)), 0);
  assert_int_equal(symlink("..", path_of("%s/train/a/up", dir)), 0); /* back to train */
  assert_int_equal(symlink(".", path_of("%s/train/a/self", dir)), 0);
  assert_int_equal(symlink("nowhere", path_of("%s/train/a/gone.png", dir)), 0); /* named as an image: it must not be lost */
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 5);
  assert_string_equal(niti_dataset_file(dataset, NITI_TRAIN, 1), "a/linked/deep/x.png");
  expect_note(dataset, "/train: not read: ", "links to folders above them (first: a/self)");
  assert_int_equal(niti_dataset_survey(dataset, NITI_TRAIN), NITI_OK);
  assert_int_equal(niti_dataset_bad_count(dataset, NITI_TRAIN), 1);
  assert_non_null(strstr(niti_dataset_bad(dataset, NITI_TRAIN, 0), "/train/a/gone.png: "));
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void folders_end_at_a_limit(void **state) {
  (void)state;
  char *dir = put_folder("test"), name[64] = "train/a";
  for (int depth = 1; depth <= 17; ++depth) { /* 16 below the class's folder are read */
    (void)snprintf(name + strlen(name), sizeof name - strlen(name), "/%d", depth % 10);
    put_grey(path_of("%s/x.png", put_dirs(dir, name)), 100);
  }
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 3 + 16);
  expect_note(dataset, "/train: not read: ", "1 folder too deep (a/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7)");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void val_beside_test_is_validation(void **state) {
  (void)state;
  char *dir = put_folder("test");
  put_grey(path_of("%s/x.png", put_dirs(dir, "Valid/b")), 100);
  put_grey(path_of("%s/y.png", put_dirs(dir, "Valid/b")), 101);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 2);
  assert_int_equal(niti_dataset_count(dataset, NITI_VALIDATION), 2);
  assert_int_equal(first_pixel(dataset, NITI_TEST, 0), 35);
  assert_int_equal(first_pixel(dataset, NITI_VALIDATION, 1), 101);
  assert_int_equal(niti_dataset_label(dataset, NITI_VALIDATION, 0), 1);
  expect_note(dataset, "/Valid: ", "no validation images of 1 of 2 classes: a");
  niti_dataset_close(dataset);
  put_dirs(dir, "val");
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, &size8, dir, "holds both ");
  remove_temp(dir);
}

/* ---- one split alone, and labels ---- */

static void a_split_is_opened_alone(void **state) {
  (void)state;
  char *dir = put_folder("test");
  NitiDataset *dataset = NULL;
  const NitiDataRequest test = {.size = size8, .need = NITI_SPLIT_BIT(NITI_TEST)};
  assert_int_equal(rename(path_of("%s/train", dir), path_of("%s/elsewhere", dir)), 0);
  assert_int_equal(niti_dataset_open(&dataset, dir, NULL, &test), NITI_OK);
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 0);
  assert_int_equal(niti_dataset_classes(dataset), 2);
  assert_int_equal(niti_dataset_label(dataset, NITI_TEST, 1), 1);
  niti_dataset_close(dataset);
  put_file(path_of("%s/test/b/y.png", dir), "broken", 6); /* a split that is not requested is not read */
  assert_int_equal(rename(path_of("%s/elsewhere", dir), path_of("%s/train", dir)), 0);
  const NitiDataRequest train = {.size = size8, .need = NITI_SPLIT_BIT(NITI_TRAIN)};
  assert_int_equal(niti_dataset_open(&dataset, dir, NULL, &train), NITI_OK);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 0);
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* Work that grows with the square of the number of blank lines would not end today. */
static void any_number_of_blank_lines_is_read(void **state) {
  (void)state;
  enum { LINES = 1 << 22 };
  char *dir = put_folder("test"), *text = malloc(LINES + 16);
  memset(text, '\n', LINES);
  (void)snprintf(text + LINES, 16, "b beta\n\n \n");
  put_file(path_of("%s/classes.txt", dir), text, strlen(text));
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_string_equal(niti_dataset_class_label(dataset, 1), "beta");
  niti_dataset_close(dataset);
  free(text);
  remove_temp(dir);
}

static void labels_stand_in_classes_txt(void **state) {
  (void)state;
  static const char text[] =
      "\xef\xbb\xbf"
      "b gas pump\r\n\r\nabsent  nothing\r\nb 2\tthe second b \t\r\na\r\n";
  char *dir = put_folder("test");
  put_grey(path_of("%s/x.png", put_dirs(dir, "train/b 2")), 1);
  put_file(path_of("%s/classes.txt", dir), text, sizeof text - 1);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  const char *const labels[] = {"a", "gas pump", "the second b"}, *const names[] = {"a", "b", "b 2"};
  for (int i = 0; i < 3; ++i) {
    assert_string_equal(niti_dataset_class_label(dataset, i), labels[i]);
    assert_string_equal(niti_dataset_class_name(dataset, i), names[i]);
  }
  assert_null(niti_dataset_class_label(dataset, 3));
  niti_dataset_close(dataset);
  put_file(path_of("%s/classes.txt", dir), "b x\nb y\n", 8);
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, &size8, "classes.txt: line 2: ", "a second line for class 'b'");
  put_file(path_of("%s/classes.txt", dir), "b x\n\0a y\n", 9); /* what follows would be lost */
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, &size8, "classes.txt: byte 4: ", "a zero byte in a text");
  put_file(path_of("%s/classes.txt", dir), "1 a\n2 b\n", 8);
  dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_string_equal(niti_dataset_class_label(dataset, 0), "a");
  expect_note(dataset, "/classes.txt: not used: ", "such as 'a'");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* ---- images that cannot be read ---- */

/* put_folder with two of the five training images bad. */
static char *put_bad_folder(void) {
  char *dir = put_folder("test");
  put_grey(path_of("%s/train/b/n.png", dir), 200);
  put_grey(path_of("%s/train/b/o.png", dir), 100);
  put_file(path_of("%s/train/b/10.PNG", dir), "", 0);
  put_file(path_of("%s/train/b/n.png", dir), "\x89PNG\r\n\x1a\n", 8);
  return dir;
}

static NitiDataset *open_skipping(const char *dir) {
  const NitiDataOptions options = {.bad_files = NITI_BAD_SKIP};
  const NitiDataRequest request = request_of(&size8);
  NitiDataset *dataset = NULL;
  if (niti_dataset_open(&dataset, dir, &options, &request) != NITI_OK) fail_msg("%s", niti_error());
  return dataset;
}

static void every_bad_image_is_listed(void **state) {
  (void)state;
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  char *dir = put_bad_folder();
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_int_equal(niti_dataset_survey(dataset, NITI_TEST), NITI_OK);
  assert_int_equal(niti_dataset_bad_count(dataset, NITI_TEST), 0);
  for (int again = 0; again < 2; ++again) {
    assert_int_equal(niti_dataset_survey(dataset, NITI_TRAIN), NITI_OK);
    assert_int_equal(niti_dataset_bad_count(dataset, NITI_TRAIN), 2);
    assert_string_equal(niti_dataset_bad(dataset, NITI_TRAIN, 0),
                        path_of("%s/train/b/10.PNG: byte 0: neither a JPEG nor a PNG file (it is empty)", dir));
    assert_non_null(strstr(niti_dataset_bad(dataset, NITI_TRAIN, 1), path_of("%s/train/b/n.png: not a sound PNG", dir)));
    assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 5);
  }
  /* Statistics of those that are good: 5, 25, 100: mean 130 / 3 / 255, deviation sqrt(15050 / 9) / 255 = 0.160364. */
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_int_equal(mean[0], 169935);
  assert_int_equal(std[0], 160364);
  check_error((int)niti_dataset_check(dataset, NITI_TRAIN), NITI_ERROR_FORMAT, niti_error(), "/train/b/10.PNG: byte 0",
              "(and 1 more bad training image:");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void bad_images_are_left_out(void **state) {
  (void)state;
  char skipped[65], deleted[65];
  char *dir = put_bad_folder();
  NitiDataset *dataset = open_skipping(dir);
  assert_int_equal(niti_dataset_check(dataset, NITI_TRAIN), NITI_OK);
  const struct {
    const char *file;
    int pixel, label;
  } expected[] = {{"a/z.png", 5, 0}, {"b/9.png", 25, 1}, {"b/o.png", 100, 1}};
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), 3);
  for (int i = 0; i < 3; ++i) {
    assert_string_equal(niti_dataset_file(dataset, NITI_TRAIN, i), expected[i].file);
    assert_int_equal(first_pixel(dataset, NITI_TRAIN, i), expected[i].pixel);
    assert_int_equal(niti_dataset_label(dataset, NITI_TRAIN, i), expected[i].label);
  }
  expect_note(dataset, "/train: 2 images left out", "first ");
  expect_note(dataset, "/train: 2 images left out", "/train/b/10.PNG: byte 0");
  assert_int_equal(niti_dataset_hash(dataset, NITI_TRAIN, skipped), NITI_OK);
  niti_dataset_close(dataset);
  /* As if they had never been there. */
  assert_int_equal(remove(path_of("%s/train/b/10.PNG", dir)), 0);
  assert_int_equal(remove(path_of("%s/train/b/n.png", dir)), 0);
  dataset = open_skipping(dir);
  assert_int_equal(niti_dataset_check(dataset, NITI_TRAIN), NITI_OK);
  assert_null(find_note(dataset, "left out"));
  assert_int_equal(niti_dataset_hash(dataset, NITI_TRAIN, deleted), NITI_OK);
  assert_string_equal(skipped, deleted);
  niti_dataset_close(dataset);
  /* Every class must keep a training image; of the test images only one need be left. */
  put_file(path_of("%s/train/a/z.png", dir), "", 0);
  put_file(path_of("%s/test/a/x.jpeg", dir), "", 0);
  dataset = open_skipping(dir);
  check_error((int)niti_dataset_check(dataset, NITI_TRAIN), NITI_ERROR_FORMAT, niti_error(), "/train/a/z.png: byte 0",
              "none of its class's training images");
  assert_int_equal(niti_dataset_check(dataset, NITI_TEST), NITI_OK);
  assert_int_equal(niti_dataset_count(dataset, NITI_TEST), 1);
  niti_dataset_close(dataset);
  put_file(path_of("%s/test/b/y.png", dir), "", 0);
  dataset = open_skipping(dir);
  check_error((int)niti_dataset_check(dataset, NITI_TEST), NITI_ERROR_FORMAT, niti_error(), "/test: none of its images",
              "x.jpeg");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void the_first_image_that_can_give_the_size_does(void **state) {
  (void)state;
  static uint8_t wide[16385];
  char *dir = put_folder("test");
  put_png(path_of("%s/train/a/1.png", dir), 1, 16385, 1, wide);
  put_file(path_of("%s/train/a/0.png", dir), "", 0);
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  const NitiShape shape = niti_dataset_shape(dataset);
  assert_true(shape.h == 8 && shape.w == 8 && shape.c == 1);
  expect_note(dataset, "/train/a/1.png: ", "1x16385 pixels");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* ---- long work ---- */

enum { LARGE = 1000, LINKS = 500, TAKEN = 60 };

/* Images that take a while: links to one large one. */
static char *put_large_folder(void) {
  char *dir = make_temp();
  uint8_t *pixels = malloc(LARGE * LARGE * 3);
  for (int i = 0; i < LARGE * LARGE * 3; ++i) pixels[i] = (uint8_t)next_random(); /* large files too */
  for (int i = 0; i < 2 * LINKS; ++i) {
    const char *path = path_of("%s/%d.png", put_dirs(dir, i % 2 ? "train/b" : "train/a"), i);
    if (i == 0)
      put_png(path, LARGE, LARGE, 3, pixels);
    else
      assert_int_equal(link(path_of("%s/train/a/0.png", dir), path), 0);
  }
  free(pixels);
  return dir;
}

typedef struct Watched {
  int calls, stop_at; /* stop_at 0: never */
  int64_t done, total;
  char what[64];
} Watched;

static bool watch(void *context, const char *what, int64_t done, int64_t total) {
  Watched *w = context;
  assert_true(strcmp(w->what, what) != 0 || done >= w->done);
  (void)snprintf(w->what, sizeof w->what, "%s", what);
  w->done = done;
  w->total = total;
  return ++w->calls != w->stop_at;
}

static void long_work_is_told_and_can_be_stopped(void **state) {
  (void)state;
  char *dir = put_large_folder(), text[65];
  Watched watched = {.stop_at = 0}; /* opening may take long too */
  NitiDataset *dataset = NULL;
  const NitiDataRequest request = {.size = {1, 8, 8, 3}, .need = NITI_SPLIT_BIT(NITI_TRAIN), .watch = {watch, &watched}};
  assert_int_equal(niti_dataset_open(&dataset, dir, NULL, &request), NITI_OK);
  watched = (Watched){.stop_at = 1};
  check_error((int)niti_dataset_check(dataset, NITI_TRAIN), NITI_INTERRUPTED, niti_error(), "interrupted while reading training",
              "");
  assert_true(watched.calls == 1 && watched.done <= 2 * LINKS && watched.total == 2 * LINKS);
  assert_int_equal(niti_dataset_bad_count(dataset, NITI_TRAIN), 0);
  watched = (Watched){.stop_at = 1};
  check_error((int)niti_dataset_hash(dataset, NITI_TRAIN, text), NITI_INTERRUPTED, niti_error(), "interrupted while hashing",
              "training");
  /* A batch that takes long: stopped, and then waited for. */
  const NitiDataOptions data = {0};
  const NitiLoaderOptions options = {.split = NITI_TRAIN, .input = {1, 8, 8, 3}, .batch = TAKEN, .workers = 1};
  NitiLoader *loader = NULL;
  NitiBatch batch;
  watched = (Watched){.stop_at = 1};
  assert_int_equal(niti_loader_open(&loader, dataset, &data, &options), NITI_OK);
  assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
  check_error((int)niti_loader_next(loader, &batch), NITI_INTERRUPTED, niti_error(), "interrupted while waiting for images", "");
  assert_int_equal(batch.count, 0);
  assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
  assert_int_equal(batch.count, TAKEN);
  niti_loader_close(loader);
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* ---- other people's folders ---- */

static void folders_that_are_no_data_set_get_a_hint(void **state) {
  (void)state;
  char *dir = make_temp();
  put_grey(path_of("%s/x.png", put_dirs(dir, "flat/a/deep")), 1);
  put_grey(path_of("%s/x.png", put_dirs(dir, "images")), 1);
  put_dirs(dir, "outer/inner/train");
  put_file(path_of("%s/data_batch_1", put_dirs(dir, "py")), "\x80\x04", 2);
  put_file(path_of("%s/set.tar.gz", put_dirs(dir, "packed")), "", 0);
  expect_open(NITI_ERROR_FORMAT, path_of("%s/flat", dir), NITI_DATA_AUTO, NULL,
              "/flat: no data set found: ", "move each class's");
  expect_open(NITI_ERROR_FORMAT, path_of("%s/images", dir), NITI_DATA_AUTO, NULL, "/images: ", "no class folders");
  expect_open(NITI_ERROR_FORMAT, path_of("%s/outer", dir), NITI_DATA_AUTO, NULL,
              "/outer: ", "its folder inner looks like one (folder)");
  expect_open(NITI_ERROR_FORMAT, path_of("%s/py", dir), NITI_DATA_AUTO, NULL, "/py: ", "CIFAR-10 for Python");
  expect_open(NITI_ERROR_FORMAT, path_of("%s/packed", dir), NITI_DATA_AUTO, NULL, "/packed: ", "unpack them");
  expect_open(NITI_ERROR_FORMAT, path_of("%s/outer/inner", dir), NITI_DATA_IDX, NULL, "/inner: ", "but one of kind folder");
  remove_temp(dir);
}

enum { TREE_LINKS = 40, TREE_LEVELS = 3 };

/* DIR/0 to DIR/TREE_LEVELS, each but the last with TREE_LINKS links to the next: 40^3 ways to the end from DIR/0. */
static void put_links(const char *dir) {
  for (int level = 0; level < TREE_LEVELS; ++level) {
    put_dirs(dir, path_of("%d", level));
    for (int i = 0; i < TREE_LINKS; ++i)
      assert_int_equal(symlink(path_of("../%d", level + 1), path_of("%s/%d/%d", dir, level, i)), 0);
  }
  put_dirs(dir, path_of("%d", TREE_LEVELS));
}

static void a_hint_looks_at_few_entries(void **state) {
  (void)state;
  char *dir = make_temp();
  put_links(dir);
  for (int i = 0; i < 300; ++i) put_grey(path_of("%s/%d.png", put_dirs(dir, "a"), i), 1);
  entries = 0;
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, ": no data set found: it has folders of images (a)", "move each");
  assert_in_range(entries, 1, 10000);
  entries = 0;
  expect_open(NITI_ERROR_FORMAT, path_of("%s/0", dir), NITI_DATA_AUTO, NULL, "/0: no data set found; looked for", "");
  assert_in_range(entries, 1, 40000); /* of 40^3 ways, each to a folder of three entries */
  remove_temp(dir);

  dir = make_temp(); /* one image is enough, however many there are */
  for (int i = 0; i < 3000; ++i) put_grey(path_of("%s/%d.png", dir, i), 1);
  entries = 0;
  expect_open(NITI_ERROR_FORMAT, dir, NITI_DATA_AUTO, NULL, "no class folders", "move them");
  assert_in_range(entries, 3000, 6100); /* once for splits, once for names */
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(folder_is_read),
      cmocka_unit_test(folder_damage_is_told),
      cmocka_unit_test(nested_folders_are_read_in_byte_order),
      cmocka_unit_test(links_are_followed_but_not_in_circles),
      cmocka_unit_test(folders_end_at_a_limit),
      cmocka_unit_test(val_beside_test_is_validation),
      cmocka_unit_test(a_split_is_opened_alone),
      cmocka_unit_test(labels_stand_in_classes_txt),
      cmocka_unit_test(any_number_of_blank_lines_is_read),
      cmocka_unit_test(every_bad_image_is_listed),
      cmocka_unit_test(bad_images_are_left_out),
      cmocka_unit_test(the_first_image_that_can_give_the_size_does),
      cmocka_unit_test(long_work_is_told_and_can_be_stopped),
      cmocka_unit_test(folders_that_are_no_data_set_get_a_hint),
      cmocka_unit_test(a_hint_looks_at_few_entries),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

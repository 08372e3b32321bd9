/* The validation split against its definition in docs/arithmetic.md, for images in memory and in files, and what it leaves. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "data/loader.h"
#include "data_open.h"

enum { COUNT = 40, TESTS = 4, CLASSES = 5, SIDE = 4 };
static const uint64_t long_seed = UINT64_C(0x123456789abcdef0);

/* Class 3 has a single image, class 4 two, the others 13, 12 and 12. */
static uint8_t label_value(size_t i) { return (uint8_t)(i == 7 ? 3 : i % 20 == 11 ? 4 : i % 3); }
static uint8_t pixel_value(size_t i) { return (uint8_t)(i / (SIDE * SIDE) * 5 + i % 3); }

static char *put_idx_set(void) { return put_idx_folder(COUNT, TESTS, SIDE, pixel_value, label_value); }

/* ---- the definition ---- */

/* held[COUNT] of labels[COUNT], computed as plainly as possible. Returns how many. */
static int expect_held(bool *held, const int *labels, int wanted, uint64_t seed) {
  int size[CLASSES] = {0}, quota[CLASSES], all = 0;
  bool asked[CLASSES] = {false};
  memset(held, 0, COUNT * sizeof *held);
  for (int i = 0; i < COUNT; ++i) ++size[labels[i]];
  for (int c = 0; c < CLASSES; ++c) all += quota[c] = size[c] * wanted / COUNT;
  while (all < wanted) {
    int best = -1;
    for (int c = 0; c < CLASSES; ++c) {
      if (asked[c] || quota[c] + 1 >= size[c]) continue;
      if (best < 0 || size[c] * wanted % COUNT > size[best] * wanted % COUNT) best = c;
    }
    if (best < 0) break;
    asked[best] = true;
    ++quota[best];
    ++all;
  }
  for (int c = 0; c < CLASSES; ++c) {
    for (int taken = 0; taken < quota[c]; ++taken) {
      int smallest = -1;
      for (int i = 0; i < COUNT; ++i) {
        if (labels[i] != c || held[i]) continue;
        const uint32_t word = niti_random(seed, NITI_DRAW_VALIDATION, 0, 0, (uint64_t)i);
        if (smallest < 0 || word < niti_random(seed, NITI_DRAW_VALIDATION, 0, 0, (uint64_t)smallest)) smallest = i;
      }
      held[smallest] = true;
    }
  }
  return all;
}

/* Both splits hold what they should, in order. */
static void check_splits(const NitiDataset *dataset, const bool *held, const int *labels) {
  int64_t next[2] = {0};
  for (int i = 0; i < COUNT; ++i) {
    const NitiSplit split = held[i] ? NITI_VALIDATION : NITI_TRAIN;
    const int64_t index = next[held[i]]++;
    uint8_t pixels[SIDE * SIDE];
    assert_int_equal(niti_dataset_place(dataset, split, index), i);
    assert_int_equal(niti_dataset_label(dataset, split, index), labels[i]);
    assert_int_equal(niti_dataset_read(dataset, split, index, true, 0, 0, pixels), NITI_OK);
    assert_int_equal(pixels[0], pixel_value((size_t)i * SIDE * SIDE));
  }
  assert_int_equal(niti_dataset_count(dataset, NITI_TRAIN), next[0]);
  assert_int_equal(niti_dataset_count(dataset, NITI_VALIDATION), next[1]);
  assert_int_equal(niti_dataset_stored(dataset, NITI_VALIDATION), COUNT);
}

static void held_out_images_are_those_of_the_definition(void **state) {
  (void)state;
  char *dir = put_idx_set();
  bool held[COUNT];
  int labels[COUNT], fewer = 0;
  for (int i = 0; i < COUNT; ++i) labels[i] = label_value((size_t)i);
  for (int wanted = 1; wanted < COUNT; ++wanted) {
    NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
    const uint64_t seed = long_seed + (uint64_t)wanted % 3;
    const int all = expect_held(held, labels, wanted, seed);
    assert_int_equal(niti_dataset_hold_out(dataset, wanted, 0, seed), NITI_OK);
    check_splits(dataset, held, labels);
    assert_ptr_equal(niti_dataset_images(dataset, NITI_TRAIN), niti_dataset_images(dataset, NITI_VALIDATION)); /* one store */
    assert_int_equal(niti_dataset_count(dataset, NITI_TEST), TESTS);
    assert_false(held[7]); /* the only one of its class */
    fewer += all < wanted;
    niti_dataset_close(dataset);
  }
  assert_true(fewer > 0 && fewer < 10);
  remove_temp(dir);
}

static void shares_are_rounded_to_the_nearest(void **state) {
  (void)state;
  char *dir = put_idx_set();
  const struct {
    int32_t share;
    int64_t count;
  } cases[] = {{250000, 10}, {100000, 4}, {12500, 1}, {37500, 2}, {37499, 1}, {500000, 20}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
    assert_int_equal(niti_dataset_hold_out(dataset, 0, cases[i].share, 1), NITI_OK);
    assert_int_equal(niti_dataset_count(dataset, NITI_VALIDATION), cases[i].count);
    niti_dataset_close(dataset);
  }
  remove_temp(dir);
}

static void expect_refusal(NitiDataset *dataset, int64_t count, int32_t share, const char *a, const char *b) {
  check_error((int)niti_dataset_hold_out(dataset, count, share, 1), NITI_ERROR_ARGUMENT, niti_error(), a, b);
}

static void what_cannot_be_held_out_is_refused(void **state) {
  (void)state;
  char *dir = put_idx_set();
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  expect_refusal(dataset, COUNT, 0, dir, "data.validation is 40 of 40 training images (expected 1 to 39)");
  expect_refusal(dataset, 0, 12499, dir, "data.validation is 0 of 40");
  expect_refusal(dataset, 0, 999999, dir, "data.validation is 40 of 40");
  assert_int_equal(niti_dataset_hold_out(dataset, 5, 0, 1), NITI_OK);
  expect_refusal(dataset, 5, 0, dir, "held out already");
  niti_dataset_close(dataset);
  remove_temp(dir);
  dir = put_folder("test");
  put_dir(path_of("%s/val", dir));
  put_dir(path_of("%s/val/a", dir));
  put_png(path_of("%s/val/a/x.png", dir), 8, 8, 1, (const uint8_t[64]){0});
  dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  expect_refusal(dataset, 1, 0, "/val: holds validation images", "data.validation must be 0");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* ---- what follows ---- */

/* A loader's images, in its order: labels and places of one epoch. */
static int walk(const NitiDataset *dataset, NitiSplit split, bool augment, int64_t *places) {
  const NitiDataOptions data = {0};
  const NitiLoaderOptions options = {
      .split = split, .input = niti_dataset_shape(dataset), .batch = 7, .seed = long_seed, .augment = augment};
  NitiLoader *loader = NULL;
  NitiBatch batch;
  int count = 0;
  if (niti_loader_open(&loader, dataset, &data, &options) != NITI_OK) fail_msg("%s", niti_error());
  assert_int_equal(niti_loader_start(loader, 3, 0), NITI_OK);
  for (;;) {
    assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
    if (batch.count == 0) break;
    if (batch.resident) assert_int_equal(batch.total, COUNT);
    for (int i = 0; i < batch.count; ++i) {
      const size_t image = niti_shape_image(batch.source);
      places[count++] = batch.resident ? batch.samples[i].image : batch.images[batch.samples[i].image * image];
    }
  }
  niti_loader_close(loader);
  return count;
}

static void loaders_walk_the_split(void **state) {
  (void)state;
  char *dir = put_idx_set();
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, NULL);
  int64_t places[COUNT];
  assert_int_equal(niti_dataset_hold_out(dataset, 0, 300000, long_seed), NITI_OK);
  assert_int_equal(walk(dataset, NITI_VALIDATION, false, places), 12);
  for (int i = 0; i < 12; ++i) assert_int_equal(places[i], niti_dataset_place(dataset, NITI_VALIDATION, i));
  /* Training shuffles the images that are left, numbered from 0. */
  int64_t order[COUNT];
  for (int i = 0; i < 28; ++i) order[i] = i;
  for (int i = 27; i >= 1; --i) {
    const int j = (int)(((uint64_t)niti_random(long_seed, NITI_DRAW_SHUFFLE, 3, 0, (uint64_t)i) * (uint64_t)(i + 1)) >> 32);
    const int64_t swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
  assert_int_equal(walk(dataset, NITI_TRAIN, true, places), 28);
  for (int i = 0; i < 28; ++i) assert_int_equal(places[i], niti_dataset_place(dataset, NITI_TRAIN, order[i]));
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void folders_are_split_too(void **state) {
  (void)state;
  char *dir = put_folder("test"), before[65], after[65];
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  int64_t values[COUNT];
  NitiDataset *dataset = open_good(dir, NITI_DATA_AUTO, &size8);
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_int_equal(niti_dataset_hash(dataset, NITI_TRAIN, before), NITI_OK);
  assert_int_equal(niti_dataset_hold_out(dataset, 1, 0, 4), NITI_OK); /* one of class b's two: 15 or 25; a's only one is 5 */
  assert_int_equal(walk(dataset, NITI_VALIDATION, false, values), 1);
  const int64_t held = values[0];
  assert_true(held == 15 || held == 25);
  assert_int_equal(walk(dataset, NITI_TRAIN, false, values), 2);
  assert_true(values[0] == 5 && values[1] == 40 - held);
  assert_int_equal(niti_dataset_label(dataset, NITI_VALIDATION, 0), 1);
  /* Statistics are those of what is left; the files are the same as before. */
  assert_int_equal(niti_dataset_statistics(dataset, mean, std), NITI_OK);
  assert_int_equal(mean[0], (int)(((5 + 40 - held) * 2000000 + 510) / 1020));
  assert_int_equal(niti_dataset_hash(dataset, NITI_TRAIN, after), NITI_OK);
  assert_string_equal(before, after);
  niti_dataset_close(dataset);
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(held_out_images_are_those_of_the_definition),
      cmocka_unit_test(shares_are_rounded_to_the_nearest),
      cmocka_unit_test(what_cannot_be_held_out_is_refused),
      cmocka_unit_test(loaders_walk_the_split),
      cmocka_unit_test(folders_are_split_too),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

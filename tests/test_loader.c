/* The loader: order, windows and flips against a direct computation from niti_random, whatever the workers, from any batch on. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "data/loader.h"

enum { SIDE = 8, COUNT = 23, TESTS = 4, PAD = 2, BATCH = 5, STEPS = 5, SEED = 0x1234 };
static const uint64_t long_seed = UINT64_C(0x9876543200000000) + SEED;

/* Column- and row-dependent, different for every image. */
static uint8_t pixel_of(int64_t image, int y, int x) { return (uint8_t)(image * 11 + y * 29 + x * 3 + 1); }
static uint8_t pixel_value(size_t i) { return pixel_of((int64_t)(i / (SIDE * SIDE)), (int)(i / SIDE % SIDE), (int)(i % SIDE)); }
static uint8_t label_value(size_t i) { return (uint8_t)(i % 3); }

static char *put_idx_set(void) { return put_idx_folder(COUNT, TESTS, SIDE, pixel_value, label_value); }

/* The same images as PNGs; the first 10 are class a, the others b. */
static const char *image_path(const char *dir, int image) {
  return path_of("%s/train/%c/%02d.png", dir, image < 10 ? 'a' : 'b', image);
}

static void put_image(const char *path, int image) {
  uint8_t pixels[SIDE * SIDE];
  for (int p = 0; p < SIDE * SIDE; ++p) pixels[p] = pixel_of(image, p / SIDE, p % SIDE);
  put_png(path, SIDE, SIDE, 1, pixels);
}

static char *put_folder(void) {
  char *dir = make_temp();
  const char *folders[] = {"train", "train/a", "train/b", "test", "test/a", "test/b"};
  for (int i = 0; i < 6; ++i) put_dir(path_of("%s/%s", dir, folders[i]));
  for (int i = 0; i < COUNT; ++i) put_image(image_path(dir, i), i);
  put_image(path_of("%s/test/a/x.png", dir), 0);
  put_image(path_of("%s/test/b/x.png", dir), 1);
  return dir;
}

/* ---- the direct computation ---- */

typedef struct Expected {
  int64_t image;
  int dy, dx;
  bool flip;
} Expected;

static uint32_t below(uint32_t word, uint64_t range) { return (uint32_t)((word * range) >> 32); }

/* The whole epoch as docs/arithmetic.md has it. */
static void expect_epoch(Expected *out, uint32_t epoch, uint64_t seed, int side, bool augment, const NitiDataOptions *data) {
  int64_t order[COUNT];
  for (int64_t i = 0; i < COUNT; ++i) order[i] = i;
  for (int64_t i = COUNT - 1; augment && i >= 1; --i) {
    const uint32_t j = below(niti_random(seed, NITI_DRAW_SHUFFLE, epoch, 0, (uint64_t)i), (uint64_t)i + 1);
    const int64_t swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
  for (int i = 0; i < COUNT; ++i) {
    const uint64_t image = (uint64_t)order[i];
    const int span = SIDE + 2 * data->pad - side;
    const bool crop = augment && data->random_crop;
    const uint32_t word_y = niti_random(seed, NITI_DRAW_CROP, epoch, 0, 2 * image);
    const uint32_t word_x = niti_random(seed, NITI_DRAW_CROP, epoch, 0, 2 * image + 1);
    out[i].image = order[i];
    out[i].dy = (crop ? (int)below(word_y, (uint64_t)span + 1) : span / 2) - data->pad;
    out[i].dx = (crop ? (int)below(word_x, (uint64_t)span + 1) : span / 2) - data->pad;
    out[i].flip = augment && data->flip && niti_random(seed, NITI_DRAW_FLIP, epoch, 0, image) >= UINT32_C(0x80000000);
  }
}

/* Pixel (y, x) of the network's input that a sample stands for. */
static int seen(const NitiBatch *batch, int item, int side, int y, int x) {
  const NitiSample *sample = &batch->samples[item];
  const int row = sample->dy + y, column = sample->dx + (sample->flip ? side - 1 - x : x);
  if (row < 0 || row >= batch->source.h || column < 0 || column >= batch->source.w) return 0;
  return batch->images[((int64_t)sample->image * batch->source.h + row) * batch->source.w + column];
}

static void check_item(const NitiBatch *batch, int item, int side, const Expected *expected) {
  assert_in_range(batch->samples[item].flip, 0, 1);
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const int row = expected->dy + y, column = expected->dx + (expected->flip ? side - 1 - x : x);
      const bool inside = row >= 0 && row < SIDE && column >= 0 && column < SIDE;
      assert_int_equal(seen(batch, item, side, y, x), inside ? pixel_of(expected->image, row, column) : 0);
    }
  }
}

typedef struct Case {
  NitiDataset *dataset;
  NitiDataOptions data;
  NitiLoaderOptions options;
} Case;

static NitiLoader *open_loader(const Case *c) {
  NitiLoader *loader = NULL;
  if (niti_loader_open(&loader, c->dataset, &c->data, &c->options) != NITI_OK) fail_msg("%s", niti_error());
  assert_int_equal(niti_loader_steps(loader), STEPS);
  return loader;
}

/* Takes batches first .. last - 1 of an epoch that has been started and compares everything. */
static void check_batches(NitiLoader *loader, const Case *c, uint32_t epoch, int first, int last) {
  Expected expected[COUNT];
  NitiBatch batch;
  const int side = c->options.input.h;
  expect_epoch(expected, epoch, c->options.seed, side, c->options.augment, &c->data);
  for (int b = first; b < last; ++b) {
    if (niti_loader_next(loader, &batch) != NITI_OK) fail_msg("%s", niti_error());
    const int whole = b < STEPS - 1 ? BATCH : COUNT - BATCH * (STEPS - 1), ranks = c->options.ranks;
    const NitiPortion part = niti_portion(whole, c->options.rank, ranks > 0 ? ranks : 1);
    assert_int_equal(batch.count, part.count);
    assert_int_equal(batch.whole, ranks > 0 ? whole : 0);
    assert_int_equal(niti_batch_whole(&batch), whole);
    assert_true(batch.first == part.first && batch.idle == part.idle);
    assert_int_equal(batch.ahead, ranks > 0 && c->options.augment && c->data.mixup != NITI_MIXUP_NONE);
    for (int i = 0; i < batch.count + batch.ahead; ++i) { /* ahead: the whole batch's next, after its last one the first */
      const Expected *e = &expected[b * BATCH + (part.first + i) % whole];
      check_item(&batch, i, side, e);
      assert_int_equal(niti_label_class(batch.labels[i]), niti_dataset_label(c->dataset, NITI_TRAIN, e->image));
      if (batch.resident) assert_int_equal(batch.samples[i].image, e->image);
    }
  }
}

static void check_over(NitiLoader *loader) {
  NitiBatch batch;
  for (int i = 0; i < 2; ++i) {
    assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
    assert_int_equal(batch.count, 0);
  }
}

/* Epochs in a row, a start in the middle, at the end, a jump back, and an epoch left half way. */
static void check_walk(const Case *c) {
  NitiLoader *loader = open_loader(c);
  NitiBatch batch;
  check_error((int)niti_loader_next(loader, &batch), NITI_ERROR_ARGUMENT, niti_error(), "niti_loader_start", "first");
  for (uint32_t epoch = 0; epoch < 3; ++epoch) {
    assert_int_equal(niti_loader_start(loader, epoch, 0), NITI_OK);
    check_batches(loader, c, epoch, 0, STEPS);
    check_over(loader);
  }
  assert_int_equal(niti_loader_start(loader, 7, 3), NITI_OK);
  check_batches(loader, c, 7, 3, STEPS);
  check_over(loader);
  assert_int_equal(niti_loader_start(loader, 8, STEPS), NITI_OK);
  check_over(loader);
  assert_int_equal(niti_loader_start(loader, 9, 0), NITI_OK);
  check_batches(loader, c, 9, 0, 2);
  assert_int_equal(niti_loader_start(loader, 9, 1), NITI_OK);
  check_batches(loader, c, 9, 1, STEPS);
  assert_int_equal(niti_loader_start(loader, 2, 0), NITI_OK); /* not the epoch that was prepared */
  check_batches(loader, c, 2, 0, STEPS);
  assert_int_equal(niti_loader_start(loader, 3, 1), NITI_OK); /* the right one, but not its beginning */
  check_batches(loader, c, 3, 1, STEPS);
  check_error((int)niti_loader_start(loader, 0, STEPS + 1), NITI_ERROR_ARGUMENT, niti_error(), "batch 6", "0..5");
  check_error((int)niti_loader_start(loader, 0, -1), NITI_ERROR_ARGUMENT, niti_error(), "batch -1", "0..5");
  niti_loader_close(loader);
}

static Case make_case(NitiDataset *dataset, int side) {
  const Case c = {
      .dataset = dataset,
      .data = {.pad = PAD, .random_crop = true, .flip = true},
      .options = {.split = NITI_TRAIN, .input = {1, side, side, 1}, .batch = BATCH, .seed = long_seed, .augment = true}};
  return c;
}

static NitiDataset *open_dataset(const char *dir, const NitiDataOptions *options) {
  const NitiShape size = {1, SIDE, SIDE, 1};
  NitiDataset *dataset = NULL;
  if (niti_dataset_open(&dataset, dir, options, &(NitiDataRequest){.size = size}) != NITI_OK) fail_msg("%s", niti_error());
  return dataset;
}

/* Every way to augment. */
static void check_ways(Case c) {
  for (int way = 0; way < 8; ++way) {
    c.options.augment = way & 1;
    c.data.random_crop = way & 2;
    c.data.flip = way & 4;
    check_walk(&c);
  }
}

/* Every rank's portions; of the last batch, of three images, some ranks have none. */
static void check_ranks(Case c) {
  for (c.options.ranks = 1; c.options.ranks <= 7; c.options.ranks += 3) {
    for (c.options.rank = 0; c.options.rank < c.options.ranks; ++c.options.rank) {
      c.data.mixup = NITI_MIXUP_NONE;
      check_walk(&c);
      c.data.mixup = NITI_MIXUP_EVEN;
      check_walk(&c);
    }
  }
}

static void resident_picks_are_as_written(void **state) {
  (void)state;
  char *dir = put_idx_set();
  NitiDataset *dataset = open_dataset(dir, NULL);
  const int sides[] = {SIDE, SIDE - 3, SIDE + 2 * PAD, 1};
  for (int i = 0; i < 4; ++i) check_ways(make_case(dataset, sides[i]));
  check_ranks(make_case(dataset, SIDE));
  Case c = make_case(dataset, SIDE);
  NitiLoader *loader = open_loader(&c);
  NitiBatch batch;
  assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
  assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
  assert_true(batch.resident);
  assert_ptr_equal(batch.images, niti_dataset_images(dataset, NITI_TRAIN)); /* no copy */
  niti_loader_close(loader);
  niti_loader_close(NULL);
  /* The other split: its own images and labels, in order. */
  c.options.split = NITI_TEST;
  c.options.augment = false;
  assert_int_equal(niti_loader_open(&loader, dataset, &c.data, &c.options), NITI_OK);
  assert_int_equal(niti_loader_steps(loader), 1);
  assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
  assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
  assert_int_equal(batch.count, TESTS);
  assert_ptr_equal(batch.images, niti_dataset_images(dataset, NITI_TEST));
  for (uint32_t i = 0; i < TESTS; ++i) assert_true(batch.samples[i].image == i && batch.labels[i] == (int32_t)i % 3);
  niti_loader_close(loader);
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void choices_vary(void **state) {
  (void)state;
  Expected a[COUNT], b[COUNT];
  const NitiDataOptions data = {.pad = PAD, .random_crop = true, .flip = true};
  int moved = 0, flips = 0, low = 0, high = 0;
  expect_epoch(a, 0, long_seed, SIDE, true, &data);
  expect_epoch(b, 1, long_seed, SIDE, true, &data);
  for (int i = 0; i < COUNT; ++i) {
    moved += a[i].image != b[i].image;
    flips += a[i].flip;
    low += a[i].dy < 0;
    high += a[i].dy > 0;
  }
  assert_true(moved > COUNT / 2 && flips > 0 && flips < COUNT && low > 0 && high > 0);
}

static void misfits_are_refused(void **state) {
  (void)state;
  char *dir = put_idx_set(), *folder = put_folder();
  NitiDataset *dataset = open_dataset(dir, NULL), *images = open_dataset(folder, NULL);
  NitiLoader *loader = NULL;
  const Case good = make_case(dataset, SIDE);
  Case c = make_case(dataset, SIDE + 2 * PAD + 1);
  check_error((int)niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_ERROR_ARGUMENT, niti_error(), "8x8x1",
              "with padding do not fit the network's input 13x13x1");
  c = good;
  c.options.input.c = 3;
  check_error((int)niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_ERROR_ARGUMENT, niti_error(), "8x8x1",
              "8x8x3");
  c = good;
  c.options.batch = 0;
  check_error((int)niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_ERROR_ARGUMENT, niti_error(), "batch size 0",
              "at least 1");
  c = good;
  c.options.workers = -1;
  check_error((int)niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_ERROR_ARGUMENT, niti_error(),
              "-1 decoding threads", "0");
  c.options.workers = 1025;
  check_error((int)niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_ERROR_ARGUMENT, niti_error(),
              "1025 decoding threads", "1024");
  c.options.workers = 1024; /* as many as may compute */
  assert_int_equal(niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_OK);
  niti_loader_close(loader);
  loader = NULL;
  c = good;
  c.data.pad = -1;
  check_error((int)niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_ERROR_ARGUMENT, niti_error(), "padding -1",
              "0..");
  c = make_case(images, SIDE - 1); /* folders give the size they were opened with */
  check_error((int)niti_loader_open(&loader, c.dataset, &c.data, &c.options), NITI_ERROR_ARGUMENT, niti_error(), "8x8x1",
              "7x7x1");
  assert_null(loader);
  niti_dataset_close(dataset);
  niti_dataset_close(images);
  remove_temp(dir);
  remove_temp(folder);
}

/* ---- image folders ---- */

typedef struct Folder {
  char *dir;
  NitiDataset *dataset;
} Folder;

static int open_folder(void **state) {
  static Folder f;
  const Case with_pad = make_case(NULL, SIDE);
  f.dir = put_folder();
  f.dataset = open_dataset(f.dir, &with_pad.data);
  *state = &f;
  return 0;
}

static int close_folder(void **state) {
  const Folder *f = *state;
  niti_dataset_close(f->dataset);
  remove_temp(f->dir);
  return 0;
}

static void workers_do_not_change_the_result(void **state) {
  const Folder *f = *state;
  Case c = make_case(f->dataset, SIDE);
  for (int workers = 0; workers <= 4; ++workers) {
    c.options.workers = workers;
    check_ways(c);
  }
}

static void close_at_any_moment(void **state) {
  const Folder *f = *state;
  Case c = make_case(f->dataset, SIDE);
  for (int round = 0; round < 60; ++round) {
    c.options.workers = 1 + round % 4;
    NitiLoader *loader = open_loader(&c);
    if (round >= 10) assert_int_equal(niti_loader_start(loader, 0, round % STEPS), NITI_OK);
    if (round % 3 == 0 && round >= 10) assert_int_equal(niti_loader_start(loader, 1, 0), NITI_OK);
    if (round % 3 == 0 && round >= 10) check_batches(loader, &c, 1, 0, round % (STEPS + 1));
    niti_loader_close(loader);
  }
}

static void bad_images_surface_in_their_batch(void **state) {
  const Folder *f = *state;
  Case c = make_case(f->dataset, SIDE);
  Expected expected[COUNT];
  NitiBatch batch;
  /* Two bad images in batch 2: the one that comes first in the batch is reported, whichever a worker reads first. */
  expect_epoch(expected, 0, long_seed, SIDE, true, &c.data);
  const int first = (int)expected[2 * BATCH + 1].image, second = (int)expected[2 * BATCH + 3].image;
  put_file(image_path(f->dir, first), "\xff\xd8\xff", 3);
  put_file(image_path(f->dir, second), "", 0);
  for (int workers = 1; workers <= 4; ++workers) {
    c.options.workers = workers;
    NitiLoader *loader = open_loader(&c);
    assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
    check_batches(loader, &c, 0, 0, 2);
    for (int again = 0; again < 2; ++again) {
      check_error((int)niti_loader_next(loader, &batch), NITI_ERROR_FORMAT, niti_error(), image_path(f->dir, first),
                  "not a sound JPEG");
      assert_int_equal(batch.count, 0);
    }
    assert_int_equal(niti_loader_start(loader, 0, 3), NITI_OK); /* the others are sound */
    check_batches(loader, &c, 0, 3, STEPS);
    niti_loader_close(loader);
  }
}

/* Many small batches and a slow taker: the ring fills and empties. */
static void one_image_batches(void **state) {
  const Folder *f = *state;
  Case c = make_case(f->dataset, SIDE);
  Expected expected[COUNT];
  NitiLoader *loader = NULL;
  NitiBatch batch;
  c.options.batch = 1;
  c.options.workers = 3;
  assert_int_equal(niti_loader_open(&loader, f->dataset, &c.data, &c.options), NITI_OK);
  for (uint32_t epoch = 0; epoch < 4; ++epoch) {
    expect_epoch(expected, epoch, long_seed, SIDE, true, &c.data);
    assert_int_equal(niti_loader_start(loader, epoch, 0), NITI_OK);
    for (int i = 0; i < COUNT; ++i) {
      assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
      if (i % 7 == 0) usleep(2000); /* what is held must stay as it is */
      assert_int_equal(batch.count, 1);
      check_item(&batch, 0, SIDE, &expected[i]);
    }
    check_over(loader);
  }
  niti_loader_close(loader);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(resident_picks_are_as_written),
      cmocka_unit_test(choices_vary),
      cmocka_unit_test(misfits_are_refused),
      cmocka_unit_test_setup_teardown(workers_do_not_change_the_result, open_folder, close_folder),
      cmocka_unit_test_setup_teardown(close_at_any_moment, open_folder, close_folder),
      cmocka_unit_test_setup_teardown(bad_images_surface_in_their_batch, open_folder, close_folder),
      cmocka_unit_test_setup_teardown(one_image_batches, open_folder, close_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Resized crops, colour jitter and cutout: what docs/arithmetic.md promises of their choices, and the loader that makes them. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "data/augment.h"
#include "data/loader.h"

enum { COUNT = 21, SIDE = 8, BATCH = 4, SEED = 77 };

static const int32_t usual_scale[2] = {80000, 1000000}, usual_aspect[2] = {750000, 1333333};

/* ---- rectangles ---- */

static NitiWords words_of(uint32_t image) {
  const NitiDraw draw = {.seed = SEED, .purpose = NITI_DRAW_RESIZED_CROP, .time = 3};
  return niti_draw_block(&draw, image);
}

static void rectangles_lie_inside(void **state) {
  static const int32_t sizes[][2] = {{1, 1}, {1, 90}, {500, 3}, {32, 32}, {375, 500}, {16384, 16384}};
  static const int32_t all[2] = {1, 1000000}, widest[2] = {62500, 16000000};
  (void)state;
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
    for (uint32_t i = 0; i < 2000; ++i) {
      const NitiRectangle r = niti_rectangle(i & 1 ? all : usual_scale, i & 2 ? widest : usual_aspect, sizes[s][0], sizes[s][1],
                                             i < 4   ? (NitiWords){{0, 0, 0, 0}}
                                             : i < 8 ? (NitiWords){{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}}
                                                     : words_of(i));
      assert_true(r.h >= 1 && r.w >= 1 && r.y >= 0 && r.x >= 0);
      assert_true(r.y + r.h <= sizes[s][0] && r.x + r.w <= sizes[s][1]);
    }
  }
}

/* Where nothing is shrunk, area and aspect are in their ranges but for the rounding of the sides. */
static void rectangles_keep_their_ranges(void **state) {
  static const int32_t scale[2] = {100000, 400000};
  int64_t wide = 0, least = INT64_MAX, most = 0;
  (void)state;
  for (uint32_t i = 0; i < 4000; ++i) {
    const NitiRectangle r = niti_rectangle(scale, usual_aspect, 1000, 1000, words_of(i));
    const int64_t area = (int64_t)r.h * r.w, aspect = (int64_t)r.w * 1000 / r.h;
    assert_in_range(area, 99000, 401500);
    assert_in_range(aspect, 746, 1338);
    wide += r.w > r.h;
    least = area < least ? area : least;
    most = area > most ? area : most;
  }
  assert_in_range(wide, 1850, 2150); /* the range is as far below 1 as above */
  assert_true(least < 105000 && most > 395000);
}

/* The whole of a square; of another image the largest square; and what is too long keeps its aspect. */
static void rectangles_are_shrunk(void **state) {
  static const int32_t whole[2] = {1000000, 1000000}, square[2] = {1000000, 1000000}, quarter[2] = {250000, 250000};
  (void)state;
  for (uint32_t i = 0; i < 50; ++i) {
    NitiRectangle r = niti_rectangle(whole, square, 31, 31, words_of(i));
    assert_true(r.y == 0 && r.x == 0 && r.h == 31 && r.w == 31);
    r = niti_rectangle(whole, square, 20, 45, words_of(i));
    assert_true(r.h == 20 && r.w == 20);
    r = niti_rectangle(whole, quarter, 40, 100, words_of(i));
    assert_true(r.h == 40 && r.w == 10);
    r = niti_rectangle(quarter, square, 60, 60, words_of(i));
    assert_true(r.h == 30 && r.w == 30);
  }
}

/* ---- colours ---- */

static void no_jitter_changes_nothing(void **state) {
  (void)state;
  for (uint32_t word = 0; word < 5; ++word) assert_int_equal(niti_colour_factor(0, word * 0x3fffffffu), 4096);
  assert_int_equal(niti_colour_factor(1000000, 0), 0);
  assert_int_equal(niti_colour_factor(1000000, UINT32_MAX), 8192);
  const NitiColours c = niti_colours(4096, 4096, 4096, 12345);
  for (int v = 0; v < 256; ++v) assert_int_equal(niti_coloured(c, v, 255 - v), v);
}

/* Each alone is what its name says, to within the rounding. */
static void colours_do_what_they_say(void **state) {
  const int mean = 100;
  (void)state;
  for (int v = 0; v < 256; v += 5) {
    for (int y = 0; y < 256; y += 15) {
      const int half = niti_coloured(niti_colours(2048, 4096, 4096, mean << 8), v, y);
      assert_in_range(2 * half - v + 1, 0, 2);
      const int flat = niti_coloured(niti_colours(4096, 0, 4096, mean << 8), v, y);
      assert_int_equal(flat, mean);
      const int grey = niti_coloured(niti_colours(4096, 4096, 0, mean << 8), v, y);
      assert_int_equal(grey, y);
      const int strong = niti_coloured(niti_colours(4096, 8192, 4096, mean << 8), v, y), wanted = 2 * v - mean;
      assert_int_equal(strong, wanted < 0 ? 0 : wanted > 255 ? 255 : wanted);
    }
  }
}

/* The largest factors stay in their types. */
static void colours_fit(void **state) {
  (void)state;
  for (int i = 0; i < 27; ++i) {
    const int32_t b = i % 3 * 4096, c = i / 3 % 3 * 4096, s = i / 9 * 4096;
    const NitiColours k = niti_colours(b, c, s, 65280);
    const int64_t one = INT64_C(1) << 25, both = (int64_t)c * b;
    assert_int_equal(k.pixel, (s * both + one / 2) / one);
    assert_int_equal(k.grey * one, (4096 - s) * both); /* exact: powers of two */
    assert_int_equal((int64_t)k.offset * (1 << 21), (4096 - (int64_t)c) * b * 65280);
  }
}

static void mean_grey_is_exact(void **state) {
  enum { MOST = 70000 };
  uint8_t *pixels = malloc((size_t)3 * MOST);
  const int64_t counts[] = {1, 2, 15, 16, 17, 1024, 4111, 4113, 12336, MOST};
  (void)state;
  assert_non_null(pixels);
  for (int full = 0; full < 2; ++full) {
    for (size_t i = 0; i < (size_t)3 * MOST; ++i) pixels[i] = full ? 255 : (uint8_t)(i * i % 251 + i % 3);
    for (size_t k = 0; k < sizeof counts / sizeof *counts; ++k) {
      uint64_t grey = 0, colour = 0;
      const uint64_t n = (uint64_t)counts[k];
      for (uint64_t i = 0; i < n; ++i) {
        grey += pixels[i];
        colour += 19595u * pixels[3 * i] + 38470u * pixels[3 * i + 1] + 7471u * pixels[3 * i + 2];
      }
      assert_int_equal(niti_image_grey(pixels, counts[k], 1), (256 * grey + n / 2) / n);
      assert_int_equal(niti_image_grey(pixels, counts[k], 3), (colour * 256 + 32768 * n) / (65536 * n));
    }
  }
  assert_int_equal(niti_image_grey(pixels, 7, 2), 0);
  free(pixels);
}

/* Shares have the mean that their distributions give, and rise with the word. */
static void shares_follow_their_distributions(void **state) {
  NitiDataOptions o = {.mixup = NITI_MIXUP_NONE};
  int64_t even = 0, edges = 0;
  int none = 0;
  (void)state;
  for (uint32_t i = 0; i < 4000; ++i) {
    o.mixup = NITI_MIXUP_NONE;
    assert_int_equal(niti_share_draw(&o, SEED, 1, i), 0);
    o.mixup = NITI_MIXUP_EVEN;
    even += niti_share_draw(&o, SEED, 1, i);
    o.mixup = NITI_MIXUP_EDGES;
    const int share = niti_share_draw(&o, SEED, 1, i);
    assert_in_range(share, 0, 128);
    edges += share;
    none += share == 0;
  }
  assert_in_range(even / 4000, 62, 66); /* a quarter of 256 */
  /* Of Beta(0.2, 0.2): the mean of min(x, 1 - x) is 0.101, and 2 F(1/512) = 0.303. */
  assert_in_range(edges / 4000, 25, 29);
  assert_in_range(none, 1120, 1300);
}

/* ---- the loader ---- */

/* Images of different sizes. */
static NitiImage image_of(int i) {
  NitiImage image = {.h = 9 + i % 4, .w = 8 + i * 3 % 7, .c = 3};
  const int bytes = image.h * image.w * 3;
  image.pixels = malloc((size_t)bytes);
  assert_non_null(image.pixels);
  for (int p = 0; p < bytes; ++p) image.pixels[p] = (uint8_t)(i * 11 + p * 29 + p / 7);
  return image;
}

static char *put_folder(void) {
  char *dir = make_temp();
  const char *folders[] = {"train", "train/a", "train/b", "test", "test/a", "test/b"};
  for (int i = 0; i < 6; ++i) put_dir(path_of("%s/%s", dir, folders[i]));
  for (int i = 0; i < COUNT + 2; ++i) {
    const NitiImage image = image_of(i % COUNT);
    const char *path = i < COUNT ? path_of("%s/train/%c/%02d.png", dir, i < 9 ? 'a' : 'b', i)
                                 : path_of("%s/test/%c/x.png", dir, i == COUNT ? 'a' : 'b');
    put_png(path, (uint32_t)image.h, (uint32_t)image.w, 3, image.pixels);
    free(image.pixels);
  }
  return dir;
}

static NitiDataOptions options_of(bool resized) {
  NitiDataOptions o = {
      .flip = true, .cutout = 5, .brightness = 400000, .contrast = 300000, .saturation = 200000, .mixup = NITI_MIXUP_EVEN};
  o.resized_crop = resized;
  o.random_crop = !resized;
  memcpy(o.scale, usual_scale, sizeof o.scale);
  memcpy(o.aspect, usual_aspect, sizeof o.aspect);
  return o;
}

/* Everything but the window, from the definitions. */
static void check_sample(const NitiSample *s, const NitiDataOptions *o, const NitiImage *source, uint32_t epoch, uint32_t image) {
  const uint64_t k = image;
  const uint32_t y = niti_random(SEED, NITI_DRAW_CUTOUT, epoch, 0, 2 * k),
                 x = niti_random(SEED, NITI_DRAW_CUTOUT, epoch, 0, 2 * k + 1);
  int32_t factors[3];
  const int32_t strengths[3] = {o->brightness, o->contrast, o->saturation};
  assert_int_equal(s->flip, niti_random(SEED, NITI_DRAW_FLIP, epoch, 0, k) >> 31);
  assert_int_equal(s->share, (2 * (niti_random(SEED, NITI_DRAW_MIXUP, epoch, 0, k) >> 24) + 3) / 4);
  assert_int_equal(s->cut, 5);
  assert_int_equal(s->cut_y, (int)(((uint64_t)y * SIDE) >> 32) - 2);
  assert_int_equal(s->cut_x, (int)(((uint64_t)x * SIDE) >> 32) - 2);
  assert_int_equal(s->coloured, 1);
  for (uint32_t i = 0; i < 3; ++i)
    factors[i] = niti_colour_factor(strengths[i], niti_random(SEED, NITI_DRAW_COLOUR, epoch, 0, 4 * k + i));
  const NitiColours c =
      niti_colours(factors[0], factors[1], factors[2], niti_image_grey(source->pixels, (int64_t)source->h * source->w, 3));
  assert_memory_equal(&s->colours, &c, sizeof c);
}

/* A resized crop is the rectangle cut out and stretched. */
static void expect_window(uint8_t *out, const NitiDataOptions *o, const NitiImage *source, uint32_t epoch, uint32_t image) {
  const NitiDataOptions stretch = {.fit = NITI_FIT_STRETCH};
  const NitiShape size = {1, SIDE, SIDE, 3};
  NitiWords w;
  for (uint32_t i = 0; i < 4; ++i) w.word[i] = niti_random(SEED, NITI_DRAW_RESIZED_CROP, epoch, 0, 4 * (uint64_t)image + i);
  const NitiRectangle r = niti_rectangle(o->scale, o->aspect, source->h, source->w, w);
  NitiImage cut = {.h = r.h, .w = r.w, .c = 3, .pixels = malloc((size_t)(r.h * r.w) * 3)};
  assert_non_null(cut.pixels);
  for (int y = 0; y < r.h; ++y)
    memcpy(cut.pixels + (size_t)(y * r.w) * 3, source->pixels + (size_t)((r.y + y) * source->w + r.x) * 3, (size_t)r.w * 3);
  assert_int_equal(niti_image_fit(out, &cut, &stretch, size, (NitiWindow){.centre = true}, "cut"), NITI_OK);
  free(cut.pixels);
}

static NitiLoader *open_loader(const NitiDataset *dataset, const NitiDataOptions *o, int workers, bool augment) {
  const NitiLoaderOptions options = {
      .split = NITI_TRAIN, .input = {1, SIDE, SIDE, 3}, .batch = BATCH, .seed = SEED, .augment = augment, .workers = workers};
  NitiLoader *loader = NULL;
  if (niti_loader_open(&loader, dataset, o, &options) != NITI_OK) fail_msg("%s", niti_error());
  return loader;
}

static void check_folder_batch(const NitiBatch *batch, const NitiDataOptions *o, uint32_t epoch, const uint32_t *order) {
  uint8_t window[SIDE * SIDE * 3];
  for (int32_t i = 0; i < batch->count; ++i) {
    const NitiImage source = image_of((int)order[i]);
    check_sample(&batch->samples[i], o, &source, epoch, order[i]);
    assert_int_equal(batch->labels[i], (order[i] >= 9) | batch->samples[i].share << 16); /* class b from image 9 on */
    assert_true(batch->samples[i].h == 0 && batch->samples[i].dy == 0);                  /* the window is the image already */
    expect_window(window, o, &source, epoch, order[i]);
    assert_memory_equal(batch->images + (size_t)i * sizeof window, window, sizeof window);
    free(source.pixels);
  }
}

static void folders_of_any_sizes_are_augmented(void **state) {
  (void)state;
  char *dir = put_folder();
  const NitiDataOptions o = options_of(true);
  const NitiDataRequest request = {.size = {1, SIDE, SIDE, 3}};
  NitiDataset *dataset = NULL;
  uint32_t order[COUNT];
  assert_int_equal(niti_dataset_open(&dataset, dir, &o, &request), NITI_OK);
  for (int workers = 1; workers <= 3; ++workers) {
    NitiLoader *loader = open_loader(dataset, &o, workers, true);
    NitiBatch batch;
    for (uint32_t epoch = 0; epoch < 3; ++epoch) {
      niti_order_shuffle(order, COUNT, SEED, epoch);
      assert_int_equal(niti_loader_start(loader, epoch, 0), NITI_OK);
      for (int first = 0; first < COUNT; first += BATCH) {
        assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
        check_folder_batch(&batch, &o, epoch, order + first);
      }
    }
    niti_loader_close(loader);
  }
  niti_dataset_close(dataset);
  remove_temp(dir);
}

/* CIFAR's format: resident, of 32x32, here with windows of 8x8 at random or scaled. */
static uint8_t cifar_pixel(int image, int y, int x, int c) { return (uint8_t)(image * 37 + y * 5 + x * 3 + c * 90); }

static char *put_cifar(void) {
  char *dir = make_temp();
  uint8_t record[3073];
  for (int file = 0; file < 6; ++file) {
    FILE *out = fopen(file < 5 ? path_of("%s/data_batch_%d.bin", dir, file + 1) : path_of("%s/test_batch.bin", dir), "wb");
    assert_non_null(out);
    for (int i = 4 * file; i < 4 * file + 4; ++i) {
      record[0] = (uint8_t)(i % 10);
      for (int p = 0; p < 3072; ++p) record[1 + p] = cifar_pixel(i, p % 1024 / 32, p % 32, p / 1024);
      assert_int_equal(fwrite(record, 1, sizeof record, out), sizeof record);
    }
    assert_int_equal(fclose(out), 0);
  }
  return dir;
}

static NitiImage cifar_image(int image) {
  NitiImage out = {.h = 32, .w = 32, .c = 3, .pixels = malloc(3072)};
  assert_non_null(out.pixels);
  for (int p = 0; p < 3072; ++p) out.pixels[p] = cifar_pixel(image, p / 96, p / 3 % 32, p % 3);
  return out;
}

static void check_resident(const NitiDataset *dataset, bool resized) {
  const NitiDataOptions o = options_of(resized);
  NitiLoader *loader = open_loader(dataset, &o, 1, true);
  NitiBatch batch;
  for (uint32_t epoch = 0; epoch < 2; ++epoch) {
    assert_int_equal(niti_loader_start(loader, epoch, 0), NITI_OK);
    while (niti_loader_next(loader, &batch) == NITI_OK && batch.count > 0) {
      for (int32_t i = 0; i < batch.count; ++i) {
        const NitiSample *s = &batch.samples[i];
        const NitiImage source = cifar_image((int)s->image);
        check_sample(s, &o, &source, epoch, s->image);
        assert_int_equal(batch.labels[i], s->image % 10 | (uint32_t)s->share << 16);
        NitiWords w;
        for (uint32_t k = 0; k < 4; ++k)
          w.word[k] = niti_random(SEED, NITI_DRAW_RESIZED_CROP, epoch, 0, 4 * (uint64_t)s->image + k);
        const NitiRectangle r = niti_rectangle(o.scale, o.aspect, 32, 32, w);
        if (resized) assert_true(s->dy == r.y && s->dx == r.x && s->h == r.h && s->w == r.w);
        if (!resized) assert_int_equal(s->h, 0);
        free(source.pixels);
      }
    }
  }
  niti_loader_close(loader);
}

static void resident_images_are_augmented(void **state) {
  (void)state;
  char *dir = put_cifar();
  NitiDataset *dataset = NULL;
  assert_int_equal(niti_dataset_open(&dataset, dir, NULL, NULL), NITI_OK);
  check_resident(dataset, true);
  check_resident(dataset, false);
  const NitiDataOptions o = options_of(true);
  const NitiSample none = {.dy = 12, .dx = 12};
  NitiLoader *loader = open_loader(dataset, &o, 1, false); /* evaluation changes nothing */
  NitiBatch batch;
  assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
  assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
  assert_memory_equal(&batch.samples[0], &none, sizeof none);
  niti_loader_close(loader);
  niti_dataset_close(dataset);
  remove_temp(dir);
}

static void expect_refusal(const NitiDataset *dataset, NitiDataOptions o, NitiShape input, const char *what, const char *why) {
  const NitiLoaderOptions options = {.split = NITI_TRAIN, .input = input, .batch = BATCH, .augment = true};
  NitiLoader *loader = NULL;
  check_error((int)niti_loader_open(&loader, dataset, &o, &options), NITI_ERROR_ARGUMENT, niti_error(), what, why);
  assert_null(loader);
}

static void what_has_no_meaning_is_refused(void **state) {
  (void)state;
  char *dir = put_cifar();
  NitiDataset *dataset = NULL;
  const NitiShape input = {1, SIDE, SIDE, 3};
  NitiDataOptions o = options_of(true);
  assert_int_equal(niti_dataset_open(&dataset, dir, NULL, NULL), NITI_OK);
  o.scale[0] = 0;
  expect_refusal(dataset, o, input, "scale 0", "1..1000000");
  o = options_of(true);
  o.aspect[1] = o.aspect[0] - 1;
  expect_refusal(dataset, o, input, "aspect 749999", "750000..16000000");
  o = options_of(false);
  o.cutout = -1;
  expect_refusal(dataset, o, input, "cutout -1", "0..");
  o = options_of(false);
  o.mixup = (NitiMixup)3;
  expect_refusal(dataset, o, input, "mixup 3", "0..2");
  o = options_of(false);
  o.saturation = 1000001;
  expect_refusal(dataset, o, input, "saturation 1000001", "0..1000000");
  niti_dataset_close(dataset);
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rectangles_lie_inside),
      cmocka_unit_test(rectangles_keep_their_ranges),
      cmocka_unit_test(rectangles_are_shrunk),
      cmocka_unit_test(no_jitter_changes_nothing),
      cmocka_unit_test(colours_do_what_they_say),
      cmocka_unit_test(colours_fit),
      cmocka_unit_test(mean_grey_is_exact),
      cmocka_unit_test(shares_follow_their_distributions),
      cmocka_unit_test(folders_of_any_sizes_are_augmented),
      cmocka_unit_test(resident_images_are_augmented),
      cmocka_unit_test(what_has_no_meaning_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

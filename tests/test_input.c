/* The operation input on the CPU, place by place from docs/arithmetic.md: windows, scaling, mirrors, colours, cutout, mixup. */
#include "ops_test.h"

/* The weight of source pixel j in output i of D from S, and the weights' sum, from the definition: by area, or by distance. */
static int64_t scaling_weight(int64_t i, int64_t j, int64_t S, int64_t D) {
  if (D <= S) {
    const int64_t low = i * S > j * D ? i * S : j * D, high = (i + 1) * S < (j + 1) * D ? (i + 1) * S : (j + 1) * D;
    return high > low ? high - low : 0;
  }
  const int64_t place = (2 * i + 1) * S - D, most = 2 * D * (S - 1), p = place < 0 ? 0 : place > most ? most : place;
  const int64_t distance = p > 2 * D * j ? p - 2 * D * j : 2 * D * j - p;
  return distance < 2 * D ? 2 * D - distance : 0;
}

static int scaled_pixel(const uint8_t *image, NitiShape source, const NitiSample *s, NitiShape shape, int h, int w, int c) {
  int64_t sum = 0, total = 0;
  for (int y = 0; y < s->h; ++y) {
    for (int x = 0; x < s->w; ++x) {
      const int64_t weight = scaling_weight(h, y, s->h, shape.h) * scaling_weight(w, x, s->w, shape.w);
      sum += weight * image[at(source, 0, s->dy + y, s->dx + x, c)];
      total += weight;
    }
  }
  return (int)((2 * sum + total) / (2 * total));
}

static int window_pixel(const uint8_t *image, NitiShape source, const NitiSample *s, int h, int w, int c) {
  const int y = s->dy + h, x = s->dx + w;
  return y >= 0 && x >= 0 && y < source.h && x < source.w ? image[at(source, 0, y, x, c)] : 0;
}

/* The mantissa of one place as docs/arithmetic.md has it. */
static int expected_input(const uint8_t *images, NitiShape source, const NitiSample *s, NitiShape shape, const int8_t *table,
                          int h, int w, int c) {
  const uint8_t *image = images + s->image * niti_shape_image(source);
  const int column = s->flip ? shape.w - 1 - w : w;
  int v[4];
  for (int k = 0; k < shape.c; ++k)
    v[k] = s->h ? scaled_pixel(image, source, s, shape, h, column, k) : window_pixel(image, source, s, h, column, k);
  const int y = shape.c == 3 ? (19595 * v[0] + 38470 * v[1] + 7471 * v[2] + 32768) >> 16 : v[c];
  int sum = (s->colours.pixel * v[c] + s->colours.grey * y + s->colours.offset + 1024) >> 11;
  sum = sum < 0 ? 0 : sum > 255 ? 255 : sum;
  if (h >= s->cut_y && h < s->cut_y + s->cut && w >= s->cut_x && w < s->cut_x + s->cut) return 0;
  return table[c * 256 + (s->coloured ? sum : v[c])];
}

/* The same, mixed with the next image of the batch: ties towards plus infinity. */
static int mixed_input(const uint8_t *images, NitiShape source, const NitiSample *samples, int n, NitiShape shape,
                       const int8_t *table, int h, int w, int c) {
  const int own = expected_input(images, source, &samples[n], shape, table, h, w, c), share = samples[n].share;
  const int next = expected_input(images, source, &samples[(n + 1) % shape.n], shape, table, h, w, c);
  const int sum = (256 - share) * own + share * next + 128 + 256 * 128;
  return sum / 256 - 128;
}

static NitiSample random_sample(NitiShape source, int images, int reach, bool changes) {
  NitiSample s = {.image = (uint32_t)random_in(0, images - 1),
                  .dy = (int16_t)random_in(-reach, reach),
                  .dx = (int16_t)random_in(-reach, reach),
                  .flip = (uint32_t)random_in(0, 1)};
  if (!changes) return s;
  s.share = (uint8_t)(random_in(0, 1) * random_in(0, 128));
  s.cut = (uint16_t)random_in(0, 9);
  s.cut_y = (int16_t)random_in(-5, 12);
  s.cut_x = (int16_t)random_in(-5, 12);
  if (random_in(0, 2) > 0) {
    s.h = (uint16_t)random_in(1, source.h);
    s.w = (uint16_t)random_in(1, source.w);
    s.dy = (int16_t)random_in(0, source.h - s.h);
    s.dx = (int16_t)random_in(0, source.w - s.w);
  }
  if ((source.c == 1 || source.c == 3) && random_in(0, 2) > 0) {
    s.coloured = 1;
    s.colours = niti_colours(random_in(0, 8192), random_in(0, 8192), source.c == 3 ? random_in(0, 8192) : 4096,
                             (uint16_t)random_in(0, 65280));
  }
  return s;
}

static void check_input(NitiBackend *backend, NitiShape shape, NitiShape source, int reach, bool changes) {
  enum { IMAGES = 4 };
  const size_t image = niti_shape_image(source);
  uint8_t *images = malloc(IMAGES * image);
  int8_t *table = malloc(256 * (size_t)shape.c);
  NitiSample *samples = malloc((size_t)shape.n * sizeof *samples);
  NitiTensor out = tensor_new(shape);
  assert_true(images && table && samples);
  for (size_t i = 0; i < IMAGES * image; ++i) images[i] = (uint8_t)next_random();
  for (int i = 0; i < 256 * shape.c; ++i) table[i] = (int8_t)random_in(-127, 127);
  for (int n = 0; n < shape.n; ++n) samples[n] = random_sample(source, IMAGES, reach, changes);
  int32_t exponent = -5;
  const NitiTensor lookup = {.data = table, .exponent = &exponent, .shape = {1, 1, shape.c, 256}};
  backend->kernels->input(backend, &out, images, source, samples, &lookup, changes);
  assert_int_equal(*out.exponent, -5);
  for (int n = 0; n < shape.n; ++n) {
    for (int h = 0; h < shape.h; ++h) {
      for (int w = 0; w < shape.w; ++w) {
        for (int c = 0; c < shape.c; ++c)
          assert_int_equal(out.data[at(shape, n, h, w, c)], mixed_input(images, source, samples, n, shape, table, h, w, c));
      }
    }
  }
  free(images), free(table), free(samples);
  tensor_free(&out);
}

static void test_input(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (int c = 1; c <= 4; ++c) {
      for (int changes = 0; changes < 2; ++changes) {
        check_input(backend, (NitiShape){9, 8, 8, c}, (NitiShape){1, 8, 8, c}, 0, changes);
        check_input(backend, (NitiShape){33, 7, 9, c}, (NitiShape){1, 8, 6, c}, 4, changes);
        check_input(backend, (NitiShape){33, 6, 5, c}, (NitiShape){1, 11, 13, c}, 20, changes);
        check_input(backend, (NitiShape){5, 1, 1, c}, (NitiShape){1, 1, 1, c}, 2, changes);
      }
      check_input(backend, (NitiShape){2, 100, 90, c}, (NitiShape){1, 110, 95, c}, 5, false);
    }
    check_input(backend, (NitiShape){3, 2, 600, 3}, (NitiShape){1, 3, 70, 3}, 1, true);    /* columns in pieces */
    check_input(backend, (NitiShape){3, 1450, 1450, 1}, (NitiShape){1, 2, 3, 1}, 0, true); /* sums of 64 bits */
    niti_backend_close(backend);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_input)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

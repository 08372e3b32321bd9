/* The CUDA backend's choice of a way for each convolution, without a device: it is one of the convolution's ways, the workspace
 * is enough for it at every batch up to the one that was compiled for, and where measurements were clear it is the fastest. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cuda/cuda.h"
#include "backend/cuda/wgmma.h"
#include "splitmix.h"

enum { SHAPES = 20000 };

static const char *const directions[] = {"forward", "backward", "gradient"};
static uint64_t random_state = 23;

static int random_in(int low, int high) { return low + (int)(splitmix64(&random_state) % (uint64_t)(high - low + 1)); }

static int one_of(const int *values, int count) { return values[random_in(0, count - 1)]; }

static int parts_of(int all, int part) { return (all + part - 1) / part; }

static NitiConv conv(int n, int side, int c, int k, int kernel, int stride, int pad) {
  const int out = (side + 2 * pad - kernel) / stride + 1;
  return (NitiConv){.n = n,
                    .h = side,
                    .w = side,
                    .c = c,
                    .k = k,
                    .kh = kernel,
                    .kw = kernel,
                    .stride_h = stride,
                    .stride_w = stride,
                    .pad_h = pad,
                    .pad_w = pad,
                    .oh = out,
                    .ow = out,
                    .groups = 1};
}

static NitiConv random_conv(void) {
  static const int channels[] = {1, 3, 10, 16, 24, 32, 64, 65, 96, 128, 160, 192, 256, 320, 512, 1000, 2048},
                   kernels[] = {1, 1, 3, 3, 5, 7}, batches[] = {1, 2, 7, 11, 12, 16, 17, 64, 100, 256, 500, 1024},
                   sides[] = {1, 1, 2, 3, 4, 7, 8, 15, 16, 32, 57};
  NitiConv s;
  do {
    const int kernel = one_of(kernels, 6);
    s = conv(one_of(batches, 12), one_of(sides, 11), one_of(channels, 17), one_of(channels, 17), kernel, random_in(1, 3),
             random_in(0, kernel / 2));
    s.w += random_in(0, 3);
    s.ow = (s.w + 2 * s.pad_w - s.kw) / s.stride_w + 1;
  } while (s.h + 2 * s.pad_h < s.kh || s.w + 2 * s.pad_w < s.kw);
  if (s.c == s.k && random_in(0, 3) == 0) s.groups = s.c;
  return s;
}

static NitiCuda *random_device(void) {
  static const int multiprocessors[] = {16, 78, 108, 132, 144};
  static NitiCuda device;
  device = (NitiCuda){.family = random_in(0, 2) ? NITI_CUDA_WGMMA : NITI_CUDA_MMA};
  device.multiprocessors = one_of(multiprocessors, 5);
  return &device;
}

static const char *name_of(const NitiBackend *b, const NitiConvCall *call) {
  static NitiWay ways[NITI_WAYS_MAX];
  const int count = niti_cuda_conv_ways(b, call, ways), choice = niti_cuda_conv_choice(b, call);
  const char *name = NULL;
  assert_in_range(count, 1, NITI_WAYS_MAX - 1); /* or some were left out */
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < i; ++k) assert_string_not_equal(ways[i].name, ways[k].name);
    if (ways[i].number == choice) name = ways[i].name;
  }
  if (!name) fail_msg("%s: way %d is none of its ways", directions[call->direction], choice);
  assert_string_equal(ways[0].name, niti_cuda_conv_kernel(b, call)); /* the family's own choice is first */
  assert_memory_equal(ways[0].name, name, strlen(ways[0].name));     /* and stands for it */
  return name;
}

/* Taps of the phases of backward's strides: 1, of zeros, where there are none; but of a single tap that reaches the first phase,
 * of up to 512 filters, that alone: then zeros are stored without weights. */
static size_t packed_taps(const NitiConv *s, NitiDirection direction) {
  const bool alone = s->kh * s->kw == 1 && s->pad_h % s->stride_h == 0 && s->pad_w % s->stride_w == 0;
  size_t all = 0;
  if (direction == NITI_FORWARD) return (size_t)s->kh * (size_t)s->kw;
  if (alone && s->stride_h * s->stride_w > 1 && s->k <= 512) return 1;
  for (int y = 0; y < s->stride_h && y < s->h; ++y) {
    for (int x = 0; x < s->stride_w && x < s->w; ++x) {
      size_t taps = 0;
      for (int a = 0; a < s->kh; ++a) {
        for (int b = 0; b < s->kw; ++b) taps += (y + s->pad_h - a) % s->stride_h == 0 && (x + s->pad_w - b) % s->stride_w == 0;
      }
      all += taps > 0 ? taps : 1;
    }
  }
  return all;
}

/* What kernels of a way's family use, counted anew: packed weights; or tables and weights of gathering passes (whose backward
 * passes have no more taps together than the kernel); or the parts that blocks leave of tiles of 3 taps by 128 or 64 channels by
 * as many. */
static size_t used_by(const NitiCuda *device, const NitiConv *s, NitiDirection direction, bool wgmma, int way) {
  const size_t taps = (size_t)s->kh * (size_t)s->kw;
  const int in = direction == NITI_FORWARD ? s->c : s->k, out = direction == NITI_FORWARD ? s->k : s->c;
  if (direction == NITI_GRADIENT) {
    int tile_k, tile_c;
    if (!wgmma) return 0;
    niti_wgmma_gradient_tile(s, device->multiprocessors, way, &tile_k, &tile_c);
    const int tiles = parts_of(s->k, tile_k) * parts_of(s->c, tile_c) * parts_of(s->kw, 3) * s->kh;
    int64_t units = 0;
    for (int kh = 0; kh < s->kh; ++kh) {
      for (int y = 0; y < s->oh; ++y) units += y + kh >= s->pad_h && y + kh - s->pad_h < s->h;
    }
    units *= (int64_t)(tiles / s->kh) * parts_of(s->n, 16) * parts_of(s->ow, 4 * way);
    const size_t blocks = (size_t)(units < device->multiprocessors ? units : device->multiprocessors);
    return (blocks + (size_t)tiles) * 3 * (size_t)(tile_k * tile_c) * sizeof(int32_t);
  }
  if (wgmma && direction == NITI_FORWARD && s->c < 16) /* a window is a pixel */
    return (size_t)parts_of(out, 128) * 128 * (size_t)parts_of((int)taps * in, 64) * 64;
  if (wgmma) return (size_t)parts_of(out, 128) * 128 * packed_taps(s, direction) * (size_t)parts_of(in, 64) * 64;
  if (in % 16 == 0) return direction == NITI_FORWARD ? 0 : (size_t)out * taps * (size_t)in;
  return direction == NITI_FORWARD ? (size_t)out * taps * (size_t)in + taps * (size_t)in * 8 : 0;
}

/* The call of a smaller batch may be another family's. */
static void check_workspace(const NitiCuda *device, const NitiConvCall *call) {
  const size_t reserved = niti_cuda_conv_workspace(&device->base, call);
  for (int i = 0; i < 4; ++i) {
    NitiConvCall smaller = *call;
    if (i > 0) smaller.shape.n = random_in(1, call->shape.n);
    const NitiConv *s = &smaller.shape;
    const char *name = name_of(&device->base, &smaller);
    const bool wgmma = strncmp(name, "wgmma", 5) == 0, grouped = s->groups > 1;
    const size_t asked = niti_cuda_conv_workspace(&device->base, &smaller);
    size_t used = 0;
    for (int way = 1; way <= 2 && !grouped; ++way) { /* of a gradient: by 4 and 8 positions */
      const size_t next = used_by(device, s, call->direction, wgmma, way);
      used = next > used ? next : used;
    }
    if (asked <= reserved && used <= asked) continue;
    fail_msg("%s %dx%dx%dx%d to %d, %dx%d, stride %d, pad %d, by %s: %zu reserved for %d images, %zu asked, %zu used",
             directions[call->direction], s->n, s->h, s->w, s->c, s->k, s->kh, s->kw, s->stride_h, s->pad_h, name, reserved,
             call->shape.n, asked, used);
  }
}

static void the_workspace_is_enough_for_the_choice(void **state) {
  int by_mma = 0, by_wgmma = 0;
  (void)state;
  for (int i = 0; i < SHAPES; ++i) {
    const NitiCuda *device = random_device();
    NitiConvCall call = {.shape = random_conv(), .direction = (NitiDirection)random_in(0, 2)};
    const NitiConv *s = &call.shape;
    const bool served =
        device->family == NITI_CUDA_WGMMA && s->groups == 1 &&
        (call.direction == NITI_FORWARD ? niti_cuda_conv_wgmma.serves_forward(s) : niti_cuda_conv_wgmma.serves_gradient(s));
    check_workspace(device, &call);
    if (served && call.direction != NITI_BACKWARD) {
      const bool wgmma = strncmp(name_of(&device->base, &call), "wgmma", 5) == 0;
      by_mma += !wgmma;
      by_wgmma += wgmma;
    }
  }
  assert_in_range(by_mma, 100, SHAPES); /* or nothing was chosen */
  assert_in_range(by_wgmma, 100, SHAPES);
}

/* On a device of 132 multiprocessors, as measured on an H200. */
static void clear_cases_are_chosen(void **state) {
  static const struct {
    int n, side, c, k, kernel, stride, pad;
    NitiDirection direction;
    const char *way; /* the begin of its name */
  } cases[] = {
      {256, 1, 4096, 4096, 1, 1, 0, NITI_FORWARD, "mma"},
      {256, 8, 256, 256, 3, 1, 1, NITI_FORWARD, "wgmma"},
      {256, 8, 64, 64, 3, 1, 1, NITI_GRADIENT, "wgmma"},
      {256, 32, 3, 64, 3, 1, 1, NITI_FORWARD, "mma windows"},
      {256, 32, 3, 16, 3, 1, 1, NITI_FORWARD, "mma windows"},
      {64, 28, 1, 20, 5, 1, 0, NITI_FORWARD, "mma windows"},
      {256, 32, 64, 128, 1, 2, 0, NITI_BACKWARD, "wgmma"},
      {256, 8, 256, 512, 1, 2, 0, NITI_GRADIENT, "mma 128x32, fewer splits"},
      {256, 1, 512, 10, 1, 1, 0, NITI_GRADIENT, "mma 16x64"},
      {256, 32, 3, 16, 3, 1, 1, NITI_GRADIENT, "mma 16x64, fewer splits"},
      {256, 4, 512, 512, 3, 1, 1, NITI_GRADIENT, "wgmma"},
  };
  NitiCuda device = {.family = NITI_CUDA_WGMMA};
  (void)state;
  device.multiprocessors = 132;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    const NitiConvCall call = {
        .shape = conv(cases[i].n, cases[i].side, cases[i].c, cases[i].k, cases[i].kernel, cases[i].stride, cases[i].pad),
        .direction = cases[i].direction};
    const char *name = name_of(&device.base, &call);
    if (strncmp(name, cases[i].way, strlen(cases[i].way)) != 0) fail_msg("case %zu: %s, expected %s", i, name, cases[i].way);
  }
}

/* Large products of many channels are wgmma's, at every batch. */
static void large_products_are_wgmma_s(void **state) {
  static const int layers[][3] = {{32, 128, 128}, {16, 128, 256}, {16, 256, 256}, {8, 256, 512}, {8, 512, 512}};
  NitiCuda device = {.family = NITI_CUDA_WGMMA};
  (void)state;
  device.multiprocessors = 132;
  for (int n = 64; n <= 4096; n *= 2) {
    for (size_t i = 0; i < sizeof layers / sizeof *layers; ++i) {
      for (int direction = 0; direction < 3; ++direction) {
        const NitiConvCall call = {.shape = conv(n, layers[i][0], layers[i][1], layers[i][2], 3, 1, 1),
                                   .direction = (NitiDirection)direction};
        assert_string_equal(name_of(&device.base, &call), "wgmma");
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_workspace_is_enough_for_the_choice),
                                     cmocka_unit_test(clear_cases_are_chosen), cmocka_unit_test(large_products_are_wgmma_s)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

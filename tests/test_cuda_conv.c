/* The CUDA backend's convolutions, of both families and in all three directions, against the CPU's: bit for bit. The small shapes
 * go against the reference kernels, those of a real network against the CPU's best, which test_conv.c holds against the
 * reference. */
#include "cuda_test.h"

typedef struct Case {
  NitiConv conv;
  NitiRequantise rq; /* its `predicted` is set by run */
  int32_t prediction;
  int8_t *x, *w, *delta, *mask;
  int16_t *bias;  /* NULL: none */
  int64_t *means; /* running ones of a norm; NULL: none */
  int32_t bias_exponent;
  bool relu, operands;
  int bits;
  int32_t limit, e_mask; /* of the mask */
} Case;

static NitiConv square(int n, int side, int c, int k, int kernel, int stride, int pad) {
  return conv_shape(n, side, side, c, k, kernel, kernel, stride, stride, pad, pad);
}

static void run(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiConv *s = &c->conv;
  NitiBackend *b = d->backend;
  const NitiShape in = {s->n, s->h, s->w, s->c}, out = {s->n, s->oh, s->ow, s->k},
                  weights = {s->k, s->kh, s->kw, niti_conv_group_inputs(s)};
  const size_t gradient_bytes = niti_shape_count(weights) * (size_t)c->bits / 8;
  if (b->kernels->reserve(b, call_conv_workspace(b, s, false)) != NITI_OK) fail_msg("%s: %s", d->name, niti_error());
  NitiTensor x = tensor_in(d, in, c->x, -3), dy = tensor_in(d, out, c->delta, -20);
  const NitiTensor w = tensor_in(d, weights, c->w, 5);
  NitiTensor mask = tensor_in(d, in, c->mask ? c->mask : c->x, c->e_mask);
  NitiTensor y = tensor_out(d, out), dx = tensor_out(d, in);
  NitiTensor bias = {.shape = {1, 1, 1, s->k}};
  if (c->means) bias.data = place_copy(d, c->means, (size_t)s->k * sizeof *c->means);
  if (c->bias) {
    bias.data = place_copy(d, c->bias, (size_t)s->k * sizeof *c->bias);
    bias.exponent = place_copy(d, &c->bias_exponent, sizeof c->bias_exponent);
  }
  NitiRequantise forward = c->rq, backward = c->rq;
  mask.limit = c->limit;
  forward.prediction = place_copy(d, &c->prediction, sizeof c->prediction);
  backward.prediction = place_copy(d, &c->prediction, sizeof c->prediction);
  NitiGradient gradient = {place(d, gradient_bytes), c->bits, niti_shape_count(weights), {NULL, NULL}};
  x.uses = dy.uses = y.uses = dx.uses = c->operands ? NITI_USE_GRADIENT | NITI_USE_OTHER : NITI_USE_OTHER;
  const size_t packed = call_packed_bytes(b, s);
  for (int again = 0; again < 2; ++again) { /* the second time the prediction is right, and weights are packed beforehand */
    call_packed = again && packed > 0 ? place(d, packed) : NULL;
    call_conv_forward(b, &y, &x, &w, c->bias || c->means ? &bias : NULL, c->means != NULL, s, c->relu, &forward);
    call_conv_gradient(b, &gradient, &dy, &x, s, false);
    call_conv_backward(b, &dx, &dy, &w, c->mask ? &mask : NULL, s, &backward);
    keep_tensor(results, d, "y", &y);
    keep_shift(results, d, "the forward shift", forward.prediction);
    keep_tensor(results, d, "dx", &dx);
    keep_shift(results, d, "the backward shift", backward.prediction);
    keep(results, d, "the gradient", gradient.data, gradient_bytes, (size_t)c->bits / 8);
  }
  call_packed = NULL;
  /* What was written, as the operands of gradients again. */
  call_conv_gradient(b, &gradient, &y, &x, s, false);
  keep(results, d, "the gradient of y", gradient.data, gradient_bytes, (size_t)c->bits / 8);
  call_conv_gradient(b, &gradient, &dy, &dx, s, false);
  keep(results, d, "the gradient of dx", gradient.data, gradient_bytes, (size_t)c->bits / 8);
  if (!niti_conv_grouped(s)) return;
  keep_operand(results, d, "y", &y); /* whose layout gradients in groups do not read */
  keep_operand(results, d, "dx", &dx);
}

/* A bias whose exponent makes it small or large, where the sums leave room for it. */
static void add_bias(Case *c) {
  const NitiConv *s = &c->conv;
  if ((int64_t)s->kh * s->kw * niti_conv_group_inputs(s) + 33287 > 133144) return;
  c->bias = malloc((size_t)s->k * sizeof *c->bias);
  assert_non_null(c->bias);
  for (int k = 0; k < s->k; ++k) c->bias[k] = (int16_t)random_in(-32767, 32767);
  c->bias_exponent = 2 + (random_in(0, 3) ? random_in(-14, 2) : random_in(-20, 40));
}

/* At the accumulators' exponent, 2, from far below one to beyond the largest. */
static void add_means(Case *c) {
  const NitiConv *s = &c->conv;
  if ((int64_t)s->kh * s->kw * niti_conv_group_inputs(s) > 33287) return;
  c->means = malloc((size_t)s->k * sizeof *c->means);
  assert_non_null(c->means);
  for (int k = 0; k < s->k; ++k) c->means[k] = (int64_t)random_in(-32767, 32767) * ((int64_t)1 << random_in(0, 45));
}

enum { BIAS, MEANS, NOTHING };

static void check_with(NitiConv s, Fill fill, NitiRounding mode, int added) {
  const size_t in = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c,
               out = (size_t)s.n * (size_t)s.oh * (size_t)s.ow * (size_t)s.k,
               weights = (size_t)s.k * (size_t)s.kh * (size_t)s.kw * (size_t)niti_conv_group_inputs(&s);
  const bool narrow = (int64_t)s.n * s.oh * s.ow <= 133144;
  const int clip = random_in(0, 3) ? 0 : random_in(1, 7);
  Case c = {.conv = s,
            .rq = {mode, NITI_DRAW_ROUND_ACT, (uint32_t)random_in(0, 99), NULL, clip, 0},
            .prediction = random_prediction(),
            .x = mantissas(in, fill),
            .w = mantissas(weights, fill == FILL_LATE || fill == FILL_ONCE ? FILL_FULL : fill),
            .delta = mantissas(out, fill == FILL_HIGH && random_in(0, 1) ? FILL_LOW : fill),
            .mask = random_in(0, 1) ? mantissas(in, FILL_FULL) : NULL,
            .relu = random_in(0, 1),
            .operands = random_in(0, 3) > 0,
            .bits = narrow && random_in(0, 1) ? 32 : 64,
            .e_mask = random_in(-20, 10)};
  c.limit = random_limit(c.e_mask);
  if (added == BIAS) add_bias(&c);
  if (added == MEANS) add_means(&c);
  char what[256];
  snprintf(what, sizeof what,
           "n %d, %dx%dx%d, k %d, kernel %dx%d, stride %d,%d, pad %d,%d, groups %d, fill %d, mode %d, prediction %d, relu %d, "
           "mask %d below %d at %d, "
           "layouts %d, bias %d at %d, means %d, "
           "gradient %d bits, clip %d",
           s.n, s.h, s.w, s.c, s.k, s.kh, s.kw, s.stride_h, s.stride_w, s.pad_h, s.pad_w, s.groups, (int)fill, (int)mode,
           c.prediction, c.relu, c.mask != NULL, c.limit, c.e_mask, c.operands, c.bias != NULL, c.bias_exponent, c.means != NULL,
           c.bits, c.rq.clip);
  check_work(run, &c, what);
  free(c.x);
  free(c.w);
  free(c.delta);
  free(c.mask);
  free(c.bias);
  free(c.means);
}

static void check(NitiConv s, Fill fill, NitiRounding mode) {
  const int added = random_in(0, 5);
  check_with(s, fill, mode, added < 2 ? BIAS : added == 2 ? MEANS : NOTHING);
}

static void check_modes(NitiConv s) {
  for (NitiRounding mode = NITI_NEAREST; mode <= NITI_STOCHASTIC_BYTE; ++mode) check(s, FILL_FULL, mode);
}

/* In every mode, and with every fill. */
static void check_all(NitiConv s, NitiRounding mode_of_fills) {
  check_modes(s);
  for (Fill fill = FILL_HIGH; fill < FILLS; ++fill) check(s, fill, mode_of_fills);
}

static Fill random_fill(void) { return (Fill)random_in(0, FILLS - 1); }

/* A mode that draws nothing or one that does. */
static NitiRounding random_mode(void) { return random_in(0, 1) ? NITI_NEAREST : NITI_STOCHASTIC_BYTE; }

/* The same with a mode for each fill. */
static void check_all_drawn(NitiConv s) {
  check_modes(s);
  for (Fill fill = FILL_HIGH; fill < FILLS; ++fill) check(s, fill, random_mode());
}

/* Whether there is a window. */
static bool has_output(NitiConv s) { return s.h + 2 * s.pad_h >= s.kh && s.w + 2 * s.pad_w >= s.kw; }

/* ---- against the reference ---- */

static void test_small_shapes(void **unused) {
  (void)unused;
  need_cuda();
  const NitiConv shapes[] = {
      square(1, 1, 1, 1, 1, 1, 0),
      square(16, 8, 64, 64, 3, 1, 1),
      square(17, 8, 64, 64, 3, 1, 1),
      square(3, 8, 128, 128, 3, 1, 1),
      square(5, 4, 256, 128, 3, 1, 1),
      square(2, 16, 32, 96, 3, 1, 1),
      square(2, 32, 3, 64, 3, 1, 1),
      square(33, 7, 16, 48, 5, 1, 2),
      square(2, 16, 64, 128, 3, 2, 1),
      square(4, 9, 64, 64, 1, 1, 0),
      square(4, 8, 64, 64, 1, 2, 0),
      square(20, 1, 512, 10, 1, 1, 0),
      square(37, 1, 100, 10, 1, 1, 0),
      square(16, 1, 800, 500, 1, 1, 0),
      square(2, 23, 3, 33, 11, 4, 2),
      square(2, 28, 1, 20, 5, 1, 0),
      square(31, 12, 20, 50, 5, 1, 0),
      conv_shape(3, 7, 5, 5, 10, 2, 3, 3, 2, 1, 2),
      square(2, 6, 64, 64, 7, 1, 3),
      square(18, 3, 65, 63, 3, 1, 1),
      conv_shape(2, 1, 40, 64, 64, 1, 7, 1, 1, 0, 3),
      square(1, 5, 16, 16, 3, 1, 4), /* windows that lie in the padding alone */
      square(2, 9, 16, 32, 2, 3, 0), /* pixels that no window covers */
      square(64, 1, 800, 500, 1, 1, 0),
      square(64, 1, 500, 10, 1, 1, 0), /* lenet5's, whose channels are padded */
      square(5, 9, 24, 40, 3, 2, 1),
      /* channels that fill no tile, and runs of outputs that begin anywhere */
      square(17, 5, 72, 84, 3, 1, 1),
      square(33, 5, 120, 92, 3, 1, 1),
      square(3, 7, 112, 344, 3, 1, 1),
      square(16, 4, 224, 20, 5, 1, 2),
      square(16, 7, 80, 96, 7, 1, 3),
      square(18, 3, 60, 318, 1, 1, 0),
      square(37, 1, 200, 75, 1, 1, 0),
      square(5, 11, 56, 18, 3, 1, 1),
      conv_shape(19, 5, 9, 90, 130, 2, 3, 1, 1, 0, 1),
      /* strides that become channels: of all sizes and paddings, and windows that no image fills */
      square(18, 33, 3, 64, 7, 2, 3),
      square(5, 12, 3, 64, 4, 4, 0),
      square(17, 11, 1, 16, 11, 4, 5),
      square(3, 20, 3, 24, 5, 2, 0),
      square(33, 9, 7, 65, 3, 2, 2),
      square(2, 5, 5, 48, 9, 3, 4),
      conv_shape(4, 17, 30, 3, 80, 6, 7, 2, 3, 1, 3),
      conv_shape(19, 21, 10, 3, 32, 5, 3, 1, 2, 2, 1),
  };
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
    check_all(shapes[i], NITI_NEAREST);
    /* means that are larger than the sums, which no pixel beyond the images may show in the range: */
    for (int k = 0; k < 4; ++k) check_with(shapes[i], random_fill(), NITI_NEAREST, MEANS);
  }
}

/* Backward through a stride is a pass per phase: those of stride 2 in one launch, others and those that gather one by one. */
static void test_strides(void **unused) {
  (void)unused;
  need_cuda();
  const NitiConv shapes[] = {
      square(17, 8, 64, 128, 3, 2, 1),
      square(17, 8, 64, 128, 1, 2, 0), /* a residual block's */
      square(13, 7, 128, 256, 3, 2, 1),
      square(33, 9, 32, 48, 3, 2, 1),
      square(18, 10, 24, 32, 2, 2, 0), /* phases of any size */
      square(5, 16, 144, 64, 3, 2, 1),
      square(20, 5, 20, 64, 5, 2, 2),
      square(14, 6, 18, 32, 3, 2, 1),
      square(12, 1, 64, 64, 1, 2, 0),
      square(3, 2, 16, 16, 2, 2, 1),
      square(12, 6, 64, 64, 1, 2, 1),
      conv_shape(14, 9, 6, 48, 32, 3, 3, 2, 1, 1, 1),
      conv_shape(14, 6, 9, 64, 16, 3, 3, 1, 2, 1, 1), /* two phases */
      conv_shape(16, 9, 8, 32, 32, 1, 3, 4, 1, 0, 1),
      square(16, 12, 16, 32, 3, 3, 1),
      square(15, 9, 80, 50, 3, 2, 1),
      square(17, 6, 96, 112, 5, 2, 2), /* tiles that channels do not fill */
      square(18, 7, 72, 56, 3, 2, 1),
      square(16, 8, 20, 136, 3, 2, 1),
      square(33, 4, 200, 64, 1, 2, 0), /* phases that no tap reaches */
      square(3, 5, 224, 8, 2, 2, 0),
      conv_shape(33, 9, 7, 60, 80, 3, 5, 2, 1, 1, 2),
      conv_shape(5, 7, 13, 64, 192, 3, 3, 1, 4, 1, 1), /* four phases of columns */
  };
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) check_all(shapes[i], NITI_STOCHASTIC_BYTE);
}

static void test_random_shapes(void **unused) {
  static const int channels[] = {1,  2,  3,  4,  8,  15, 16, 17,  20,  31,  32,  33,  40,  48,
                                 56, 64, 65, 72, 80, 92, 96, 120, 128, 130, 160, 192, 200, 256};
  enum { LAST = sizeof channels / sizeof *channels - 1 };
  (void)unused;
  need_cuda();
  for (int i = 0; i < 150;) {
    const int kernel_h = random_in(1, 5), kernel_w = random_in(0, 2) ? kernel_h : random_in(1, 5);
    const NitiConv s = conv_shape(random_in(1, 40), random_in(1, 18), random_in(1, 18), channels[random_in(0, LAST)],
                                  channels[random_in(0, LAST)], kernel_h, kernel_w, random_in(0, 2) ? 1 : random_in(1, 3),
                                  random_in(0, 2) ? 1 : random_in(1, 3), random_in(0, kernel_h), random_in(0, kernel_w));
    const int64_t products = (int64_t)s.n * s.oh * s.ow * s.k * s.kh * s.kw * s.c;
    if (!has_output(s) || products > 40000000) continue;
    check(s, random_fill(), (NitiRounding)random_in(0, NITI_STOCHASTIC_BYTE));
    ++i;
  }
}

static void test_groups(void **unused) {
  (void)unused;
  need_cuda();
  const NitiConv shapes[] = {
      grouped(square(16, 8, 64, 64, 3, 1, 1), 64),  grouped(square(37, 9, 96, 96, 3, 2, 1), 96), /* depthwise */
      grouped(square(5, 12, 10, 10, 3, 1, 1), 10),  grouped(square(2, 7, 132, 132, 5, 2, 2), 132),
      grouped(square(3, 6, 24, 96, 3, 1, 1), 24),   grouped(square(3, 6, 96, 24, 3, 1, 1), 24), /* four to one, one to four */
      grouped(square(4, 7, 64, 128, 3, 1, 1), 4),   grouped(square(17, 5, 30, 12, 3, 2, 1), 6),
      grouped(square(2, 9, 16, 32, 2, 3, 0), 16),   grouped(square(1, 5, 16, 16, 3, 1, 4), 2),
      grouped(square(20, 1, 512, 64, 1, 1, 0), 32), grouped(conv_shape(3, 7, 5, 6, 9, 2, 3, 3, 2, 1, 2), 3),
      grouped(square(40, 64, 8, 8, 3, 1, 1), 8), /* a gradient beyond int32 */
  };
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) check_all(shapes[i], NITI_NEAREST);
  for (int i = 0; i < 60; ++i) {
    const int groups = random_in(1, 3) * random_in(1, 24), kernel = random_in(1, 4);
    const NitiConv s = conv_shape(random_in(1, 40), random_in(kernel, 14), random_in(kernel, 14), groups * random_in(1, 5),
                                  groups * random_in(1, 5), kernel, random_in(1, kernel), random_in(1, 3), random_in(1, 3),
                                  random_in(0, kernel), random_in(0, kernel));
    check(grouped(s, groups), random_fill(), (NitiRounding)random_in(0, NITI_STOCHASTIC_BYTE));
  }
}

/* Depthwise with windows of 3 by 3, which have kernels of their own: every way that strips and segments can end. */
static void test_depthwise(void **unused) {
  (void)unused;
  need_cuda();
  const NitiConv shapes[] = {
      square(3, 32, 144, 144, 3, 1, 1), square(2, 32, 96, 96, 3, 2, 1),  square(5, 4, 960, 960, 3, 1, 1),
      square(3, 8, 384, 384, 3, 2, 1),  square(4, 9, 32, 32, 3, 1, 0),   square(4, 9, 32, 32, 3, 2, 0),
      square(2, 11, 16, 16, 3, 1, 3),   square(1, 1, 272, 272, 3, 1, 1), conv_shape(2, 9, 14, 48, 48, 3, 3, 1, 1, 0, 2),
      square(40, 64, 16, 16, 3, 1, 1), /* a gradient beyond int32 */
      square(150, 64, 16, 16, 3, 2, 1),
  };
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) check_all_drawn(grouped(shapes[i], shapes[i].c));
  for (int i = 0; i < 60; ++i) {
    const int channels = 16 * random_in(1, 9), stride = random_in(1, 2), pad_h = random_in(0, 3), pad_w = random_in(0, 3);
    const NitiConv s = conv_shape(random_in(1, 33), random_in(3, 20), random_in(3, 20), channels, channels, 3, 3, stride, stride,
                                  random_in(0, 1) ? 1 : pad_h, random_in(0, 1) ? 1 : pad_w);
    check(grouped(s, channels), random_fill(), random_mode());
  }
  for (int i = 0; i < 60; ++i) { /* of any size, so that shifts are on both sides of 16 */
    const int channels = 16 * random_in(1, 9), stride = random_in(1, 2);
    const NitiConv s = square(random_in(1, 20), random_in(3, 20), channels, channels, 3, stride, random_in(0, 2));
    check_with(grouped(s, channels), random_fill(), random_mode(), random_in(0, 1) ? BIAS : MEANS);
  }
}

/* The largest accumulators that can be: 133,144 products of one sign. */
static void test_largest_sums(void **unused) {
  (void)unused;
  need_cuda();
  for (Fill fill = FILL_FULL; fill <= FILL_LOW; ++fill) {
    check(square(3, 1, 133144, 2, 1, 1, 0), fill, NITI_NEAREST);               /* forward */
    check(square(2, 1, 3, 133144, 1, 1, 0), fill, NITI_NEAREST);               /* backward */
    check(conv_shape(52, 50, 51, 2, 3, 1, 1, 1, 1, 0, 0), fill, NITI_NEAREST); /* gradient, just within int32 */
    check(square(80, 64, 2, 3, 1, 1, 0), fill, NITI_NEAREST);                  /* gradient, beyond it */
    check(square(40, 64, 16, 16, 3, 1, 1), fill, NITI_NEAREST);
  }
}

/* ---- every way in which a convolution can run ---- */

enum { MOST_WAYS = 24 }; /* of the mma family's gradients there are 19, and with wgmma three more */

static void test_every_way(void **unused) {
  (void)unused;
  need_cuda();
  const NitiConv shapes[] = {
      square(17, 8, 64, 64, 3, 1, 1),
      square(18, 6, 128, 192, 3, 1, 1),
      square(18, 7, 84, 136, 3, 1, 1),
      square(17, 9, 96, 112, 7, 1, 3),
      square(35, 8, 72, 200, 3, 2, 1),
      square(18, 3, 64, 128, 3, 1, 1),
      square(3, 8, 128, 80, 5, 1, 2),
      square(20, 1, 512, 64, 1, 1, 0),
      square(5, 1, 512, 10, 1, 1, 0),
      square(18, 9, 3, 64, 3, 1, 1),
      square(16, 12, 20, 50, 5, 1, 0),
      square(6, 8, 64, 40, 3, 2, 1),
      square(4, 7, 65, 33, 3, 2, 1),
      square(9, 8, 48, 24, 1, 1, 0),
      grouped(square(19, 9, 96, 96, 3, 2, 1), 96),
      grouped(square(17, 5, 30, 12, 3, 2, 1), 6),
  };
  for (call_way = 1; call_way <= MOST_WAYS; ++call_way) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) check(shapes[i], random_fill(), (NitiRounding)random_in(0, 3));
    check(conv_shape(52, 50, 51, 2, 3, 1, 1, 1, 1, 0, 0), FILL_HIGH,
          NITI_NEAREST); /* a gradient just within int32, and beyond: */
    if (call_way <= 8) check(grouped(square(40, 64, 8, 8, 3, 1, 1), 8), FILL_HIGH, NITI_NEAREST);
  }
  call_way = 0;
}

/* Boxes: tiles that images do not fill, windows wider than the image, several columns of warps, channels whose weights are
 * transposed by words and by bytes, sums of an odd number of 16-byte chunks, phases with and without taps. */
static void test_boxes(void **unused) {
  (void)unused;
  need_cuda();
  const NitiConv shapes[] = {
      square(16, 32, 16, 16, 3, 1, 1),
      square(33, 16, 32, 32, 3, 1, 1),
      square(18, 8, 64, 64, 3, 1, 1),
      square(17, 32, 16, 32, 3, 2, 1),
      square(17, 16, 32, 64, 1, 2, 0),
      square(3, 13, 16, 16, 3, 1, 1),
      square(40, 7, 48, 80, 1, 1, 0),
      square(12, 9, 16, 10, 5, 1, 2),
      square(19, 11, 16, 7, 3, 1, 1), /* backward transposes bytes where K is 16: */
      square(19, 11, 7, 16, 3, 1, 1),
      square(20, 6, 30, 48, 3, 1, 1),
      square(15, 5, 96, 24, 1, 1, 0),
      square(16, 4, 160, 48, 1, 1, 0),
      square(1, 5, 16, 16, 3, 1, 4),
      square(2, 9, 16, 32, 2, 3, 0),
      square(18, 10, 24, 32, 2, 2, 0),
      conv_shape(14, 9, 6, 48, 32, 3, 3, 2, 1, 1, 1),
      conv_shape(14, 6, 9, 64, 16, 3, 3, 1, 2, 1, 1),
      conv_shape(2, 1, 40, 64, 64, 1, 7, 1, 1, 0, 3),
      conv_shape(21, 37, 5, 32, 16, 3, 5, 1, 1, 0, 2),
      conv_shape(5, 3, 70, 16, 24, 2, 3, 2, 2, 1, 0),
  };
  static const int channels[] = {1, 10, 16, 16, 24, 32, 32, 48, 64, 96};
  call_way_named = "mma box";
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) check_all_drawn(shapes[i]);
  for (int i = 0; i < 100;) {
    const int kernel_h = random_in(1, 4), kernel_w = random_in(0, 2) ? kernel_h : random_in(1, 5);
    const NitiConv s = conv_shape(random_in(1, 40), random_in(1, 20), random_in(1, 40), channels[random_in(0, 9)],
                                  channels[random_in(0, 9)], kernel_h, kernel_w, random_in(0, 2) ? 1 : random_in(1, 2),
                                  random_in(0, 2) ? 1 : random_in(1, 2), random_in(0, kernel_h), random_in(0, kernel_w));
    if (!has_output(s)) continue;
    check(s, random_fill(), (NitiRounding)random_in(0, NITI_STOCHASTIC_BYTE));
    ++i;
  }
  call_way_named = NULL;
}

/* ---- the shapes of VGG-small, against the CPU's best ---- */

static void test_vgg_small(void **unused) {
  static const struct {
    int side, c, k;
  } layers[] = {{32, 3, 128}, {32, 128, 128}, {16, 128, 256}, {16, 256, 256}, {8, 256, 512}, {8, 512, 512}, {1, 8192, 10}};
  (void)unused;
  need_cuda();
  for (int n = 32; n <= 48; n += 16) {
    for (size_t i = 0; i < sizeof layers / sizeof *layers; ++i) {
      const bool linear = layers[i].side == 1;
      check(square(n, layers[i].side, layers[i].c, layers[i].k, linear ? 1 : 3, 1, linear ? 0 : 1), FILL_FULL, NITI_NEAREST);
    }
  }
  check(square(29, 16, 256, 256, 3, 1, 1), FILL_FULL, NITI_STOCHASTIC); /* a last batch */
  check(square(32, 32, 64, 128, 3, 2, 1), FILL_FULL, NITI_NEAREST);
  check(square(128, 8, 256, 512, 3, 2, 1), FILL_FULL, NITI_STOCHASTIC_BYTE); /* more tiles than the second launch has blocks */
  check(square(100, 16, 128, 256, 1, 2, 0), FILL_LATE, NITI_STOCHASTIC_BYTE);
  check(square(32, 27, 96, 256, 5, 1, 2), FILL_FULL, NITI_NEAREST);
  check(square(16, 64, 3, 96, 11, 4, 2), FILL_FULL, NITI_NEAREST);
  check(square(32, 14, 512, 512, 1, 1, 0), FILL_FULL, NITI_NEAREST);
}

/* Few channels: windows of any size and stride that begin anywhere, channels for each width of groups, several groups, jobs of
 * several rows, of which the last has fewer, and images that begin at any byte. */
static void test_windows(void **unused) {
  static const int channels[] = {1, 2, 3, 3, 3, 4, 5, 7, 12, 15},
                   filters[] = {1, 5, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 130, 200};
  (void)unused;
  need_cuda();
  call_way_named = "mma windows";
  for (int i = 0; i < 150; ++i) {
    const int kh = random_in(1, 6), kw = random_in(1, 6), c = channels[random_in(0, 9)], k = filters[random_in(0, 13)];
    const int n = random_in(12, 40), h = random_in(6, 20), w = random_in(6, 20), stride_h = random_in(1, 3);
    const NitiConv s = conv_shape(n, h, w, c, k, kh, kw, stride_h, random_in(0, 1) ? stride_h : random_in(1, 3),
                                  random_in(0, kh / 2), random_in(0, kw / 2));
    check_with(s, random_fill(), random_mode(), random_in(0, 2) ? NOTHING : random_in(0, 1) ? BIAS : MEANS);
  }
  call_way_named = NULL;
  check(square(130, 28, 1, 20, 5, 1, 0), FILL_FULL, NITI_NEAREST); /* more jobs than blocks */
  check(square(300, 33, 3, 16, 3, 1, 1), FILL_LATE, NITI_STOCHASTIC_BYTE);
  check(square(150, 61, 3, 24, 6, 1, 2), FILL_LATE, NITI_NEAREST);
  check(square(64, 32, 3, 32, 3, 1, 1), FILL_FULL, NITI_STOCHASTIC);
}

/* Many tiles for each warp, of which the last ask for a larger shift than the prediction or the tiles before. */
static void test_late_range(void **unused) {
  (void)unused;
  need_cuda();
  for (int again = 0; again < 4; ++again) {
    check(square(150, 32, 64, 128, 3, 1, 1), FILL_LATE, NITI_NEAREST);
    check(square(80, 32, 128, 128, 3, 1, 1), FILL_LATE, NITI_NEAREST);
    check(square(150, 16, 256, 256, 3, 1, 1), FILL_LATE, NITI_NEAREST);
    check(square(400, 8, 128, 512, 1, 1, 0), FILL_LATE, again == 0 ? NITI_STOCHASTIC : NITI_NEAREST);
  }
}

/* As many tiles as each pair of warpgroups has one of on 132 multiprocessors, of which few demand the shift: those of any pair.
 */
static void test_one_round(void **unused) {
  static const char *const ways[] = {"wgmma", "wgmma streamed"};
  (void)unused;
  need_cuda();
  for (int way = 0; way < 2; ++way) {
    call_way_named = ways[way];
    for (int again = 0; again < 12; ++again) {
      const NitiRounding mode = again % 2 ? NITI_NEAREST : NITI_STOCHASTIC_BYTE;
      check(square(32, 24, 64, 128, 3, 1, 1), FILL_ONCE, mode);
      check(square(80, 8, 128, 512, 3, 1, 1), FILL_ONCE, mode);
      check(square(200, 4, 256, 512, 3, 1, 1), FILL_ONCE, mode);
      check(square(96, 16, 64, 128, 3, 2, 1), FILL_ONCE, mode);
      check(square(48, 19, 72, 84, 5, 1, 2), FILL_ONCE, mode);
      check(square(48, 24, 64, 192, 1, 1, 0), FILL_ONCE, mode); /* one tile's alone */
    }
  }
  call_way_named = NULL;
}

static int open_reference(void **unused) {
  (void)unused;
  return open_devices("ref", 512 * MIB);
}

static int open_best(void **unused) {
  (void)unused;
  return open_devices("auto", 512 * MIB);
}

int main(void) {
  const struct CMUnitTest small[] = {cmocka_unit_test(test_small_shapes),  cmocka_unit_test(test_strides),
                                     cmocka_unit_test(test_random_shapes), cmocka_unit_test(test_groups),
                                     cmocka_unit_test(test_depthwise),     cmocka_unit_test(test_largest_sums)};
  const struct CMUnitTest large[] = {cmocka_unit_test(test_vgg_small), cmocka_unit_test(test_late_range),
                                     cmocka_unit_test(test_every_way), cmocka_unit_test(test_windows),
                                     cmocka_unit_test(test_boxes),     cmocka_unit_test(test_one_round)};
  random_state = 2024;
  const int failed = cmocka_run_group_tests_name("against the reference", small, open_reference, close_devices);
  return failed + cmocka_run_group_tests_name("VGG-small", large, open_best, close_devices);
}

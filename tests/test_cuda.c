/* Every operation of the CUDA backend but convolution (test_cuda_conv.c) against the CPU's reference kernels, bit for bit: odd
 * shapes, batches that are no multiple of 16, every rounding mode, aliases, predictions of shifts that are right, wrong or
 * absurd. What an operation wrote is read as a gradient's operand too. Then memory: what comes back is what was sent, in order.
 */
#include "base/softmax.h"
#include "cuda_test.h"

enum { ROUNDS = 60, WHAT = 256 };

typedef struct Case {
  NitiShape shape;
  NitiPool pool;
  NitiRounding mode;
  int32_t prediction, exponent, other;
  int8_t *a, *b;
  bool operands;
  int alias; /* 0: outputs apart; 1: the first input; 2: the second */
  bool mask, relu;
  int clip;
  NitiDropout dropout;
  int32_t relu_max;
  int classes;
  NitiLossKind loss;
  int32_t off; /* NitiLoss */
  bool metrics_only;
  int32_t *labels;
} Case;

static NitiShape random_shape(void) {
  static const int channels[] = {1, 2, 3, 4, 7, 8, 10, 16, 20, 33, 50, 64, 127, 128, 256};
  return (NitiShape){random_in(1, 49), random_in(1, 12), random_in(1, 12), channels[random_in(0, 14)]};
}

static Case random_case(void) {
  Case c = {.shape = random_shape(),
            .mode = (NitiRounding)random_in(0, 3),
            .prediction = random_prediction(),
            .exponent = random_in(-30, 30),
            .operands = random_in(0, 2) > 0,
            .alias = random_in(0, 2)};
  c.a = mantissas(niti_shape_count(c.shape), (Fill)random_in(0, FILLS - 1));
  c.b = mantissas(niti_shape_count(c.shape), (Fill)random_in(0, FILLS - 1));
  c.other = random_in(0, 3) ? c.exponent + random_in(-9, 9) : c.exponent + random_in(-40, 40);
  return c;
}

static void free_case(Case *c) {
  free(c->a);
  free(c->b);
  free(c->labels);
}

static NitiRequantise requantise(Device *d, const Case *c, uint32_t purpose) {
  return (NitiRequantise){c->mode, purpose, 5, place_copy(d, &c->prediction, sizeof c->prediction), c->clip, 0};
}

static void describe(char text[WHAT], const char *name, const Case *c) {
  snprintf(text, WHAT, "%s, %dx%dx%dx%d, mode %d, prediction %d, exponents %d %d, alias %d, layouts %d, mask %d, clip %d", name,
           c->shape.n, c->shape.h, c->shape.w, c->shape.c, (int)c->mode, c->prediction, c->exponent, c->other, c->alias,
           c->operands, c->mask, c->clip);
  if (c->classes > 0) {
    const size_t length = strlen(text);
    snprintf(text + length, WHAT - length, ", %d classes, loss %d, off %d, label 0 %d", c->classes, (int)c->loss, c->off,
             c->labels[0]);
  }
}

static void check_rounds(Work work, const char *name, void (*more)(Case *)) {
  need_cuda();
  for (int i = 0; i < ROUNDS; ++i) {
    Case c = random_case();
    char what[WHAT];
    if (more) more(&c);
    describe(what, name, &c);
    check_work(work, &c, what);
    free_case(&c);
  }
}

static int uses_of(bool operand) { return operand ? NITI_USE_GRADIENT | NITI_USE_OTHER : NITI_USE_OTHER; }

/* ---- element by element ---- */

static void relu(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiTensor x = tensor_in(d, c->shape, c->a, c->exponent), dy = tensor_in(d, c->shape, c->b, c->other);
  NitiTensor y = c->alias ? x : tensor_out(d, c->shape), dx = c->alias ? dy : tensor_out(d, c->shape);
  y.uses = dx.uses = uses_of(c->operands);
  d->backend->kernels->relu_forward(d->backend, &y, &x, c->relu_max);
  keep_operand(results, d, "y", &y);
  d->backend->kernels->relu_backward(d->backend, &dx, &dy, &y, c->relu_max);
  keep_operand(results, d, "dx", &dx);
}

static void dropout(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiTensor x = tensor_in(d, c->shape, c->a, c->exponent);
  NitiTensor y = c->alias ? x : tensor_out(d, c->shape);
  y.uses = uses_of(c->operands);
  d->backend->kernels->dropout(d->backend, &y, &x, 77, &c->dropout);
  keep_operand(results, d, "y", &y);
}

static void add(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiTensor a = tensor_in(d, c->shape, c->a, c->exponent), b = tensor_in(d, c->shape, c->b, c->other);
  NitiTensor y = c->alias == 0 ? tensor_out(d, c->shape) : c->alias == 1 ? a : b;
  const NitiTensor mask = tensor_in(d, c->shape, c->b, 0);
  const NitiRequantise rq = requantise(d, c, NITI_DRAW_FORK);
  y.uses = uses_of(c->operands);
  d->backend->kernels->add(d->backend, &y, &a, &b, c->mask ? &mask : NULL, c->relu, &rq);
  keep_operand(results, d, "y", &y);
  keep_shift(results, d, "the shift", rq.prediction);
  NitiTensor z = tensor_out(d, c->shape);
  d->backend->kernels->add(d->backend, &z, &y, &y, NULL, false, &rq); /* a prediction that was right once */
  keep_tensor(results, d, "y + y", &z);
}

static void any_add(Case *c) {
  c->clip = random_in(0, 2) ? 0 : random_in(1, 7);
  c->mask = random_in(0, 2) == 0;
  c->relu = random_in(0, 2) == 0;
}

static void any_dropout(Case *c) {
  static const int32_t rates[] = {0, 1, 100000, 200000, 500000, 500000, 750000, 999999};
  c->dropout = (NitiDropout){random_in(0, 1), rates[random_in(0, 7)]};
}

/* Limits within the mantissas, for the most part. */
static void any_relu(Case *c) {
  c->relu_max = random_in(0, 2) ? random_in(1, 2000000000) : 0;
  if (random_in(0, 3)) c->exponent = random_in(-6, 12);
  if (random_in(0, 2) == 0) c->relu_max = 6000000;
}

static void test_relu(void **unused) {
  (void)unused;
  check_rounds(relu, "relu", any_relu);
}

static void test_dropout(void **unused) {
  (void)unused;
  check_rounds(dropout, "dropout", any_dropout);
}

static void test_add(void **unused) {
  (void)unused;
  check_rounds(add, "add", any_add);
}

static void bias_gradient(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiTensor dy = tensor_in(d, c->shape, c->a, c->exponent);
  const size_t bytes = (size_t)c->shape.c * sizeof(int64_t);
  NitiTensor gradient = {.data = place(d, bytes), .exponent = place(d, sizeof(int32_t)), .shape = {1, 1, 1, c->shape.c}};
  d->backend->kernels->bias_gradient(d->backend, &gradient, &dy);
  keep(results, d, "the gradient", gradient.data, bytes, 8);
  keep(results, d, "its exponent", gradient.exponent, sizeof(int32_t), 4);
}

static void test_bias_gradient(void **unused) {
  (void)unused;
  check_rounds(bias_gradient, "bias gradient", NULL);
  Case c = random_case();
  free(c.a);
  c.shape = (NitiShape){40000, 1, 1, 12}; /* several blocks */
  c.a = mantissas(niti_shape_count(c.shape), FILL_HIGH);
  check_work(bias_gradient, &c, "bias gradient of many rows");
  free_case(&c);
}

/* ---- pools ---- */

static NitiShape pool_out(const NitiPool *p) { return (NitiShape){p->n, p->oh, p->ow, p->c}; }

static void maxpool(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiShape out = pool_out(&c->pool);
  const size_t count = niti_shape_count(out);
  const NitiTensor x = tensor_in(d, c->shape, c->a, c->exponent);
  NitiTensor y = tensor_out(d, out), dx = tensor_out(d, c->shape);
  uint8_t *winner = place(d, count);
  const NitiRequantise rq = requantise(d, c, NITI_DRAW_ROUND_DELTA);
  y.uses = dx.uses = uses_of(c->operands);
  d->backend->kernels->maxpool_forward(d->backend, &y, winner, &x, &c->pool);
  keep_operand(results, d, "y", &y);
  keep(results, d, "the winners", winner, count, 1);
  const NitiTensor dy = tensor_in(d, out, c->b, c->other);
  for (int again = 0; again < 2; ++again) {
    d->backend->kernels->maxpool_backward(d->backend, &dx, &dy, winner, c->mask ? &y : NULL, &c->pool, &rq);
    keep_operand(results, d, "dx", &dx);
  }
}

static void avgpool(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiShape out = pool_out(&c->pool);
  const NitiTensor x = tensor_in(d, c->shape, c->a, c->exponent), dy = tensor_in(d, out, c->b, c->other);
  NitiTensor y = tensor_out(d, out), dx = tensor_out(d, c->shape);
  const NitiRequantise forward = requantise(d, c, NITI_DRAW_ROUND_ACT), backward = requantise(d, c, NITI_DRAW_ROUND_DELTA);
  y.uses = dx.uses = uses_of(c->operands);
  for (int again = 0; again < 2; ++again) {
    d->backend->kernels->avgpool_forward(d->backend, &y, &x, &c->pool, &forward);
    keep_operand(results, d, "y", &y);
    d->backend->kernels->avgpool_backward(d->backend, &dx, &dy, &c->pool, &backward);
    keep_operand(results, d, "dx", &dx);
  }
  keep_shift(results, d, "the forward shift", forward.prediction);
  keep_shift(results, d, "the backward shift", backward.prediction);
}

static int least(int a, int b) { return a < b ? a : b; }

/* A window that fits. */
static void any_pool(Case *c) {
  const NitiShape s = c->shape;
  const bool usual = random_in(0, 2) == 0 && s.h > 1 && s.w > 1;
  NitiPool p = {.n = s.n, .h = s.h, .w = s.w, .c = s.c};
  p.kh = usual ? 2 : random_in(1, least(s.h, 5));
  p.kw = usual ? 2 : random_in(1, least(s.w, 5));
  p.stride_h = usual ? 2 : random_in(1, 4);
  p.stride_w = usual ? 2 : random_in(1, 4);
  p.pad_h = !usual ? random_in(0, p.kh - 1) : 0;
  p.pad_w = !usual ? random_in(0, p.kw - 1) : 0;
  p.oh = (s.h + 2 * p.pad_h - p.kh) / p.stride_h + 1;
  p.ow = (s.w + 2 * p.pad_w - p.kw) / p.stride_w + 1;
  c->pool = p;
  c->mask = niti_pool_apart(&p) && random_in(0, 1);
  free(c->b);
  c->b = mantissas(niti_shape_count(pool_out(&p)), (Fill)random_in(0, FILLS - 1));
}

static void any_avgpool(Case *c) {
  any_pool(c);
  if (random_in(0, 3)) return;
  c->pool.kh = c->pool.stride_h = c->shape.h; /* global */
  c->pool.kw = c->pool.stride_w = c->shape.w;
  c->pool.oh = c->pool.ow = 1;
  c->pool.pad_h = c->pool.pad_w = 0;
}

static void test_maxpool(void **unused) {
  (void)unused;
  check_rounds(maxpool, "maxpool", any_pool);
}
static void test_avgpool(void **unused) {
  (void)unused;
  check_rounds(avgpool, "avgpool", any_avgpool);
}

/* Few outputs of large windows: threads share them. Also with one thread too many, with more words than threads, and windows that
 * overlap and reach out of the image. */
static void test_shared_windows(void **unused) {
  static const NitiPool pools[] = {
      {.n = 40, .h = 8, .w = 8, .c = 64, .oh = 1, .ow = 1, .kh = 8, .kw = 8, .stride_h = 8, .stride_w = 8},
      {.n = 256, .h = 4, .w = 4, .c = 512, .oh = 1, .ow = 1, .kh = 4, .kw = 4, .stride_h = 4, .stride_w = 4},
      {.n = 3, .h = 7, .w = 7, .c = 1280, .oh = 1, .ow = 1, .kh = 7, .kw = 7, .stride_h = 7, .stride_w = 7},
      {.n = 5, .h = 5, .w = 4, .c = 200, .oh = 1, .ow = 1, .kh = 5, .kw = 4, .stride_h = 5, .stride_w = 4},
      {.n = 2, .h = 4, .w = 4, .c = 1000, .oh = 1, .ow = 1, .kh = 4, .kw = 4, .stride_h = 4, .stride_w = 4},
      {.n = 1, .h = 20, .w = 30, .c = 4, .oh = 1, .ow = 1, .kh = 20, .kw = 30, .stride_h = 1, .stride_w = 1},
      {.n = 7, .h = 9, .w = 9, .c = 24, .oh = 5, .ow = 5, .kh = 5, .kw = 5, .stride_h = 2, .stride_w = 2, .pad_h = 2, .pad_w = 2},
      {.n = 3,
       .h = 6,
       .w = 8,
       .c = 1100,
       .oh = 3,
       .ow = 4,
       .kh = 4,
       .kw = 5,
       .stride_h = 2,
       .stride_w = 2,
       .pad_h = 1,
       .pad_w = 2},
  };
  (void)unused;
  need_cuda();
  for (int i = 0; i < 4 * (int)(sizeof pools / sizeof *pools); ++i) {
    Case c = random_case();
    free(c.a);
    free(c.b);
    c.pool = pools[i / 4];
    c.shape = (NitiShape){c.pool.n, c.pool.h, c.pool.w, c.pool.c};
    c.a = mantissas(niti_shape_count(c.shape), i % 4 == 0 ? FILL_FULL : (Fill)random_in(0, FILLS - 1));
    c.b = mantissas(niti_shape_count(pool_out(&c.pool)), FILL_FULL);
    check_work(avgpool, &c, "shared windows");
    free_case(&c);
  }
}

/* The pools of VGG-small: large tensors, many blocks. */
static void test_large_pools(void **unused) {
  (void)unused;
  need_cuda();
  for (int i = 0; i < 6; ++i) {
    Case c = random_case();
    const int side = 32 >> (i % 3);
    free(c.a);
    free(c.b);
    c.shape = (NitiShape){i < 3 ? 32 : 29, side, side, 128 << (i % 3)};
    c.pool = (NitiPool){.n = c.shape.n,
                        .h = side,
                        .w = side,
                        .c = c.shape.c,
                        .oh = side / 2,
                        .ow = side / 2,
                        .kh = 2,
                        .kw = 2,
                        .stride_h = 2,
                        .stride_w = 2};
    c.mask = true;
    c.a = mantissas(niti_shape_count(c.shape), FILL_FULL);
    c.b = mantissas(niti_shape_count(c.shape), FILL_FULL);
    check_work(maxpool, &c, "a pool of VGG-small");
    check_work(add, &c, "a large sum");
    free_case(&c);
  }
}

/* Pools of 16 channels at a time: windows that overlap, as in AlexNet, reach out of the image, or are many over a cell; images
 * that fill no block, rows that fill no tile, and a window too large for backward's. */
static void test_wide_pools(void **unused) {
  static const struct {
    int n, h, w, c, kernel, stride, pad;
  } pools[] = {{33, 31, 31, 64, 3, 2, 0}, {17, 15, 15, 192, 3, 2, 0}, {3, 7, 7, 256, 3, 2, 1},   {16, 9, 6, 48, 3, 1, 1},
               {2, 12, 12, 16, 5, 1, 2},  {1, 5, 4, 128, 2, 1, 1},    {19, 8, 8, 112, 4, 3, 3},  {1, 13, 13, 32, 12, 5, 2},
               {5, 6, 6, 80, 3, 3, 1},    {40, 2, 2, 512, 2, 2, 0},   {2, 20, 20, 16, 16, 1, 3}, {18, 1, 9, 64, 1, 1, 0}};
  static const NitiRounding modes[] = {NITI_NEAREST, NITI_STOCHASTIC_BYTE, NITI_STOCHASTIC};
  (void)unused;
  need_cuda();
  for (int i = 0; i < 6 * (int)(sizeof pools / sizeof *pools); ++i) {
    Case c = random_case();
    const int k = pools[i / 6].kernel, stride = pools[i / 6].stride, pad = pools[i / 6].pad;
    free(c.a);
    free(c.b);
    c.mode = modes[i % 3];
    c.mask = false;
    c.shape = (NitiShape){pools[i / 6].n, pools[i / 6].h, pools[i / 6].w, pools[i / 6].c};
    c.pool = (NitiPool){.n = c.shape.n,
                        .h = c.shape.h,
                        .w = c.shape.w,
                        .c = c.shape.c,
                        .oh = (c.shape.h + 2 * pad - k) / stride + 1,
                        .ow = (c.shape.w + 2 * pad - k) / stride + 1,
                        .kh = k,
                        .kw = k,
                        .stride_h = stride,
                        .stride_w = stride,
                        .pad_h = pad,
                        .pad_w = pad};
    c.a = mantissas(niti_shape_count(c.shape), i % 6 < 3 ? FILL_FULL : (Fill)random_in(0, FILLS - 1));
    c.b = mantissas(niti_shape_count(pool_out(&c.pool)), i % 6 < 3 ? FILL_FULL : (Fill)random_in(0, FILLS - 1));
    check_work(maxpool, &c, "a wide pool");
    free_case(&c);
  }
}

/* The sums of ResNet-18 and ResNet-20, forward and with a mask in place, rounded as in training; and some of one block. */
static void test_residuals(void **unused) {
  (void)unused;
  need_cuda();
  const NitiShape shapes[] = {{33, 32, 32, 16}, {17, 32, 32, 64}, {40, 8, 8, 64}, {31, 4, 4, 512}, {1, 4, 4, 3},
                              {5, 1, 3, 16},    {17, 2, 2, 64},   {40, 2, 6, 64}, {9, 1, 3, 128},  {33, 1, 5, 96}};
  for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; ++i) {
    const NitiShape shape = shapes[i / 2];
    const bool back = i % 2 != 0;
    char what[WHAT];
    Case c = {.shape = shape,
              .mode = back ? NITI_STOCHASTIC_BYTE : NITI_NEAREST,
              .prediction = random_prediction(),
              .exponent = -9,
              .other = -9 + random_in(-3, 3),
              .operands = true,
              .alias = back ? random_in(1, 2) : 0,
              .mask = back,
              .relu = !back};
    c.a = mantissas(niti_shape_count(shape), FILL_FULL);
    c.b = mantissas(niti_shape_count(shape), FILL_FULL);
    describe(what, "a residual", &c);
    check_work(add, &c, what);
    free_case(&c);
  }
}

/* ---- loss, update, input, facts ---- */

static void loss(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiShape shape = {c->shape.n, 1, 1, c->classes};
  const NitiTensor logits = tensor_in(d, shape, c->a, c->exponent);
  NitiTensor delta = tensor_out(d, shape);
  const NitiMetrics before = {1000, 20, 3};
  NitiMetrics *metrics = place_copy(d, &before, sizeof before);
  const int32_t *labels = place_copy(d, c->labels, sizeof *labels * (size_t)shape.n);
  const NitiRequantise rq = requantise(d, c, NITI_DRAW_ROUND_DELTA);
  delta.uses = uses_of(c->operands);
  for (int again = 0; again < 2; ++again) {
    d->backend->kernels->loss(d->backend, c->metrics_only ? NULL : &delta, metrics, &logits, labels, (NitiLoss){c->loss, c->off},
                              &rq);
    keep(results, d, "the metrics", metrics, sizeof *metrics, 8);
    if (!c->metrics_only) keep_tensor(results, d, "delta", &delta);
    if (!c->metrics_only && c->classes <= 100) keep_operand(results, d, "delta", &delta);
  }
}

/* Logits and labels of so many images and classes. */
static void fill_loss(Case *c, int images, int classes, bool mixes) {
  c->classes = classes;
  c->shape.n = images;
  c->exponent = random_in(-45, 20);
  free(c->a);
  c->a = mantissas((size_t)c->shape.n * (size_t)c->classes, (Fill)random_in(0, FILLS - 1));
  c->labels = malloc(sizeof *c->labels * (size_t)c->shape.n);
  assert_non_null(c->labels);
  for (int i = 0; i < c->shape.n; ++i) c->labels[i] = random_in(0, c->classes - 1) | (mixes * random_in(0, 128)) << 16;
}

static void any_loss(Case *c) {
  static const int classes[] = {1, 2, 3, 10, 10, 10, 31, 100, 257, 1000, 65536};
  const int kind = random_in(0, 10);
  fill_loss(c, random_in(1, classes[kind] > 1000 ? 3 : 300), classes[kind], random_in(0, 1));
  c->loss = random_in(0, 1) ? NITI_LOSS_NITI : NITI_LOSS_SOFTMAX;
  c->off = c->loss == NITI_LOSS_SOFTMAX ? niti_loss_off(random_in(0, 999999999), c->classes) : 0;
  c->metrics_only = random_in(0, 4) == 0;
}

/* Mixed labels smoothed by more than a recipe can ask for: less is expected of the own class than of any other. */
static void test_loss_beyond_smoothing(void **unused) {
  (void)unused;
  need_cuda();
  for (int i = 0; i < 4; ++i) {
    Case c = random_case();
    char what[WHAT];
    fill_loss(&c, 3, 65536, true);
    c.loss = NITI_LOSS_SOFTMAX;
    c.off = random_in(300, 4096);
    c.labels[0] = 4 | 100 << 16;
    c.labels[1] = 70;
    describe(what, "loss beyond smoothing", &c);
    check_work(loss, &c, what);
    free_case(&c);
  }
}

static void test_loss(void **unused) {
  (void)unused;
  check_rounds(loss, "loss", any_loss);
}

typedef struct Update {
  NitiShape shape;
  int8_t *w;
  void *gradient;
  int bits;
  int64_t mu;
} Update;

static void update(Device *d, const void *context, Record *results) {
  const Update *u = context;
  const size_t count = niti_shape_count(u->shape);
  NitiTensor w = tensor_in(d, u->shape, u->w, -9);
  const NitiGradient gradient = {place_copy(d, u->gradient, count * (size_t)u->bits / 8), u->bits, count, {NULL, NULL}};
  call_update_niti(d->backend, &w, &gradient, u->mu);
  keep_tensor(results, d, "the weights", &w);
}

static void test_update(void **unused) {
  (void)unused;
  need_cuda();
  for (int i = 0; i < 200; ++i) {
    Update u = {.shape = {random_in(1, 70), random_in(1, 3), random_in(1, 3), random_in(1, 90)},
                .bits = random_in(0, 1) ? 32 : 64,
                .mu = random_in(0, 1) ? (int64_t)1000000 * (random_in(0, 2) ? random_in(0, 6) : random_in(0, 30))
                                      : random_in(0, random_in(0, 1) ? 7000000 : 30000000)};
    if (i % 20 == 0) u.shape = (NitiShape){i % 100 == 40 ? 3000 : 512, 3, 3, 512};
    const size_t count = niti_shape_count(u.shape);
    const int magnitude = i % 10 == 1 ? 0 : random_in(0, u.bits == 32 ? 30 : 50); /* bits of the largest gradient */
    int64_t *wide = calloc(count, sizeof *wide);
    int32_t *narrow = calloc(count, sizeof *narrow);
    assert_true(wide && narrow);
    for (size_t k = 0; k < count; ++k) {
      const int64_t any = (int64_t)(next_random() >> 1) % (((int64_t)1 << magnitude) + 1);
      wide[k] = i % 10 == 2 ? 0 : next_random() % 2 ? any : -any;
      narrow[k] = (int32_t)wide[k];
    }
    u.w = mantissas(count, (Fill)random_in(0, FILLS - 1));
    u.gradient = u.bits == 32 ? (void *)narrow : (void *)wide;
    char what[128];
    snprintf(what, sizeof what, "update of %zu weights, %d bits, mu %lld millionths, gradients below 2^%d", count, u.bits,
             (long long)u.mu, magnitude);
    check_work(update, &u, what);
    free(u.w);
    free(wide);
    free(narrow);
  }
}

/* Tensors that one call updates, each at one of two rates. */
typedef struct Updates {
  Update tensors[NITI_UPDATES_MAX];
  int count;
} Updates;

static void many_updates(Device *d, const void *context, Record *results) {
  const Updates *all = context;
  const int64_t scalars[NITI_SCALARS_MAX] = {31000000, all->tensors[0].mu, all->tensors[all->count - 1].mu};
  NitiTensor w[NITI_UPDATES_MAX];
  NitiGradient gradients[NITI_UPDATES_MAX];
  NitiWeightUpdate updates[NITI_UPDATES_MAX];
  for (int i = 0; i < all->count; ++i) {
    const Update *u = &all->tensors[i];
    const size_t count = niti_shape_count(u->shape);
    w[i] = tensor_in(d, u->shape, u->w, -9);
    gradients[i] = (NitiGradient){place_copy(d, u->gradient, count * (size_t)u->bits / 8), u->bits, count, {NULL, NULL}};
    updates[i] = (NitiWeightUpdate){&w[i], &gradients[i], 1 + i % 2};
  }
  d->backend->kernels->begin_step(d->backend, 1, 1, scalars);
  for (int again = 0; again < 2; ++again) { /* the first leaves nothing behind */
    d->backend->kernels->update_niti(d->backend, updates, all->count);
    for (int i = 0; i < all->count; ++i) {
      char label[96];
      snprintf(label, sizeof label, "call %d, tensor %d (%d weights of %d bits)", again, i, all->tensors[i].shape.c,
               all->tensors[i].bits);
      keep_tensor(results, d, label, &w[i]);
    }
  }
}

static Update random_update(int most) {
  Update u = {.shape = {1, 1, 1, random_in(1, most)},
              .bits = random_in(0, 1) ? 32 : 64,
              .mu = random_in(0, 1) ? (int64_t)1000000 * random_in(0, 8) : random_in(0, 8000000)};
  const size_t count = (size_t)u.shape.c;
  const int magnitude = random_in(0, u.bits == 32 ? 31 : 50);
  int64_t *wide = calloc(count, sizeof *wide);
  int32_t *narrow = calloc(count, sizeof *narrow);
  assert_true(wide && narrow);
  for (size_t k = 0; k < count; ++k) {
    const int64_t any = (int64_t)(next_random() >> 1) % ((int64_t)1 << magnitude);
    wide[k] = next_random() % 2 ? any : -any;
    narrow[k] = magnitude == 31 && k == count / 2 ? INT32_MIN : (int32_t)wide[k];
  }
  u.w = mantissas(count, (Fill)random_in(0, FILLS - 1));
  u.gradient = u.bits == 32 ? (void *)narrow : (void *)wide;
  free(u.bits == 32 ? (void *)wide : (void *)narrow);
  return u;
}

static void test_many_updates(void **unused) {
  static Updates all;
  (void)unused;
  need_cuda();
  for (int i = 0; i < 40; ++i) {
    all.count = i == 0 ? NITI_UPDATES_MAX : random_in(2, i % 10 ? 20 : NITI_UPDATES_MAX);
    for (int k = 0; k < all.count; ++k) all.tensors[k] = random_update(1 << random_in(1, all.count > 20 ? 11 : 17));
    check_work(many_updates, &all, "several tensors' update niti");
    for (int k = 0; k < all.count; ++k) free(all.tensors[k].w), free(all.tensors[k].gradient);
  }
}

typedef struct Input {
  NitiShape source, out; /* source.n images */
  uint8_t *images;
  NitiSample *samples;
  int8_t *table;
  bool operands, changes;
} Input;

static void input(Device *d, const void *context, Record *results) {
  const Input *in = context;
  NitiShape one = in->source;
  one.n = 1;
  NitiTensor out = tensor_out(d, in->out);
  const uint8_t *images = place_copy(d, in->images, niti_shape_count(in->source));
  const NitiSample *samples = place_copy(d, in->samples, sizeof *samples * (size_t)in->out.n);
  const NitiTensor table = tensor_in(d, (NitiShape){1, 1, in->out.c, 256}, in->table, -5);
  out.uses = uses_of(in->operands);
  d->backend->kernels->input(d->backend, &out, images, one, samples, &table, in->changes);
  keep_operand(results, d, "the input", &out);
}

/* A sample of everything that augmentation does, in an image of `source`'s size. */
static NitiSample random_sample(NitiShape source, bool changes) {
  NitiSample s = {.image = (uint32_t)random_in(0, source.n - 1),
                  .dy = (int16_t)random_in(-8, 8),
                  .dx = (int16_t)random_in(-8, 8),
                  .flip = (uint32_t)random_in(0, 1)};
  if (random_in(0, 2) == 0) {
    s.cut = (uint16_t)random_in(1, 30);
    s.cut_y = (int16_t)random_in(-20, 40);
    s.cut_x = (int16_t)random_in(-20, 40);
  }
  if (changes) s.share = (uint8_t)(random_in(0, 1) * random_in(0, 128));
  if (changes && random_in(0, 1)) {
    s.h = (uint16_t)random_in(1, source.h);
    s.w = (uint16_t)random_in(1, source.w);
    s.dy = (int16_t)random_in(0, source.h - s.h);
    s.dx = (int16_t)random_in(0, source.w - s.w);
  }
  if (changes && (source.c == 1 || source.c == 3) && random_in(0, 1)) {
    s.coloured = 1;
    s.colours = niti_colours(random_in(0, 8192), random_in(0, 8192), source.c == 3 ? random_in(0, 8192) : 4096,
                             (uint16_t)random_in(0, 65280));
  }
  return s;
}

static void test_input(void **unused) {
  (void)unused;
  need_cuda();
  for (int i = 0; i < ROUNDS; ++i) {
    const int c = random_in(1, 4);
    const bool cifar = i % 4 == 0;
    Input in = {.source = {random_in(1, 50), cifar ? 32 : random_in(1, 40), cifar ? 32 : random_in(1, 40), cifar ? 3 : c},
                .operands = random_in(0, 1),
                .changes = random_in(0, 1)};
    in.out = (NitiShape){random_in(1, 70), cifar ? 32 : random_in(1, 40), cifar ? 32 : random_in(1, 40), in.source.c};
    in.images = (uint8_t *)mantissas(niti_shape_count(in.source), FILL_FULL);
    in.table = mantissas(256 * (size_t)in.out.c, FILL_FULL);
    in.samples = calloc((size_t)in.out.n, sizeof *in.samples);
    assert_non_null(in.samples);
    for (int n = 0; n < in.out.n; ++n) in.samples[n] = random_sample(in.source, in.changes);
    char what[128];
    snprintf(what, sizeof what, "input of %d from %dx%dx%d to %dx%d", in.out.n, in.source.h, in.source.w, in.source.c, in.out.h,
             in.out.w);
    check_work(input, &in, what);
    free(in.images);
    free(in.table);
    free(in.samples);
  }
}

static void stats(Device *d, const void *context, Record *results) {
  const Case *c = context;
  const NitiTensor x = tensor_in(d, c->shape, c->a, c->exponent);
  NitiTensorStats facts;
  memset(&facts, 0, sizeof facts);
  d->backend->kernels->stats(d->backend, &facts, &x);
  const int64_t numbers[3] = {facts.count, facts.saturated, facts.exponent};
  keep(results, d, "the facts", place_copy(d, numbers, sizeof numbers), sizeof numbers, 8);
  keep(results, d, "the histogram", place_copy(d, facts.histogram, sizeof facts.histogram), sizeof facts.histogram, 8);
}

static void test_stats(void **unused) {
  (void)unused;
  check_rounds(stats, "stats", NULL);
}

/* ---- memory ---- */

static void test_memory(void **unused) {
  static const size_t sizes[] = {1, 3, 15, 16, 17, 255, 4096, 65535, 65536, 65537, 2 << 20, (2 << 20) + 1, 9 << 20};
  (void)unused;
  need_cuda();
  NitiBackend *b = devices[MMA].backend;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    void *memory = NULL;
    const size_t bytes = sizes[i], room = bytes + 7;
    uint8_t *back = malloc(room), *sent = (uint8_t *)mantissas(room, FILL_FULL);
    assert_non_null(back);
    assert_int_equal(b->ops->alloc(b, &memory, room), NITI_OK);
    assert_int_equal((uintptr_t)memory % 256, 0);
    memset(back, 1, room);
    b->ops->download(b, back, memory, room);
    for (size_t k = 0; k < room; ++k) assert_int_equal(back[k], 0);
    b->ops->upload(b, (uint8_t *)memory + 5, sent + 3, bytes); /* aligned to nothing */
    memset(sent, 0, 3);                                        /* what was sent may change at once */
    b->ops->download(b, back, memory, room);
    for (size_t k = 0; k < 5; ++k) assert_int_equal(back[k], 0);
    assert_memory_equal(back + 5, sent + 3, bytes);
    b->ops->release(b, memory);
    free(back);
    free(sent);
  }
  assert_int_equal(b->ops->synchronise(b), NITI_OK);
}

/* Many uploads on their way at once keep their contents and their order. */
static void test_many_uploads(void **unused) {
  enum { UPLOADS = 3000, BYTES = 5000 };
  (void)unused;
  need_cuda();
  if (is_left_out()) return; /* thousands of launches are one case too */
  Device *d = &devices[MMA];
  NitiBackend *b = d->backend;
  uint8_t *memory = place(d, UPLOADS * 4), *overwritten = place(d, BYTES), host[BYTES], *back = malloc(UPLOADS * 4);
  assert_non_null(back);
  for (uint32_t i = 0; i < UPLOADS; ++i) {
    memset(host, (int)(i & 255), BYTES);
    b->ops->upload(b, overwritten, host, BYTES);
    b->ops->upload(b, memory + 4 * (size_t)i, &i, sizeof i);
  }
  b->ops->download(b, back, memory, UPLOADS * 4);
  for (uint32_t i = 0; i < UPLOADS; ++i) {
    uint32_t got;
    memcpy(&got, back + 4 * (size_t)i, 4);
    assert_int_equal(got, i);
  }
  b->ops->download(b, host, overwritten, BYTES);
  for (int k = 0; k < BYTES; ++k) assert_int_equal(host[k], (UPLOADS - 1) & 255);
  free(back);
  finish_case(d, "many uploads");
}

static void test_out_of_memory(void **unused) {
  (void)unused;
  need_cuda();
  NitiBackend *b = devices[MMA].backend;
  void *memory = NULL;
  char asked[64];
  const size_t bytes = (size_t)1 << 46;
  snprintf(asked, sizeof asked, "%zu bytes asked for", bytes);
  assert_int_equal(b->ops->alloc(b, &memory, bytes), NITI_ERROR_MEMORY);
  assert_null(memory);
  assert_non_null(strstr(niti_error(), asked));
  assert_non_null(strstr(niti_error(), " free"));
  assert_int_equal(b->kernels->reserve(b, bytes), NITI_ERROR_MEMORY);
  assert_int_equal(b->ops->synchronise(b), NITI_OK); /* no failure of the device */
  assert_true(b->ops->free_bytes(b) > 0 && b->ops->free_bytes(b) < bytes);
}

/* ---- opening ---- */

static void refuse(const char *name, const char *isa, const char *says) {
  const NitiBackendOptions options = {.name = name, .isa = isa};
  NitiBackend *b = NULL;
  assert_int_equal(niti_backend_open(&b, &options), NITI_ERROR_UNSUPPORTED);
  assert_null(b);
  if (!strstr(niti_error(), says)) fail_msg("'%s' is not in: %s", says, niti_error());
}

static void test_what_is_refused(void **unused) {
  (void)unused;
  need_cuda();
  refuse("cuda:99", NULL, "cuda:");
  refuse("cuda:", NULL, "cuda:N");
  refuse("cuda:first", NULL, "cuda:N");
  refuse("cuda:-1", NULL, "cuda:N");
  refuse("cuda", "avx2", "avx2");
  refuse("cuda", "none", "mma");
}

static const char *opened_by(const char *name, const char *isa) {
  const NitiBackendOptions options = {.name = name, .isa = isa};
  NitiBackend *b = NULL;
  assert_int_equal(niti_backend_open(&b, &options), NITI_OK);
  const char *kind = b->ops->name;
  niti_backend_close(b);
  return kind;
}

static void test_what_auto_chooses(void **unused) {
  (void)unused;
  need_cuda();
  assert_string_equal(opened_by(NULL, NULL), "cuda");
  assert_string_equal(opened_by("auto", "auto"), "cuda");
  assert_string_equal(opened_by("auto", "mma"), "cuda");
  assert_string_equal(opened_by("auto", "ref"), "cpu");
  assert_string_equal(opened_by("cuda:0", NULL), "cuda");
  assert_string_equal(opened_by("cpu", NULL), "cpu");
}

static int open_all(void **unused) {
  (void)unused;
  random_state = 4711;
  return open_devices("ref", 256 * MIB);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bias_gradient),
      cmocka_unit_test(test_relu),
      cmocka_unit_test(test_dropout),
      cmocka_unit_test(test_add),
      cmocka_unit_test(test_maxpool),
      cmocka_unit_test(test_avgpool),
      cmocka_unit_test(test_shared_windows),
      cmocka_unit_test(test_large_pools),
      cmocka_unit_test(test_wide_pools),
      cmocka_unit_test(test_residuals),
      cmocka_unit_test(test_loss),
      cmocka_unit_test(test_loss_beyond_smoothing),
      cmocka_unit_test(test_update),
      cmocka_unit_test(test_many_updates),
      cmocka_unit_test(test_input),
      cmocka_unit_test(test_stats),
      cmocka_unit_test(test_memory),
      cmocka_unit_test(test_many_uploads),
      cmocka_unit_test(test_out_of_memory),
      cmocka_unit_test(test_what_is_refused),
      cmocka_unit_test(test_what_auto_chooses),
  };
  return cmocka_run_group_tests(tests, open_all, close_devices);
}

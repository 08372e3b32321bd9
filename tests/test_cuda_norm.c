/* Batch norm and update `sgd` of the CUDA backend against the CPU's kernels, bit for bit: shapes for each width of vector, worst
 * cases of every sum and multiplier, exponents far apart, and each operation twice, so that scratch must be clean after it. */
#include "base/norm.h"
#include "base/sgd.h"
#include "cuda_test.h"

enum { MIB_OF_ARENA = 256, OPERAND_CHANNELS = 128 /* keep_operand multiplies all channels by all */ };

/* ---- operands of other types ---- */

/* count elements of so many bytes; host NULL: poison. */
static NitiTensor wide_tensor(Device *d, NitiShape shape, size_t element, const void *host, int32_t exponent) {
  const size_t bytes = niti_shape_count(shape) * element;
  void *data = host ? place_copy(d, host, bytes) : place(d, bytes);
  return (NitiTensor){
      .data = data, .exponent = place_copy(d, &exponent, sizeof exponent), .shape = shape, .uses = NITI_USE_OTHER};
}

static NitiShape table(int32_t rows, int32_t columns) { return (NitiShape){rows, 1, 1, columns}; }

static void keep_wide(Record *r, Device *d, const char *label, const NitiTensor *t, size_t element) {
  keep(r, d, label, t->data, niti_shape_count(t->shape) * element, element);
  keep(r, d, "its exponent", t->exponent, sizeof *t->exponent, 4);
}

static void *allocate(size_t count, size_t element) {
  void *memory = calloc(count + 1, element);
  assert_non_null(memory);
  return memory;
}

/* ---- operands of a norm ---- */

typedef enum Weights { WEIGHTS_ANY, WEIGHTS_ONE, WEIGHTS_ZERO, WEIGHTS_LARGE, WEIGHTS_FAR, WEIGHTS } Weights;

static int16_t random_weight(Weights kind) {
  switch (kind) {
    case WEIGHTS_ONE: return 1 << 14;
    case WEIGHTS_ZERO: return 0;
    case WEIGHTS_LARGE: return random_in(0, 1) ? NITI_SGD_WEIGHT_MAX : -NITI_SGD_WEIGHT_MAX;
    case WEIGHTS_FAR: return random_in(0, 3) ? (int16_t)random_in(-1, 1) : NITI_SGD_WEIGHT_MAX;
    default: return (int16_t)random_in(-NITI_SGD_WEIGHT_MAX, NITI_SGD_WEIGHT_MAX);
  }
}

static int16_t *random_weights(size_t count) {
  const Weights kind = (Weights)random_in(0, WEIGHTS - 1);
  int16_t *w = allocate(count, sizeof *w);
  for (size_t i = 0; i < count; ++i) w[i] = random_weight(kind);
  return w;
}

/* Both running statistics of each channel. */
static int64_t *random_running(size_t channels) {
  int64_t *running = allocate(2 * channels, sizeof *running);
  const int bits = random_in(1, 50);
  for (size_t c = 0; c < 2 * channels; ++c) {
    const int64_t any = (int64_t)(next_random() >> 1) % ((int64_t)1 << bits);
    running[c] = random_in(0, 9) == 0 ? 0 : c < channels && random_in(0, 1) ? -any : any;
  }
  return running;
}

typedef struct Norm {
  NitiShape shape;    /* of x, y and both deltas */
  int8_t *x, *dy, *w; /* w: of a convolution */
  int16_t *weight, *bias;
  int64_t *running;
  NitiAffine *affine; /* maps alone */
  NitiAffineDelta *affine_delta;
  int32_t e_x, e_d, e_weight, e_bias;
  NitiRounding mode;
  bool relu, operands, fits; /* fits: these alone, without maps */
  int32_t first;             /* images of other ranks before these: maps alone */
  int32_t limit;             /* of the ReLU: its maximum in millionths */
} Norm;

static void random_parameters(Norm *n) {
  const size_t channels = (size_t)n->shape.c;
  n->weight = random_weights(channels);
  n->bias = random_weights(channels);
  n->running = random_running(channels);
  n->e_x = random_in(-40, 20);
  n->e_d = random_in(-40, 20);
  n->e_weight = random_in(0, 1) ? -14 : random_in(-30, 10);
  n->e_bias = random_in(0, 1) ? -15 : random_in(-30, 10);
  n->mode = random_in(0, 1) ? NITI_NEAREST : (NitiRounding)random_in(0, NITI_STOCHASTIC_BYTE);
  n->relu = random_in(0, 1);
  n->operands = random_in(0, 1);
  n->limit = random_limit(n->e_weight < -10 ? n->e_weight + 8 : n->e_weight); /* about the output's */
}

/* Whole channels of one value, or of two; now and then anything. */
static int8_t *channel_values(size_t count, size_t channels, Fill fill) {
  int8_t *m = mantissas(count, fill);
  const int kind = random_in(0, 3);
  for (size_t i = 0; i < count && kind < 2; ++i) {
    const int value = (int)((i % channels * 37 + 127) % 255) - 127;
    m[i] = (int8_t)(kind == 1 && next_random() % 2 ? -value : value);
  }
  return m;
}

static Norm random_norm(NitiShape shape) {
  Norm n = {.shape = shape};
  const size_t count = niti_shape_count(shape);
  n.x = channel_values(count, (size_t)shape.c, (Fill)random_in(0, FILLS - 1));
  n.dy = channel_values(count, (size_t)shape.c, (Fill)random_in(0, FILLS - 1));
  random_parameters(&n);
  return n;
}

static void free_norm(Norm *n) {
  free(n->x);
  free(n->dy);
  free(n->w);
  free(n->weight);
  free(n->bias);
  free(n->running);
  free(n->affine);
  free(n->affine_delta);
}

static void describe(char text[200], const char *name, const Norm *n) {
  snprintf(text, 200, "%s, %dx%dx%dx%d after %d, exponents %d %d %d %d, mode %d, relu %d at most %d, layouts %d", name,
           n->shape.n, n->shape.h, n->shape.w, n->shape.c, n->first, n->e_x, n->e_d, n->e_weight, n->e_bias, (int)n->mode,
           n->relu, n->limit, n->operands);
}

static void check_norm(Work work, const char *name, Norm n) {
  char what[200];
  describe(what, name, &n);
  check_work(work, &n, what);
  free_norm(&n);
}

static int uses_of(const Norm *n) { return n->operands ? NITI_USE_GRADIENT | NITI_USE_OTHER : NITI_USE_OTHER; }

static void keep_output(Record *r, Device *d, const char *label, const NitiTensor *t) {
  if (t->shape.c <= OPERAND_CHANNELS)
    keep_operand(r, d, label, t);
  else
    keep_tensor(r, d, label, t);
}

/* ---- the chain of a training step ---- */

static void forward(Device *d, const Norm *n, Record *results, const NitiTensor *x, NitiTensor *sums, const NitiTensor *weight) {
  const NitiKernels *k = d->backend->kernels;
  const int32_t c = n->shape.c;
  const NitiTensor bias = wide_tensor(d, table(c, 1), sizeof *n->bias, n->bias, n->e_bias);
  NitiTensor running = wide_tensor(d, table(2, c), sizeof *n->running, n->running, NITI_NORM_RUNNING_EXPONENT);
  NitiTensor affine = wide_tensor(d, table(c, 2), 4, NULL, 0), y = tensor_out(d, n->fits ? table(1, 1) : n->shape);
  const NitiRequantise rq = {n->mode, NITI_DRAW_ROUND_ACT, 3, NULL, 0, 0};
  y.uses = uses_of(n);
  y.limit = n->limit;
  for (int pass = 3; pass >= 0; --pass) { /* centred and not, of the batch and from the running statistics, which stay */
    const bool training = pass % 2, centred = pass / 2;
    k->norm_fit(d->backend, &affine, &running, training ? sums : NULL, x, weight, &bias, centred);
    keep_wide(results, d, "the sums", sums, 8);
    keep_wide(results, d, "the multipliers", &affine, 4);
    keep_wide(results, d, "the running statistics", &running, 8);
    if (n->fits) continue;
    k->norm_forward(d->backend, &y, x, &affine, n->relu, &rq);
    keep_output(results, d, "y", &y);
  }
}

static void backward(Device *d, const Norm *n, Record *results, const NitiTensor *x, const NitiTensor *dy, const NitiTensor *sums,
                     const NitiTensor *weight) {
  const NitiKernels *k = d->backend->kernels;
  const int32_t c = n->shape.c;
  NitiTensor delta_sums = wide_tensor(d, table(c, 3), 8, NULL, 0), affine = wide_tensor(d, table(c, 3), 4, NULL, 0);
  NitiTensor dw = wide_tensor(d, table(c, 1), 8, NULL, 0), db = wide_tensor(d, table(c, 1), 8, NULL, 0);
  NitiTensor dx = tensor_out(d, n->fits ? table(1, 1) : n->shape);
  const NitiRequantise rq = {n->mode, NITI_DRAW_ROUND_DELTA, 3, NULL, 0, 0};
  dx.uses = uses_of(n);
  k->norm_delta_fit(d->backend, &affine, &dw, &db, &delta_sums, dy, x, sums, weight);
  keep_wide(results, d, "the deltas' sums", &delta_sums, 8);
  keep_wide(results, d, "the deltas' multipliers", &affine, 4);
  keep_wide(results, d, "the weights' gradient", &dw, 8);
  keep_wide(results, d, "the biases' gradient", &db, 8);
  if (n->fits) return;
  k->norm_backward(d->backend, &dx, dy, x, &affine, &rq);
  keep_output(results, d, "dx", &dx);
}

static void step(Device *d, const void *context, Record *results) {
  const Norm *n = context;
  const NitiTensor x = wide_tensor(d, n->shape, 1, n->x, n->e_x), dy = wide_tensor(d, n->shape, 1, n->dy, n->e_d);
  const NitiTensor weight = wide_tensor(d, table(n->shape.c, 1), sizeof *n->weight, n->weight, n->e_weight);
  NitiTensor sums = wide_tensor(d, table(n->shape.c, 2), 8, NULL, 0);
  forward(d, n, results, &x, &sums, &weight);
  backward(d, n, results, &x, &dy, &sums, &weight);
  forward(d, n, results, &x, &sums, &weight); /* what the launches before left behind does not count */
}

static void test_step(void **unused) {
  static const int channels[] = {1,  2,  3,   4,   5,   8,   12,  16,   20,   24,   33,  40,
                                 48, 64, 100, 128, 257, 320, 512, 1000, 4100, 4112, 5000};
  enum { CHANNELS = sizeof channels / sizeof *channels };
  (void)unused;
  need_cuda();
  for (int i = 0; i < 4 * CHANNELS; ++i) {
    const int c = channels[i % CHANNELS], side = c > 512 ? 2 : 9;
    check_norm(step, "a step", random_norm((NitiShape){random_in(1, 40), random_in(1, side), random_in(1, side), c}));
  }
}

/* The tensors of residual networks: many blocks, and every block many rows. */
static void test_large_steps(void **unused) {
  static const NitiShape shapes[] = {{128, 32, 32, 16}, {130, 16, 16, 32}, {37, 56, 56, 64}, {33, 7, 7, 512},
                                     {200, 32, 32, 3},  {1, 1, 1, 100},    {1000, 1, 1, 10}, {50, 33, 31, 1},
                                     {70, 16, 16, 128}, {65, 17, 15, 24},  {129, 9, 9, 40},  {50, 8, 8, 1040}};
  (void)unused;
  need_cuda();
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
    Norm n = random_norm(shapes[i]);
    n.operands = i % 2 == 0;
    if (i % 3 == 0) memset(n.dy, 127, niti_shape_count(n.shape));
    check_norm(step, "a large step", n);
  }
}

/* Operands that begin 1 or 4 bytes past an aligned address. */
static void unaligned(Device *d, const void *context, Record *results) {
  const Norm *n = context;
  const NitiTensor x = wide_tensor(d, n->shape, 1, n->x, n->e_x), dy = wide_tensor(d, n->shape, 1, n->dy, n->e_d);
  const NitiTensor weight = wide_tensor(d, table(n->shape.c, 1), sizeof *n->weight, n->weight, n->e_weight);
  NitiTensor sums = wide_tensor(d, table(n->shape.c, 2), 8, NULL, 0);
  for (int by = 1; by <= 4; by += 3) {
    NitiTensor moved = x, delta = dy;
    moved.data += by;
    delta.data += by;
    moved.shape.n = delta.shape.n = n->shape.n - 1;
    Norm part = *n;
    part.shape = moved.shape;
    forward(d, &part, results, &moved, &sums, &weight);
    backward(d, &part, results, &moved, &delta, &sums, &weight);
  }
}

static void test_unaligned(void **unused) {
  (void)unused;
  need_cuda();
  check_norm(unaligned, "unaligned operands", random_norm((NitiShape){4, 8, 8, 64}));
}

/* As many values per channel as there may be: the largest sums of all. */
static void test_largest_sums(void **unused) {
  const NitiShape shape = {1 << (NITI_NORM_COUNT_LOG2 - 20), 1024, 1024, 1};
  const size_t count = niti_shape_count(shape);
  (void)unused;
  need_cuda();
  for (int i = 0; i < 4; ++i) {
    Norm n = random_norm(shape);
    n.fits = true;
    memset(n.x, i == 1 ? -127 : 127, count);
    memset(n.dy, i == 2 ? -127 : 127, count);
    if (i == 3) memset(n.x, -127, count / 2); /* the largest spread */
    if (i == 3) memset(n.dy, -127, count / 2);
    check_norm(step, "the largest sums", n);
  }
}

/* ---- channels that are no multiple of 16 ---- */

/* For each width of the rows that kernels join, whole numbers of them and not; more channels than threads that end the sums. */
static const int odd_channels[] = {1, 2, 3, 6, 17, 20, 36, 84, 92, 136, 200, 318, 344, 639};
enum { ODD_CHANNELS = sizeof odd_channels / sizeof *odd_channels };

/* pixels: 0: any number of them, 1: a multiple of 16. */
static NitiShape odd_shape(int i, int pixels, int side) {
  const NitiShape any = {random_in(1, 20), random_in(1, side), random_in(1, side), odd_channels[i % ODD_CHANNELS]};
  return pixels ? (NitiShape){16 * random_in(1, 2), any.h, any.w, any.c} : any;
}

static void test_odd_steps(void **unused) {
  (void)unused;
  need_cuda();
  for (int i = 0; i < 4 * ODD_CHANNELS; ++i) check_norm(step, "a step", random_norm(odd_shape(i, i / ODD_CHANNELS != 1, 9)));
}

/* Many blocks of every slice, and many turns of each. */
static void test_large_odd_steps(void **unused) {
  static const NitiShape shapes[] = {{128, 21, 21, 318}, {16, 40, 40, 639}, {128, 56, 56, 6}, {64, 41, 41, 92}, {48, 7, 7, 3084}};
  (void)unused;
  need_cuda();
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
    Norm n = random_norm(shapes[i]);
    n.operands = i % 2 == 0;
    if (i % 2 == 0) memset(n.dy, -127, niti_shape_count(n.shape));
    check_norm(step, "a large step", n);
  }
}

/* ---- maps with any multipliers ---- */

static void maps(Device *d, const void *context, Record *results) {
  const Norm *n = context;
  const NitiKernels *k = d->backend->kernels;
  const NitiTensor x = wide_tensor(d, n->shape, 1, n->x, n->e_x), dy = wide_tensor(d, n->shape, 1, n->dy, n->e_d);
  const NitiTensor affine = wide_tensor(d, table(n->shape.c, 2), 4, n->affine, n->e_weight);
  const NitiTensor affine_delta = wide_tensor(d, table(n->shape.c, 3), 4, n->affine_delta, n->e_bias);
  NitiTensor y = tensor_out(d, n->shape), dx = tensor_out(d, n->shape);
  const NitiRequantise rq = {n->mode, NITI_DRAW_ROUND_DELTA, 9, NULL, 0, niti_shape_image(n->shape)};
  y.uses = dx.uses = uses_of(n);
  y.limit = n->limit;
  d->backend->together.first = n->first;
  d->backend->together.whole = n->first > 0 ? n->first + n->shape.n : 0;
  k->norm_forward(d->backend, &y, &x, &affine, n->relu, &rq);
  k->norm_backward(d->backend, &dx, &dy, &x, &affine_delta, &rq);
  d->backend->together.whole = 0;
  keep_output(results, d, "y", &y);
  keep_output(results, d, "dx", &dx);
  if (n->shape.c > OPERAND_CHANNELS) return;
  NitiTensor operand = tensor_out(d, n->shape); /* of a gradient alone: the mantissas may be left out */
  operand.uses = NITI_USE_GRADIENT;
  reserve_products(d, &operand);
  k->norm_backward(d->backend, &operand, &dy, &x, &affine_delta, &rq);
  keep_products(results, d, &operand);
}

static int32_t random_multiplier(int bits) { return random_in(-(1 << bits), 1 << bits); }

static void random_affine(Norm *n) {
  n->limit = random_limit(n->e_weight); /* the output's, too */
  n->affine = allocate((size_t)n->shape.c, sizeof *n->affine);
  n->affine_delta = allocate((size_t)n->shape.c, sizeof *n->affine_delta);
  for (int32_t c = 0; c < n->shape.c; ++c) {
    const int bits = random_in(0, 3) ? random_in(0, 22) : 22;
    const int32_t most = NITI_NORM_FACTOR_MAX, half = random_in(0, 1) ? 1 << (NITI_NORM_FRACTION - 1) : 0;
    n->affine[c] = (NitiAffine){random_multiplier(bits), random_multiplier(29) * 2};
    n->affine_delta[c] = (NitiAffineDelta){random_multiplier(bits), random_multiplier(22), random_multiplier(29)};
    if (random_in(0, 3) == 0) n->affine[c] = (NitiAffine){random_in(-9, 9) * (1 << NITI_NORM_FRACTION), half}; /* ties */
    if (random_in(0, 3) == 0) n->affine_delta[c] = (NitiAffineDelta){half, 3 * half, half};
    if (random_in(0, 9) == 0) n->affine_delta[c] = (NitiAffineDelta){most, -most, NITI_NORM_OFFSET_MAX};
  }
}

static void test_maps(void **unused) {
  static const int channels[] = {1, 3, 4, 10, 16, 24, 32, 36, 40, 64, 80, 100, 128, 256, 320, 1040};
  enum { CHANNELS = sizeof channels / sizeof *channels, MODES = NITI_STOCHASTIC_BYTE + 1 };
  (void)unused;
  need_cuda();
  for (int i = 0; i < 2 * MODES * CHANNELS; ++i) {
    const int c = channels[i % CHANNELS];
    Norm n = random_norm((NitiShape){random_in(1, 50), random_in(1, 6), random_in(1, 6), c});
    n.mode = (NitiRounding)(i / CHANNELS % MODES);
    n.operands = i / (MODES * CHANNELS);
    random_affine(&n);
    check_norm(maps, "maps", n);
  }
}

static void test_odd_maps(void **unused) {
  enum { MODES = NITI_STOCHASTIC_BYTE + 1 };
  (void)unused;
  need_cuda();
  for (int i = 0; i < 8 * MODES * ODD_CHANNELS; ++i) {
    const int turn = i / (MODES * ODD_CHANNELS);
    Norm n = random_norm(odd_shape(i, turn / 2 != 2, 6));
    n.mode = (NitiRounding)(i / ODD_CHANNELS % MODES);
    n.operands = turn & 1;
    n.relu = turn >> 1 & 1;
    n.first = turn / 2 == 3 ? random_in(1, 20) : 0;
    random_affine(&n);
    check_norm(maps, "maps", n);
  }
}

/* A norm's output masks the backward of the convolution that reads it, so the norm may have written its bits. */
static void mask(Device *d, const void *context, Record *results) {
  const Norm *n = context;
  const NitiKernels *k = d->backend->kernels;
  const int32_t c = n->shape.c;
  const NitiConv conv = conv3x3_shape(n->shape.n, n->shape.h, n->shape.w, c, c, 1, 1);
  const NitiTensor x = wide_tensor(d, n->shape, 1, n->x, n->e_x), dy = tensor_in(d, n->shape, n->dy, n->e_d);
  const NitiTensor affine = wide_tensor(d, table(c, 2), 4, n->affine, n->e_weight);
  const NitiTensor w = tensor_in(d, (NitiShape){c, 3, 3, c}, n->w, -9);
  NitiTensor y = tensor_out(d, n->shape), dx = tensor_out(d, n->shape);
  const int32_t prediction = niti_shift_prediction_of(12);
  const NitiRequantise act = {n->mode, NITI_DRAW_ROUND_ACT, 9, NULL, 0, 0};
  const NitiRequantise delta = {NITI_NEAREST, NITI_DRAW_ROUND_DELTA, 9, place_copy(d, &prediction, sizeof prediction), 0, 0};
  y.uses = NITI_USE_GRADIENT | NITI_USE_MASK | NITI_USE_OTHER;
  y.limit = n->limit;
  if (d->backend->kernels->reserve(d->backend, call_conv_workspace(d->backend, &conv, false)) != NITI_OK)
    fail_msg("%s: %s", d->name, niti_error());
  reserve_products(d, &y);
  for (int relu = 0; relu < 2; ++relu) { /* the second time over the bits of the first */
    k->norm_forward(d->backend, &y, &x, &affine, relu, &act);
    call_conv_backward(d->backend, &dx, &dy, &w, &y, &conv, &delta);
    keep_tensor(results, d, "the masked dx", &dx);
    keep_operand(results, d, "y", &y);
  }
}

static void test_masks(void **unused) {
  static const int channels[] = {16, 64, 80, 128};
  (void)unused;
  need_cuda();
  for (int i = 0; i < 16; ++i) {
    Norm n = random_norm((NitiShape){random_in(1, 40), random_in(1, 6), random_in(1, 6), channels[i % 4]});
    n.mode = i / 4 % 2 ? NITI_STOCHASTIC_BYTE : NITI_NEAREST;
    n.w = mantissas((size_t)n.shape.c * 9 * (size_t)n.shape.c, FILL_FULL);
    random_affine(&n);
    check_norm(mask, "a mask", n);
  }
}

/* ---- update ---- */

typedef struct Sgd {
  size_t count;
  int bits;
  bool apart; /* the master is apart from the operands */
  int8_t *operands;
  int16_t *master, *velocity;
  int64_t *wide;
  int32_t *narrow;
  int32_t e_w, e_v, e_g[2];
  int exponents; /* of the gradient: how many there are */
  int64_t rate, momentum, decay, images;
  bool nesterov;
  bool normalised; /* update niti16 */
  bool clipped;    /* the first tensor: gradients are clipped by the norm of all */
} Sgd;

/* A tensor's operands on one device. */
typedef struct Placed {
  NitiTensor w, master, velocity;
  NitiGradient gradient;
  NitiSgdScalars scalars;
  NitiRequantise rq;
} Placed;

static Placed place_sgd(Device *d, const Sgd *u, int number) {
  const NitiShape shape = table(1, (int32_t)u->count);
  const void *values = u->bits == 32 ? (const void *)u->narrow : (const void *)u->wide;
  Placed p = {
      .w = tensor_in(d, shape, u->operands, u->e_w + NITI_SGD_OPERAND_SHIFT),
      .master = wide_tensor(d, shape, 2, u->master, u->e_w),
      .velocity = wide_tensor(d, shape, 2, u->velocity, u->e_v),
      .gradient = {place_copy(d, values, u->count * (size_t)u->bits / 8), u->bits, u->count, {NULL, NULL}},
      .scalars = {2, 5, u->decay < 0 ? NITI_NONE : 1, u->normalised ? NITI_NONE : 4, NITI_NONE, u->nesterov, u->normalised},
      .rq = {NITI_STOCHASTIC, NITI_DRAW_UPDATE, 65537u * (uint32_t)number, NULL, 0, 0}};
  for (int i = 0; i < u->exponents; ++i) p.gradient.exponents[i] = place_copy(d, &u->e_g[i], sizeof u->e_g[i]);
  return p;
}

/* The exponents, which the first launch writes, before what the second does with them. where: the step and the tensor. */
static void keep_sgd(Device *d, Record *results, const Sgd *u, const Placed *p, const char *where) {
  const struct {
    const char *what;
    const void *data;
    size_t bytes, element;
  } all[] = {
      {"first launch, weights' exponent", p->master.exponent, 4, 4},
      {"first launch, velocities' exponent", p->velocity.exponent, 4, 4},
      {"first launch, operands' exponent", p->w.exponent, 4, 4},
      {"second launch, velocities", p->velocity.data, u->count * 2, 2},
      {"second launch, weights", p->master.data, u->count * 2, 2},
      {"second launch, operands", p->w.data, u->count, 1},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    char label[96];
    snprintf(label, sizeof label, "%s, %s", where, all[i].what);
    keep(results, d, label, all[i].data, all[i].bytes, all[i].element);
  }
}

/* Tensors that one call updates, with the first's scalars. */
typedef struct Updates {
  Sgd *tensors;
  int count;
} Updates;

static void sgd(Device *d, const void *context, Record *results) {
  const Updates *u = context;
  const Sgd *first = u->tensors;
  const int64_t decay = first->decay < 0 ? 500000 : first->decay; /* where the first has none others may */
  const int64_t scalars[NITI_SCALARS_MAX] = {-1, decay, first->rate, -1, first->images, first->momentum, 1000000000};
  const int64_t none[2 * NITI_UPDATES_MAX] = {0};
  int64_t *totals = place_copy(d, none, sizeof none);
  NitiSquareSum sums[NITI_UPDATES_MAX];
  Placed placed[NITI_UPDATES_MAX];
  NitiSgdUpdate updates[NITI_UPDATES_MAX];
  for (int i = 0; i < u->count; ++i) {
    Placed *p = &placed[i];
    *p = place_sgd(d, &u->tensors[i], i + 1);
    updates[i] = (NitiSgdUpdate){&p->master, NULL, &p->velocity, &p->gradient, &p->scalars, &p->rq, NULL};
    sums[i] = (NitiSquareSum){&p->gradient, i > 0 ? &totals[2 * i - 2] : NULL, &totals[2 * i]};
    if (!first->clipped) continue;
    if (!u->tensors[i].normalised) p->scalars.clip = 6;
    updates[i].squares = &totals[2 * u->count - 2];
  }
  for (int i = 0; i < u->count; ++i) {
    Placed *p = &placed[i];
    if (u->tensors[i].apart) updates[i].w = &p->w, updates[i].master = &p->master;
  }
  for (uint32_t again = 0; again < 2; ++again) {
    d->backend->kernels->begin_step(d->backend, 77, 5 + again, scalars);
    if (first->clipped) {
      d->backend->kernels->gradient_squares(d->backend, sums, u->count);
      keep(results, d, again == 0 ? "step 0, sums of squares" : "step 1, sums of squares", totals,
           sizeof *totals * 2 * (size_t)u->count, 8);
    }
    d->backend->kernels->update_sgd(d->backend, updates, u->count);
    for (int i = 0; i < u->count; ++i) {
      char where[64];
      snprintf(where, sizeof where, "step %u, tensor %d (%zu weights)", again, i, u->tensors[i].count);
      keep_sgd(d, results, &u->tensors[i], &placed[i], where);
    }
  }
}

static int16_t *random_words(size_t count, int most) {
  int16_t *words = allocate(count, sizeof *words);
  for (size_t i = 0; i < count; ++i) words[i] = (int16_t)random_in(-most, most);
  return words;
}

static void random_gradient(Sgd *u, int kind) {
  const int magnitude = random_in(0, u->bits == 32 ? 30 : 56); /* bits of the largest */
  u->wide = allocate(u->count, sizeof *u->wide);
  u->narrow = allocate(u->count, sizeof *u->narrow);
  for (size_t i = 0; i < u->count; ++i) {
    const int64_t any = (int64_t)(next_random() >> 1) % (((int64_t)1 << magnitude) + 1);
    const bool zero = kind == 0 || (kind == 1 && i != u->count / 2); /* none at all; one huge one */
    u->wide[i] = zero ? 0 : kind == 1 ? (int64_t)1 << magnitude : next_random() % 2 ? any : -any;
    u->narrow[i] = (int32_t)u->wide[i];
  }
}

static int64_t random_decimal(int64_t below) { return random_in(0, 3) ? (int64_t)(next_random() % (uint64_t)below) : 0; }

static Sgd random_sgd(size_t count, int kind) {
  static const int largest[] = {0, 1, 13999, 14000, 32000, 32001, NITI_SGD_WEIGHT_MAX};
  Sgd u = {.count = count,
           .bits = random_in(0, 1) ? 32 : 64,
           .apart = random_in(0, 1),
           .e_w = random_in(0, 1) ? random_in(-25, -10) : random_in(-40, 20),
           .e_v = random_in(-40, 20),
           .e_g = {random_in(-40, 20), random_in(-20, 10)},
           .exponents = random_in(0, 2),
           .rate = random_in(0, 1) ? 100000000 : random_decimal((int64_t)1000 * NITI_SGD_UNITS),
           .momentum = random_in(0, 1) ? 900000000 : random_decimal(NITI_SGD_UNITS),
           .decay = random_in(0, 2) == 0 ? -1
                    : random_in(0, 1)    ? 500000
                                         : random_decimal(NITI_SGD_UNITS),
           .images = random_in(1, 1 << random_in(1, 24)),
           .nesterov = random_in(0, 1),
           .normalised = random_in(0, 3) == 0,
           .clipped = random_in(0, 1)};
  u.operands = mantissas(count, FILL_FULL);
  u.master = random_words(count, largest[random_in(0, 6)]);
  if (random_in(0, 2) == 0) { /* about as many outliers as decide on the exponent */
    for (size_t i = 0; i < count; ++i) u.master[i] = (int16_t)random_in(-14000, 14000);
    for (int k = random_in(0, (int)(count / 128)); k > 0; --k)
      u.master[random_in(0, (int)count - 1)] = (int16_t)(random_in(0, 1) ? NITI_SGD_WEIGHT_MAX : -14001);
  }
  u.velocity = random_words(count, random_in(0, 2) ? random_in(0, NITI_SGD_VELOCITY_MAX) : 0);
  random_gradient(&u, kind);
  return u;
}

static void free_sgd(Sgd *u) {
  free(u->operands);
  free(u->master);
  free(u->velocity);
  free(u->wide);
  free(u->narrow);
}

static void test_sgd(void **unused) {
  static const size_t counts[] = {1, 2, 3, 4, 5, 100, 1023, 2048, 4099, 270000, 2359296, 5000001};
  (void)unused;
  need_cuda();
  for (int i = 0; i < 300; ++i) {
    const size_t count = counts[i % (i < 24 ? 12 : 9)];
    Sgd u = random_sgd(count, i % 5);
    const Updates one = {&u, 1};
    char what[200];
    snprintf(what, sizeof what,
             "update of %zu weights, %d bits, exponents %d %d %d %d (%d), rate %lld, momentum %lld, decay %lld, %lld images, "
             "nesterov %d, apart %d, kind %d",
             count, u.bits, u.e_w, u.e_v, u.e_g[0], u.e_g[1], u.exponents, (long long)u.rate, (long long)u.momentum,
             (long long)u.decay, (long long)u.images, u.nesterov, u.apart, i % 5);
    check_work(sgd, &one, what);
    free_sgd(&u);
  }
}

static void test_many_updates(void **unused) {
  (void)unused;
  need_cuda();
  for (int i = 0; i < 40; ++i) {
    Sgd tensors[NITI_UPDATES_MAX];
    const Updates all = {tensors, i == 0 ? NITI_UPDATES_MAX : random_in(2, i % 10 ? 40 : NITI_UPDATES_MAX)};
    for (int k = 0; k < all.count; ++k)
      tensors[k] = random_sgd((size_t)random_in(1, 1 << random_in(1, all.count > 40 ? 12 : 17)), random_in(0, 4));
    check_work(sgd, &all, "several tensors' update");
    for (int k = 0; k < all.count; ++k) free_sgd(&tensors[k]);
  }
}

static int open_all(void **unused) {
  (void)unused;
  random_state = 4712;
  return open_devices("ref", (size_t)MIB_OF_ARENA * MIB);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_step),         cmocka_unit_test(test_large_steps),
      cmocka_unit_test(test_unaligned),    cmocka_unit_test(test_largest_sums),
      cmocka_unit_test(test_maps),         cmocka_unit_test(test_masks),
      cmocka_unit_test(test_odd_steps),    cmocka_unit_test(test_large_odd_steps),
      cmocka_unit_test(test_odd_maps),     cmocka_unit_test(test_sgd),
      cmocka_unit_test(test_many_updates),
  };
  return cmocka_run_group_tests(tests, open_all, close_devices);
}

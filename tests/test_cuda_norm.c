/* Batch norm of the CUDA backend against the CPU's kernels, bit for bit: shapes for each width of vector, worst cases of every
 * sum and multiplier, exponents far apart, and each operation twice, so that scratch must be clean after it. */
#include "cuda_norm.h"

enum { MIB_OF_ARENA = 256 };

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
  k->norm_delta_fit(d->backend, &affine, &dw, &db, &delta_sums, dy, x, sums, weight, (int64_t)x->shape.h * x->shape.w);
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

static int open_all(void **unused) {
  (void)unused;
  random_state = 4712;
  return open_devices("ref", (size_t)MIB_OF_ARENA * MIB);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_step),      cmocka_unit_test(test_large_steps),
      cmocka_unit_test(test_unaligned), cmocka_unit_test(test_largest_sums),
      cmocka_unit_test(test_maps),      cmocka_unit_test(test_masks),
      cmocka_unit_test(test_odd_steps), cmocka_unit_test(test_large_odd_steps),
      cmocka_unit_test(test_odd_maps),
  };
  return cmocka_run_group_tests(tests, open_all, close_devices);
}

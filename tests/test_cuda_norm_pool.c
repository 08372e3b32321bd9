/* Norms of the CUDA backend that do the work of the max-pool behind them, against the CPU's kernels for the one and the other,
 * bit for bit. */
#include "cuda_norm.h"

enum { MIB_OF_ARENA = 256 };

static NitiPool pool_of(NitiShape s) { return (NitiPool){s.n, s.h, s.w, s.c, s.h / 2, s.w / 2, 2, 2, 2, 2, 0, 0}; }

static NitiShape pooled(NitiShape s) { return (NitiShape){s.n, s.h / 2, s.w / 2, s.c}; }

/* x of each window's winner, by its definition. */
static void find_won(Device *d, NitiTensor *won, const uint8_t *winner, const NitiTensor *x) {
  const NitiShape s = x->shape, p = pooled(s);
  const size_t count = niti_shape_count(p);
  int8_t *from = allocate(niti_shape_count(s), 1), *to = allocate(count, 1);
  uint8_t *of = allocate(count, 1);
  d->backend->ops->download(d->backend, from, x->data, niti_shape_count(s));
  d->backend->ops->download(d->backend, of, winner, count);
  for (size_t i = 0; i < count; ++i) {
    const size_t c = i % (size_t)s.c, w = i / (size_t)s.c % (size_t)p.w, h = i / ((size_t)s.c * (size_t)p.w) % (size_t)p.h;
    const size_t n = i / niti_shape_image(p), row = 2 * h + of[i] / 2, column = 2 * w + of[i] % 2;
    to[i] = from[((n * (size_t)s.h + row) * (size_t)s.w + column) * (size_t)s.c + c];
  }
  d->backend->ops->upload(d->backend, won->data, to, count);
  int32_t exponent;
  d->backend->ops->download(d->backend, &exponent, x->exponent, sizeof exponent);
  d->backend->ops->upload(d->backend, won->exponent, &exponent, sizeof exponent);
  free(from);
  free(to);
  free(of);
}

/* By one operation where the device has it, else by two. */
static void forward(Device *d, const Norm *n, NitiTensor *y, uint8_t *winner, NitiTensor *won, const NitiTensor *x,
                    const NitiTensor *affine, const NitiRequantise *rq) {
  const NitiKernels *k = d->backend->kernels;
  const NitiPool pool = pool_of(n->shape);
  if (k->norm_pool_serves) return k->norm_pool_forward(d->backend, y, winner, won, x, affine, n->relu, &pool, rq);
  NitiTensor whole = tensor_out(d, n->shape);
  k->norm_forward(d->backend, &whole, x, affine, n->relu, rq);
  k->maxpool_forward(d->backend, y, winner, &whole, &pool);
  if (won) find_won(d, won, winner, x);
}

/* delta_fit: also the sums of deltas and what follows from them, into affine; else affine is given. */
static void backward(Device *d, const Norm *n, NitiTensor *dx, NitiTensor *affine, const NitiTensor *dy, const NitiTensor *won,
                     const uint8_t *winner, const NitiTensor *x, NitiTensor *const fit[5], const NitiRequantise *rq) {
  const NitiKernels *k = d->backend->kernels;
  const NitiPool pool = pool_of(n->shape);
  const int64_t positions = (int64_t)n->shape.h * n->shape.w;
  const bool fused = k->norm_pool_serves;
  NitiTensor whole = fused ? *dy : tensor_out(d, n->shape);
  if (!fused) k->maxpool_backward(d->backend, &whole, dy, winner, NULL, &pool, rq);
  if (fit) k->norm_delta_fit(d->backend, affine, fit[0], fit[1], fit[2], &whole, fused ? won : x, fit[3], fit[4], positions);
  if (fused)
    k->norm_pool_backward(d->backend, dx, dy, x, affine, winner, &pool, rq);
  else
    k->norm_backward(d->backend, dx, &whole, x, affine, rq);
}

/* The chain of a training step. */
static void step(Device *d, const void *context, Record *results) {
  const Norm *n = context;
  const NitiKernels *k = d->backend->kernels;
  const int32_t c = n->shape.c;
  const NitiShape windows = pooled(n->shape);
  const NitiTensor x = wide_tensor(d, n->shape, 1, n->x, n->e_x), dy = wide_tensor(d, windows, 1, n->dy, n->e_d);
  NitiTensor weight = wide_tensor(d, table(c, 1), sizeof *n->weight, n->weight, n->e_weight);
  const NitiTensor bias = wide_tensor(d, table(c, 1), sizeof *n->bias, n->bias, n->e_bias);
  NitiTensor running = wide_tensor(d, table(2, c), sizeof *n->running, n->running, NITI_NORM_RUNNING_EXPONENT);
  NitiTensor affine = wide_tensor(d, table(c, 2), 4, NULL, 0), sums = wide_tensor(d, table(c, 2), 8, NULL, 0);
  NitiTensor y = tensor_out(d, windows), won = tensor_out(d, windows), dx = tensor_out(d, n->shape);
  NitiTensor delta_sums = wide_tensor(d, table(c, 3), 8, NULL, 0), affine_delta = wide_tensor(d, table(c, 3), 4, NULL, 0);
  NitiTensor dw = wide_tensor(d, table(c, 1), 8, NULL, 0), db = wide_tensor(d, table(c, 1), 8, NULL, 0);
  NitiTensor *const fit[] = {&dw, &db, &delta_sums, &sums, &weight};
  uint8_t *winner = place(d, niti_shape_count(windows));
  const NitiRequantise act = {n->mode, NITI_DRAW_ROUND_ACT, 3, NULL, 0, niti_shape_image(n->shape)};
  const NitiRequantise delta = {n->mode, NITI_DRAW_ROUND_DELTA, 3, NULL, 0, niti_shape_image(n->shape)};
  y.uses = dx.uses = n->operands ? NITI_USE_GRADIENT | NITI_USE_OTHER : NITI_USE_OTHER;
  for (int again = 0; again < 2; ++again) {
    k->norm_fit(d->backend, &affine, &running, &sums, &x, &weight, &bias, false);
    forward(d, n, &y, winner, &won, &x, &affine, &act);
    keep_output(results, d, "y", &y);
    keep(results, d, "the winners", winner, niti_shape_count(windows), 1);
    keep_tensor(results, d, "x of the winners", &won);
    backward(d, n, &dx, &affine_delta, &dy, &won, winner, &x, fit, &delta);
    keep_wide(results, d, "the deltas' sums", &delta_sums, 8);
    keep_wide(results, d, "the deltas' multipliers", &affine_delta, 4);
    keep_wide(results, d, "the weights' gradient", &dw, 8);
    keep_wide(results, d, "the biases' gradient", &db, 8);
    keep_output(results, d, "dx", &dx);
  }
}

static Norm random_case(NitiShape shape) {
  Norm n = random_norm(shape);
  n.mode = random_in(0, 1) ? NITI_NEAREST : NITI_STOCHASTIC_BYTE;
  n.limit = 0;
  return n;
}

static void test_steps(void **unused) {
  static const int channels[] = {16, 32, 48, 64, 80, 128, 192, 256, 320, 512, 1040};
  enum { CHANNELS = sizeof channels / sizeof *channels };
  (void)unused;
  need_cuda();
  for (int i = 0; i < 6 * CHANNELS; ++i) {
    const int c = channels[i % CHANNELS], side = c > 512 ? 1 : 5;
    check_norm(step, "a step", random_case((NitiShape){random_in(1, 40), 2 * random_in(1, side), 2 * random_in(1, side), c}));
  }
}

static void test_large_steps(void **unused) {
  static const NitiShape shapes[] = {{128, 32, 32, 16}, {40, 32, 32, 128}, {130, 16, 16, 256}, {65, 8, 8, 512}};
  (void)unused;
  need_cuda();
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
    Norm n = random_case(shapes[i]);
    n.operands = i % 2 == 0;
    if (i == 2) memset(n.dy, 127, niti_shape_count(n.shape));
    check_norm(step, "a large step", n);
  }
}

/* ---- with any multipliers, of ranks too ---- */

static void maps(Device *d, const void *context, Record *results) {
  const Norm *n = context;
  const int32_t c = n->shape.c;
  const NitiShape windows = pooled(n->shape);
  const NitiTensor x = wide_tensor(d, n->shape, 1, n->x, n->e_x), dy = wide_tensor(d, windows, 1, n->dy, n->e_d);
  const NitiTensor affine = wide_tensor(d, table(c, 2), 4, n->affine, n->e_weight);
  NitiTensor affine_delta = wide_tensor(d, table(c, 3), 4, n->affine_delta, n->e_bias);
  NitiTensor y = tensor_out(d, windows), dx = tensor_out(d, n->shape);
  uint8_t *winner = place(d, niti_shape_count(windows));
  const NitiRequantise rq = {n->mode, NITI_DRAW_ROUND_DELTA, 9, NULL, 0, niti_shape_image(n->shape)};
  y.uses = dx.uses = n->operands ? NITI_USE_GRADIENT | NITI_USE_OTHER : NITI_USE_OTHER;
  d->backend->together.first = n->first;
  d->backend->together.whole = n->first > 0 ? n->first + n->shape.n : 0;
  forward(d, n, &y, winner, NULL, &x, &affine, &rq);
  backward(d, n, &dx, &affine_delta, &dy, NULL, winner, &x, NULL, &rq);
  d->backend->together.whole = 0;
  keep_output(results, d, "y", &y);
  keep(results, d, "the winners", winner, niti_shape_count(windows), 1);
  keep_output(results, d, "dx", &dx);
  if (c > OPERAND_CHANNELS) return;
  NitiTensor operand = tensor_out(d, n->shape); /* of a gradient alone: the mantissas may be left out */
  operand.uses = NITI_USE_GRADIENT;
  reserve_products(d, &operand);
  backward(d, n, &operand, &affine_delta, &dy, NULL, winner, &x, NULL, &rq);
  keep_products(results, d, &operand);
}

static void test_maps(void **unused) {
  static const int channels[] = {16, 48, 64, 80, 128, 256, 320, 1040};
  enum { CHANNELS = sizeof channels / sizeof *channels };
  (void)unused;
  need_cuda();
  for (int i = 0; i < 16 * CHANNELS; ++i) {
    Norm n = random_case((NitiShape){random_in(1, 50), 2 * random_in(1, 3), 2 * random_in(1, 3), channels[i % CHANNELS]});
    n.operands = i / CHANNELS % 2;
    n.first = i / CHANNELS % 4 == 3 ? random_in(1, 20) : 0;
    random_affine(&n);
    n.limit = 0;
    check_norm(maps, "maps", n);
  }
}

/* ---- as a mask ---- */

/* The output masks the backward of the convolution that reads it, so the norm may have written its bits. */
static void mask(Device *d, const void *context, Record *results) {
  const Norm *n = context;
  const int32_t c = n->shape.c;
  const NitiShape s = pooled(n->shape);
  const NitiConv conv = conv3x3_shape(s.n, s.h, s.w, c, c, 1, 1);
  const NitiTensor x = wide_tensor(d, n->shape, 1, n->x, n->e_x), dy = tensor_in(d, s, n->dy, n->e_d);
  const NitiTensor affine = wide_tensor(d, table(c, 2), 4, n->affine, n->e_weight);
  const NitiTensor w = tensor_in(d, (NitiShape){c, 3, 3, c}, n->w, -9);
  NitiTensor y = tensor_out(d, s), dx = tensor_out(d, s);
  uint8_t *winner = place(d, niti_shape_count(s));
  const int32_t prediction = niti_shift_prediction_of(12);
  const NitiRequantise act = {n->mode, NITI_DRAW_ROUND_ACT, 9, NULL, 0, niti_shape_image(n->shape)};
  const NitiRequantise delta = {NITI_NEAREST, NITI_DRAW_ROUND_DELTA, 9, place_copy(d, &prediction, sizeof prediction), 0, 0};
  y.uses = NITI_USE_GRADIENT | NITI_USE_MASK | NITI_USE_OTHER;
  if (d->backend->kernels->reserve(d->backend, call_conv_workspace(d->backend, &conv, false)) != NITI_OK)
    fail_msg("%s: %s", d->name, niti_error());
  reserve_products(d, &y);
  for (int relu = 0; relu < 2; ++relu) { /* the second time over the bits of the first */
    Norm other = *n;
    other.relu = relu;
    forward(d, &other, &y, winner, NULL, &x, &affine, &act);
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
    Norm n = random_case((NitiShape){random_in(1, 40), 2 * random_in(1, 3), 2 * random_in(1, 3), channels[i % 4]});
    n.w = mantissas((size_t)n.shape.c * 9 * (size_t)n.shape.c, FILL_FULL);
    random_affine(&n);
    n.limit = 0;
    check_norm(mask, "a mask", n);
  }
}

static int open_all(void **unused) {
  (void)unused;
  random_state = 4713;
  return open_devices("ref", (size_t)MIB_OF_ARENA * MIB);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_steps), cmocka_unit_test(test_large_steps),
                                     cmocka_unit_test(test_maps), cmocka_unit_test(test_masks)};
  return cmocka_run_group_tests(tests, open_all, close_devices);
}

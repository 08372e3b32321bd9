/* Updates `sgd` and `niti16` of the CUDA backend, and the squares by which gradients are clipped, against the CPU's kernels, bit
 * for bit: worst cases of every term, exponents far apart, and each call twice, so that scratch must be clean after it. */
#include "cuda_norm.h"

enum { MIB_OF_ARENA = 256 };

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
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sgd), cmocka_unit_test(test_many_updates)};
  return cmocka_run_group_tests(tests, open_all, close_devices);
}

/* Batch norm: sums per channel, the multipliers made from them, and the affine maps. */
#include <string.h>

#include "backend/cpu/chunk.h"
#include "backend/cpu/loops.h"

enum {
  SLICE = NITI_SUMS_COLUMNS, /* channels whose sums a task keeps on its stack */
  ROWS = NITI_SUMS_ROWS,     /* rows of a task */
  LEAST = 16,                /* channels that are summed at once, where there are as many */
  COLUMNS = 3,               /* sums per channel: x and x x; or d, d x and d d */
  MAPPED = 4096              /* accumulators of a task, at most one more row */
};

/* ---- sums ---- */

typedef struct Sums {
  const NitiLoops *loops;
  const int8_t *x, *d; /* d NULL: of x alone */
  int64_t *out;        /* [channels][d ? 3 : 2] */
  size_t rows, channels, slices;
} Sums;

static void sums_tile(void *context, size_t thread, size_t item) {
  const Sums *s = context;
  const size_t columns = s->d ? 3 : 2, slice = item % s->slices * SLICE, row = item / s->slices * ROWS;
  const size_t least = niti_least(LEAST, s->channels), first = niti_least(slice, s->channels - least);
  const size_t count = niti_least(SLICE, s->channels - first), rows = niti_least(ROWS, s->rows - row);
  const size_t at = row * s->channels + first;
  int32_t sums[COLUMNS][SLICE] = {{0}};
  (void)thread;
  if (s->d)
    s->loops->delta_sums(sums, s->d + at, s->x + at, rows, count, s->channels);
  else
    s->loops->sums(sums, s->x + at, rows, count, s->channels);
  for (size_t c = slice - first; c < count; ++c) {
    for (size_t k = 0; k < columns; ++k)
      (void)__atomic_fetch_add(&s->out[(first + c) * columns + k], sums[k][c], __ATOMIC_RELAXED);
  }
}

static void run_sums(NitiBackend *backend, NitiTensor *out, const NitiTensor *x, const NitiTensor *d) {
  const size_t channels = (size_t)x->shape.c, count = niti_shape_count(x->shape), rows = count / channels;
  Sums s = {.loops = niti_loops(niti_cpu(backend)->isa),
            .x = x->data,
            .d = d ? d->data : NULL,
            .out = (int64_t *)(void *)out->data,
            .rows = rows,
            .channels = channels,
            .slices = niti_divide_up(channels, SLICE)};
  memset(s.out, 0, channels * (d ? 3 : 2) * sizeof *s.out);
  niti_threads_run(niti_cpu(backend)->threads, sums_tile, &s, s.slices * niti_divide_up(rows, ROWS));
  niti_cpu_all_sum(backend, s.out, channels * (d ? 3 : 2), 64);
  *out->exponent = *(d ? d : x)->exponent;
}

/* ---- multipliers ---- */

enum { FITTED = 32 }; /* channels of a task */

/* What a fit reads and writes; arrays of all channels. */
typedef struct Fit {
  const NitiNormSums *sums; /* NULL: the running statistics count */
  const int64_t *running;
  bool centred; /* x is measured from the running means */
  const int16_t *weight, *bias;
  int32_t exponent, weight_exponent, bias_exponent; /* exponent: x's */
  NitiNormCount count;
  size_t channels;
  /* forward */
  NitiAffine *affine;
  int64_t *run; /* the running statistics, to be updated if `sums` counts */
  int32_t y_exponent;
  /* backward */
  const NitiNormDeltaSums *deltas;
  NitiAffineDelta *affine_delta;
  int64_t *weight_gradient, *bias_gradient;
  int32_t relative; /* the results' exponent, relative to the deltas' */
} Fit;

static NitiNormChannel channel_of(const Fit *f, size_t c) {
  if (f->sums) return niti_norm_batch(f->sums[c], &f->count, f->exponent);
  return niti_norm_running(f->running[c], f->running[f->channels + c], f->exponent, f->centred);
}

static NitiScalar real(NitiScalar value, int32_t exponent) {
  if (value.m != 0) value.e += exponent;
  return value;
}

/* Of the whole batch; positions: of an image. */
static NitiNormCount values_per_channel(const NitiBackend *backend, const NitiTensor *x, int64_t positions) {
  return niti_norm_count(niti_whole_batch(backend, x->shape.n) * positions);
}

static void fit_tile(void *context, size_t thread, size_t item) {
  const Fit *f = context;
  const size_t first = item * FITTED, end = first + niti_chunk_count(f->channels, FITTED, item);
  int64_t *means = f->run, *variances = f->run + f->channels;
  (void)thread;
  for (size_t c = first; c < end; ++c) {
    const NitiNormChannel channel = channel_of(f, c);
    f->affine[c] = niti_norm_affine(&channel, f->weight[c], f->weight_exponent, f->bias[c], f->bias_exponent, f->y_exponent);
    if (!f->sums) continue;
    const NitiScalar mean = real(channel.mean, f->exponent);
    means[c] = f->centred ? niti_norm_run_centred(means[c], mean) : niti_norm_run(means[c], mean);
    variances[c] = niti_norm_run(variances[c], real(channel.variance, 2 * f->exponent));
  }
}

static NitiScalar range_of(const Fit *f) {
  NitiScalar range = {0, 0};
  for (size_t c = 0; c < f->channels; ++c) {
    const NitiScalar own = niti_norm_range(f->weight[c], f->weight_exponent, f->bias[c], f->bias_exponent);
    if (niti_scalar_less(range, own)) range = own;
  }
  return range;
}

void niti_cpu_norm_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *running, NitiTensor *sums, const NitiTensor *x,
                       const NitiTensor *weight, const NitiTensor *bias, bool centred) {
  int64_t *run = (int64_t *)(void *)running->data;
  Fit f = {.sums = sums ? (const NitiNormSums *)(const void *)sums->data : NULL,
           .running = run,
           .centred = centred,
           .weight = (const int16_t *)(const void *)weight->data,
           .bias = (const int16_t *)(const void *)bias->data,
           .exponent = *x->exponent,
           .weight_exponent = *weight->exponent,
           .bias_exponent = *bias->exponent,
           .count = values_per_channel(backend, x, (int64_t)x->shape.h * x->shape.w),
           .channels = niti_shape_count(weight->shape),
           .affine = (NitiAffine *)(void *)affine->data,
           .run = run};
  if (sums) run_sums(backend, sums, x, NULL);
  f.y_exponent = niti_norm_exponent(range_of(&f));
  niti_threads_run(niti_cpu(backend)->threads, fit_tile, &f, niti_divide_up(f.channels, FITTED));
  *affine->exponent = f.y_exponent;
}

static NitiNormDelta delta_of(const Fit *f, const NitiNormChannel *channel, size_t c) {
  return niti_norm_delta(channel, f->sums[c], f->deltas[c], &f->count, f->weight[c], f->weight_exponent);
}

/* The channels' squares, kept where their multipliers will be. */
static void squares_tile(void *context, size_t thread, size_t item) {
  const Fit *f = context;
  const size_t first = item * FITTED, end = first + niti_chunk_count(f->channels, FITTED, item);
  (void)thread;
  for (size_t c = first; c < end; ++c) {
    const NitiNormChannel channel = channel_of(f, c);
    const NitiScalar square = delta_of(f, &channel, c).square;
    f->affine_delta[c] = (NitiAffineDelta){.factor = (int32_t)square.m, .offset = square.e};
  }
}

static NitiScalar square_of(const Fit *f, size_t c) { return (NitiScalar){f->affine_delta[c].factor, f->affine_delta[c].offset}; }

static NitiSquares squares_of(const Fit *f) {
  NitiSquares squares = {0, NITI_SQUARES_NONE};
  for (size_t c = 0; c < f->channels; ++c) squares.exponent = niti_squares_exponent(squares.exponent, square_of(f, c));
  for (size_t c = 0; c < f->channels; ++c) squares.sum += niti_squares_share(squares.exponent, square_of(f, c));
  return squares;
}

static void delta_tile(void *context, size_t thread, size_t item) {
  const Fit *f = context;
  const size_t first = item * FITTED, end = first + niti_chunk_count(f->channels, FITTED, item);
  (void)thread;
  for (size_t c = first; c < end; ++c) {
    const NitiNormChannel channel = channel_of(f, c);
    const NitiNormDelta d = delta_of(f, &channel, c);
    f->affine_delta[c] = niti_norm_affine_delta(&d, &channel, f->relative - NITI_NORM_FRACTION);
    f->weight_gradient[c] = niti_norm_gradient(&channel, f->sums[c], f->deltas[c], &f->count);
    f->bias_gradient[c] = f->deltas[c].d;
  }
}

void niti_cpu_norm_delta_fit(NitiBackend *backend, NitiTensor *affine, NitiTensor *weight_gradient, NitiTensor *bias_gradient,
                             NitiTensor *delta_sums, const NitiTensor *dy, const NitiTensor *x, const NitiTensor *sums,
                             const NitiTensor *weight, int64_t positions) {
  NitiThreads *threads = niti_cpu(backend)->threads;
  Fit f = {.sums = (const NitiNormSums *)(const void *)sums->data,
           .weight = (const int16_t *)(const void *)weight->data,
           .exponent = *sums->exponent,
           .weight_exponent = *weight->exponent,
           .count = values_per_channel(backend, x, positions),
           .channels = niti_shape_count(weight->shape),
           .deltas = (const NitiNormDeltaSums *)(const void *)delta_sums->data,
           .affine_delta = (NitiAffineDelta *)(void *)affine->data,
           .weight_gradient = (int64_t *)(void *)weight_gradient->data,
           .bias_gradient = (int64_t *)(void *)bias_gradient->data};
  const int32_t exponent = *dy->exponent;
  run_sums(backend, delta_sums, x, dy);
  niti_threads_run(threads, squares_tile, &f, niti_divide_up(f.channels, FITTED));
  f.relative = niti_norm_delta_exponent(squares_of(&f), niti_scalar_divisor(niti_scalar32((int32_t)f.channels, 0)));
  niti_threads_run(threads, delta_tile, &f, niti_divide_up(f.channels, FITTED));
  *affine->exponent = f.relative + exponent - f.exponent;
  *weight_gradient->exponent = exponent + NITI_NORM_GRADIENT_EXPONENT;
  *bias_gradient->exponent = exponent;
}

/* ---- affine maps ---- */

typedef struct Map {
  const NitiLoops *loops;
  int8_t *out;
  const int8_t *x, *d; /* d NULL: forward */
  const NitiAffine *affine;
  const NitiAffineDelta *affine_delta;
  size_t rows, channels, rows_each;
  NitiRequantiseKernel kernel;
  NitiRounder rounder;
} Map;

/* Some rows, or where a row is longer than MAPPED one row in pieces. */
static void map_tile(void *context, size_t thread, size_t item) {
  const Map *m = context;
  const size_t row = item * m->rows_each, rows = niti_least(m->rows_each, m->rows - row);
  int32_t acc[MAPPED];
  (void)thread;
  for (size_t c = 0; c < m->channels; c += MAPPED) {
    const size_t count = niti_least(MAPPED, m->channels - c), at = row * m->channels + c;
    if (m->d)
      m->loops->affine_delta(acc, m->affine_delta + c, m->d + at, m->x + at, rows, count, m->channels);
    else
      m->loops->affine(acc, m->affine + c, m->x + at, rows, count, m->channels);
    (void)m->kernel(m->out + at, acc, rows * count, &m->rounder, at, 0);
  }
}

static void run_map(NitiBackend *backend, NitiTensor *y, const NitiTensor *affine, Map m, bool relu, const NitiRequantise *rq) {
  NitiCpu *cpu = niti_cpu(backend);
  m.channels = (size_t)y->shape.c;
  m.rows = niti_shape_count(y->shape) / m.channels;
  m.rows_each = m.channels >= MAPPED ? 1 : MAPPED / m.channels;
  m.out = y->data;
  m.kernel = cpu->requantise;
  m.loops = niti_loops(cpu->isa);
  const bool limited = relu && y->limit > 0;
  m.rounder = (NitiRounder){.mode = rq->mode,
                            .shift = NITI_NORM_FRACTION,
                            .relu = relu,
                            .lowered = limited ? niti_lowered(y->limit, *affine->exponent) : 0,
                            .first = niti_cpu_first(cpu, rq->image),
                            .draw = {.seed = cpu->seed, .purpose = rq->purpose, .time = cpu->step, .layer = rq->layer}};
  niti_threads_run(cpu->threads, map_tile, &m, niti_divide_up(m.rows, m.rows_each));
  *y->exponent = *affine->exponent;
}

void niti_cpu_norm_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *affine, bool relu,
                           const NitiRequantise *rq) {
  const Map m = {.x = x->data, .affine = (const NitiAffine *)(const void *)affine->data};
  run_map(backend, y, affine, m, relu, rq);
}

void niti_cpu_norm_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *x,
                            const NitiTensor *affine, const NitiRequantise *rq) {
  const Map m = {.x = x->data, .d = dy->data, .affine_delta = (const NitiAffineDelta *)(const void *)affine->data};
  run_map(backend, dx, affine, m, false, rq);
}

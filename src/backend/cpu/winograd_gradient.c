/* The driver of the Winograd weight gradient. The batch is cut into units, rows of tiles of one image; as many as the caches hold
 * form a piece. A piece is transformed in parallel, then blocks (output channels x input channels) of all 36 frequencies are
 * multiplied and finished into the gradient. */
#include "backend/cpu/winograd_gradient.h"

enum {
  PIECE_BYTES = 10 * 1024 * 1024, /* transformed x and error: a part of the last-level cache */
  ITEM_PANELS = 2,                /* of rows, that a thread takes at a time */
  BATCH_PAIRS = 8,                /* transformed at a time */
};

typedef struct Plan {
  size_t x_panels, error_panels;
  size_t units, image_units, unit_pairs; /* of the batch, of an image; pairs of a unit */
  size_t most_units;                     /* of a piece */
  size_t panel, x_stride, error_stride;  /* elements of a panel and of a frequency */
  size_t block_columns, acc_stride;      /* of a thread's sums: elements of a row and of a frequency */
  size_t x, error, sums, running, cuts, zeros, acc, acc_bytes, total;
} Plan;

typedef struct Pass {
  NitiCpu *cpu;
  const NitiWinogradGradientKernels *kernels;
  const NitiConv *conv;
  const Plan *plan;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  size_t first, units;        /* of this piece */
  size_t group_units, groups; /* units of a transforming item; such items for x, and as many again for the error */
  size_t segments;
  bool add;
} Pass;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

bool niti_winograd_gradient_fits(const NitiConv *s) {
  return s->kh == 3 && s->kw == 3 && s->stride_h == 1 && s->stride_w == 1 && s->ow <= NITI_GRADIENT_LIMIT / (4 * 127);
}

/* An odd number of lines, so that frequencies do not compete for the same sets of a cache. */
static size_t odd_lines(size_t elements, size_t element) {
  const size_t line = 64 / element, lines = divide_up(elements, line);
  return (lines | 1) * line;
}

static Plan make_plan(const NitiWinogradGradientKernels *kernels, const NitiConv *s, size_t threads) {
  Plan p = {0};
  const size_t frequencies = NITI_GRADIENT_FREQUENCIES;
  p.x_panels = divide_up((size_t)s->c, NITI_GRADIENT_PANEL);
  p.error_panels = divide_up((size_t)s->k, NITI_GRADIENT_PANEL);
  p.unit_pairs = divide_up((size_t)s->ow, 8);
  p.image_units = divide_up((size_t)s->oh, 4);
  p.units = p.image_units * (size_t)s->n;
  const size_t pair_bytes = (p.x_panels + p.error_panels) * frequencies * NITI_GRADIENT_PAIR * sizeof(int16_t);
  p.most_units = most(1, least(kernels->pairs, PIECE_BYTES / pair_bytes) / p.unit_pairs);
  p.most_units = least(p.most_units, p.units);
  p.panel = p.most_units * p.unit_pairs * NITI_GRADIENT_PAIR;
  p.x_stride = odd_lines(p.x_panels * p.panel, sizeof(int16_t));
  p.error_stride = odd_lines(p.error_panels * p.panel, sizeof(int16_t));
  p.block_columns = least(p.x_panels, NITI_GRADIENT_COLUMN_PANELS) * NITI_GRADIENT_PANEL;
  p.acc_stride = odd_lines(NITI_GRADIENT_PANEL * p.block_columns, sizeof(int32_t));

  p.x = 0;
  p.error = p.x + niti_line(frequencies * p.x_stride * sizeof(int16_t));
  p.sums = p.error + niti_line(frequencies * p.error_stride * sizeof(int16_t));
  p.running = p.sums + niti_line(p.most_units * p.error_panels * NITI_GRADIENT_PANEL * sizeof(uint32_t));
  p.cuts = p.running + niti_line(p.error_panels * NITI_GRADIENT_PANEL * sizeof(uint32_t));
  p.zeros = p.cuts + niti_line((p.most_units + 1) * sizeof(size_t));
  p.acc = p.zeros + niti_line(most((size_t)s->c, (size_t)s->k));
  p.acc_bytes = niti_line(frequencies * p.acc_stride * sizeof(int32_t));
  p.total = p.acc + threads * p.acc_bytes;
  return p;
}

size_t niti_winograd_gradient_workspace(const NitiWinogradGradientKernels *kernels, const NitiConv *s, int threads) {
  return make_plan(kernels, s, (size_t)threads).total;
}

static int16_t *operand_at(const Pass *p, size_t offset) { return (int16_t *)(void *)(p->cpu->workspace + offset); }
static uint32_t *sums_at(const Pass *p, size_t offset) { return (uint32_t *)(void *)(p->cpu->workspace + offset); }
static size_t *cuts_of(const Pass *p) { return (size_t *)(void *)(p->cpu->workspace + p->plan->cuts); }

/* ---- transforming ---- */

/* The pixels of rows x columns from (y, x) on of an image [h][w][c]; those outside are zeros. */
static void point(const int8_t **pixel, const int8_t *image, const int8_t *zeros, int64_t y, int64_t x, int rows, int columns,
                  int32_t h, int32_t w, int32_t c) {
  for (int row = 0; row < rows; ++row) {
    const bool there = y + row >= 0 && y + row < h;
    for (int column = 0; column < columns; ++column) {
      const int64_t at = x + column;
      *pixel++ = there && at >= 0 && at < w ? image + ((y + row) * w + at) * c : zeros;
    }
  }
}

static const int8_t *zeros_of(const Pass *p) { return (const int8_t *)p->cpu->workspace + p->plan->zeros; }

/* x of pairs first .. last of the piece: a panel of all of them after the other, so that what is written is contiguous. */
static void transform_x(const Pass *p, size_t first, size_t last) {
  const NitiConv *s = p->conv;
  const Plan *plan = p->plan;
  const int8_t *pixel[BATCH_PAIRS][NITI_GRADIENT_X_PIXELS];
  for (size_t i = first; i < last; ++i) {
    const size_t unit = p->first + i / plan->unit_pairs, image = unit / plan->image_units, row = unit % plan->image_units;
    point(pixel[i - first], p->x + image * (size_t)s->h * (size_t)s->w * (size_t)s->c, zeros_of(p), (int64_t)row * 4 - s->pad_h,
          (int64_t)(i % plan->unit_pairs) * 8 - s->pad_w, 6, 10, s->h, s->w, s->c);
  }
  for (size_t panel = 0; panel < plan->x_panels; ++panel) {
    int16_t *out = operand_at(p, plan->x) + panel * plan->panel + first * NITI_GRADIENT_PAIR;
    const size_t channel = panel * NITI_GRADIENT_PANEL;
    const int channels = (int)least(NITI_GRADIENT_PANEL, (size_t)s->c - channel);
    for (size_t i = 0; i < last - first; ++i, out += NITI_GRADIENT_PAIR) {
      p->kernels->transform_x(out, plan->x_stride, pixel[i], channel, channels);
    }
  }
}

/* The same for the error, and the sums of the units that the pairs belong to. */
static void transform_error(const Pass *p, size_t first, size_t last) {
  const NitiConv *s = p->conv;
  const Plan *plan = p->plan;
  const int8_t *pixel[BATCH_PAIRS][NITI_GRADIENT_ERROR_PIXELS];
  uint32_t *sums[BATCH_PAIRS];
  for (size_t i = first; i < last; ++i) {
    const size_t unit = p->first + i / plan->unit_pairs, image = unit / plan->image_units, row = unit % plan->image_units;
    point(pixel[i - first], p->dy + image * (size_t)s->oh * (size_t)s->ow * (size_t)s->k, zeros_of(p), (int64_t)row * 4,
          (int64_t)(i % plan->unit_pairs) * 8, 4, 8, s->oh, s->ow, s->k);
    sums[i - first] = sums_at(p, plan->sums) + i / plan->unit_pairs * plan->error_panels * NITI_GRADIENT_PANEL;
  }
  for (size_t panel = 0; panel < plan->error_panels; ++panel) {
    int16_t *out = operand_at(p, plan->error) + panel * plan->panel + first * NITI_GRADIENT_PAIR;
    const size_t channel = panel * NITI_GRADIENT_PANEL;
    const int channels = (int)least(NITI_GRADIENT_PANEL, (size_t)s->k - channel);
    for (size_t i = 0; i < last - first; ++i, out += NITI_GRADIENT_PAIR) {
      p->kernels->transform_error(out, plan->error_stride, pixel[i], channel, channels, sums[i] + channel);
    }
  }
}

static void transform_group(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const size_t begin = item % p->groups * p->group_units, end = least(begin + p->group_units, p->units);
  const size_t channels = plan->error_panels * NITI_GRADIENT_PANEL;
  (void)thread;
  for (size_t i = begin * channels; item >= p->groups && i < end * channels; ++i) sums_at(p, plan->sums)[i] = 0;
  for (size_t first = begin * plan->unit_pairs; first < end * plan->unit_pairs; first += BATCH_PAIRS) {
    const size_t last = least(first + BATCH_PAIRS, end * plan->unit_pairs);
    if (item < p->groups)
      transform_x(p, first, last);
    else
      transform_error(p, first, last);
  }
}

/* ---- sums ---- */

/* Cuts the piece's units into segments, each as long as every channel's bound allows: cuts[i] .. cuts[i + 1]. */
static void cut_piece(Pass *p) {
  const size_t channels = p->plan->error_panels * NITI_GRADIENT_PANEL;
  const uint32_t *sums = sums_at(p, p->plan->sums);
  uint32_t *running = sums_at(p, p->plan->running);
  size_t *cuts = cuts_of(p);
  cuts[0] = 0;
  p->segments = 0;
  for (size_t i = 0; i < channels; ++i) running[i] = 0;
  for (size_t unit = 0; unit < p->units; ++unit, sums += channels) {
    uint32_t max = 0;
    for (size_t i = 0; i < channels; ++i) {
      running[i] += sums[i];
      max = running[i] > max ? running[i] : max;
    }
    if (max <= NITI_GRADIENT_LIMIT) continue;
    cuts[++p->segments] = unit; /* never its own first: a unit alone fits */
    for (size_t i = 0; i < channels; ++i) running[i] = sums[i];
  }
  cuts[++p->segments] = p->units;
}

static uint8_t *gradient_at(const Pass *p, size_t row, size_t tap, size_t column) {
  return (uint8_t *)p->gradient->data + ((row * 9 + tap) * (size_t)p->conv->c + column) * (size_t)p->gradient->bits / 8;
}

/* One panel of rows x a block of columns: every frequency over pairs begin .. end, then the gradient of these sums. */
static void sum_panel(const Pass *p, int32_t *acc, size_t row_panel, size_t column_panel, size_t begin, size_t end, bool add) {
  const Plan *plan = p->plan;
  const size_t panels = least(NITI_GRADIENT_COLUMN_PANELS, plan->x_panels - column_panel), c = (size_t)p->conv->c;
  const size_t row = row_panel * NITI_GRADIENT_PANEL, column = column_panel * NITI_GRADIENT_PANEL;
  const size_t row_count = least(NITI_GRADIENT_PANEL, (size_t)p->conv->k - row);
  const size_t column_count = least(panels * NITI_GRADIENT_PANEL, c - column);
  const int16_t *rows = operand_at(p, plan->error) + row_panel * plan->panel + begin * NITI_GRADIENT_PAIR;
  const int16_t *columns = operand_at(p, plan->x) + column_panel * plan->panel + begin * NITI_GRADIENT_PAIR;
  for (size_t f = 0; f < NITI_GRADIENT_FREQUENCIES; ++f, rows += plan->error_stride, columns += plan->x_stride) {
    for (size_t i = f * 4; i < f * 4 + 4 && i / 9 < row_count; ++i) { /* 16 rows of 9 taps: what the finish will add to */
      const uint8_t *to = gradient_at(p, row + i / 9, i % 9, column);
      for (size_t at = 0; at < column_count * (size_t)p->gradient->bits / 8; at += 64) __builtin_prefetch(to + at, 1, 2);
    }
    p->kernels->multiply(acc + f * plan->acc_stride, plan->block_columns, rows, columns, plan->panel, end - begin, (int)panels,
                         rows + plan->error_stride, columns + plan->x_stride);
  }
  for (size_t i = 0; i < row_count; ++i) {
    p->kernels->finish(gradient_at(p, row + i, 0, column), p->gradient->bits, add, c, acc + i * plan->block_columns,
                       plan->acc_stride, (int)column_count);
  }
}

/* Consecutive items share a block of columns, which then stays in a thread's cache. */
static void sum_block(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const size_t down = divide_up(plan->error_panels, ITEM_PANELS), column_panel = item / down * NITI_GRADIENT_COLUMN_PANELS;
  const size_t first = item % down * ITEM_PANELS, last = least(first + ITEM_PANELS, plan->error_panels), *cuts = cuts_of(p);
  int32_t *acc = (int32_t *)(void *)(p->cpu->workspace + plan->acc + thread * plan->acc_bytes);
  for (size_t row_panel = first; row_panel < last; ++row_panel) {
    for (size_t segment = 0; segment < p->segments; ++segment) {
      sum_panel(p, acc, row_panel, column_panel, cuts[segment] * plan->unit_pairs, cuts[segment + 1] * plan->unit_pairs,
                p->add || segment > 0);
    }
  }
}

void niti_winograd_gradient_run(NitiCpu *cpu, const NitiWinogradGradientKernels *kernels, NitiGradient *gradient,
                                const int8_t *dy, const int8_t *x, const NitiConv *s) {
  const Plan plan = make_plan(kernels, s, (size_t)niti_threads_count(cpu->threads));
  Pass p = {.cpu = cpu, .kernels = kernels, .conv = s, .plan = &plan, .gradient = gradient, .dy = dy, .x = x};
  const size_t items = divide_up(plan.error_panels, ITEM_PANELS) * divide_up(plan.x_panels, NITI_GRADIENT_COLUMN_PANELS);
  for (size_t i = 0; i < most((size_t)s->c, (size_t)s->k); ++i) cpu->workspace[plan.zeros + i] = 0;
  p.group_units = most(1, BATCH_PAIRS / plan.unit_pairs);
  for (p.first = 0; p.first < plan.units; p.first += p.units) {
    /* The rest in pieces of the same size. */
    const size_t left = plan.units - p.first;
    p.units = divide_up(left, divide_up(left, plan.most_units));
    p.groups = divide_up(p.units, p.group_units);
    p.add = p.first > 0;
    niti_threads_run(cpu->threads, transform_group, &p, 2 * p.groups);
    cut_piece(&p);
    niti_threads_run(cpu->threads, sum_block, &p, items);
  }
}

/* ---- the choice ---- */

static const NitiWinogradGradientKernels *kernels_of(NitiIsa isa) {
#ifdef __x86_64__
  if (isa == NITI_ISA_AVX512VNNI) return &niti_winograd_gradient_avx512vnni;
  if (isa == NITI_ISA_AVX2) return &niti_winograd_gradient_avx2;
#endif
  (void)isa;
  return NULL;
}

/* Whole tiles, pairs and panels are computed where the direct sum computes positions and channels. A larger batch never turns the
 * choice back to the direct sum. */
const NitiWinogradGradientKernels *niti_winograd_gradient_kernels(NitiIsa isa, const NitiConv *s) {
  const NitiWinogradGradientKernels *kernels = kernels_of(isa);
  if (!kernels || !niti_winograd_gradient_fits(s)) return NULL;
  const int64_t positions = (int64_t)s->n * s->oh * s->ow, pairs = (int64_t)s->n * ((s->oh + 3) / 4) * ((s->ow + 7) / 8);
  const int64_t panels = (int64_t)((s->c + 15) / 16) * ((s->k + 15) / 16);
  const int64_t winograd = (kernels->pair_cost * pairs + kernels->finish_cost) * panels * 256;
  return winograd < positions * s->c * s->k ? kernels : NULL;
}

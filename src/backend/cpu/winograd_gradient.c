/* The driver of the Winograd weight gradient. The batch is divided into units, rows of Winograd tiles of one image; as many as
 * the caches hold form a piece. A piece is transformed in parallel, then blocks (output channels x input channels) of all 36
 * frequencies are multiplied and finished into the gradient. */
#include "backend/cpu/winograd_gradient.h"

enum {
  PIECE_BYTES = 10 * 1024 * 1024, /* transformed x and dy: a part of the last-level cache */
  ITEM_PANELS = 2,                /* of rows, that a thread processes at a time */
  BATCH_PAIRS = 8,                /* transformed at a time */
};

/* ---- the plan ---- */

typedef struct Plan {
  NitiConvPlan base;
  NitiConv conv;
  const NitiWinogradGradientKernels *kernels;
  NitiConvCut how;
  size_t threads;
  size_t x_panels, dy_panels;
  size_t units, image_units, unit_pairs; /* of the batch, of an image; pairs of a unit */
  size_t most_units;                     /* of a piece */
  size_t panel, x_stride, dy_stride;     /* elements of a panel and of a frequency */
  size_t block_columns, acc_stride;      /* of a thread's sums: elements of a row and of a frequency */
  size_t group_units;                    /* of an item that transforms */
  int8_t *zeros;                         /* a pixel outside the image */
} Plan;

typedef struct Pass {
  const Plan *plan;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  size_t first, units; /* of this piece */
  size_t groups;       /* of its units, for transforming x; the same number for dy */
  size_t segments;
  bool add;
  bool looks; /* sums are then final, and of 32 bits: their largest magnitude is wanted */
  NitiIsa isa;
  _Atomic uint32_t *max;
  int16_t *transformed_x, *transformed_dy; /* [frequencies][x_stride], [frequencies][dy_stride] */
  uint32_t *sums, *running;                /* of |dy|: [most_units][channels], [channels] */
  size_t *cuts;                            /* [most_units + 1] */
  int32_t *acc;                            /* [threads][frequencies][acc_stride] */
} Pass;

/* An odd number of lines, so that frequencies do not compete for the same sets of a cache. */
static size_t odd_lines(size_t elements, size_t element) {
  const size_t line = 64 / element, lines = niti_divide_up(elements, line);
  return (lines | 1) * line;
}

static void cut(Plan *p) {
  const NitiConv *s = &p->conv;
  p->x_panels = niti_divide_up((size_t)s->c, NITI_GRADIENT_PANEL);
  p->dy_panels = niti_divide_up((size_t)s->k, NITI_GRADIENT_PANEL);
  p->unit_pairs = niti_divide_up((size_t)s->ow, 8);
  p->image_units = niti_divide_up((size_t)s->oh, 4);
  p->units = p->image_units * (size_t)s->n;
  const size_t pair_bytes = (p->x_panels + p->dy_panels) * NITI_GRADIENT_FREQUENCIES * NITI_GRADIENT_PAIR * sizeof(int16_t);
  p->most_units =
      niti_most(1, niti_least(niti_conv_scaled(p->kernels->pairs, p->how), niti_conv_scaled(PIECE_BYTES, p->how) / pair_bytes) /
                       p->unit_pairs);
  p->most_units = niti_least(p->most_units, p->units);
  p->panel = p->most_units * p->unit_pairs * NITI_GRADIENT_PAIR;
  p->x_stride = odd_lines(p->x_panels * p->panel, sizeof(int16_t));
  p->dy_stride = odd_lines(p->dy_panels * p->panel, sizeof(int16_t));
  p->block_columns = niti_least(p->x_panels, NITI_GRADIENT_COLUMN_PANELS) * NITI_GRADIENT_PANEL;
  p->acc_stride = odd_lines(NITI_GRADIENT_PANEL * p->block_columns, sizeof(int32_t));
  p->group_units = niti_most(1, BATCH_PAIRS / p->unit_pairs);
}

static void take_buffers(Pass *pass, NitiWorkspace *w) {
  const Plan *p = pass->plan;
  const size_t frequencies = NITI_GRADIENT_FREQUENCIES, channels = p->dy_panels * NITI_GRADIENT_PANEL;
  pass->transformed_x = niti_workspace_take(w, frequencies * p->x_stride * sizeof(int16_t));
  pass->transformed_dy = niti_workspace_take(w, frequencies * p->dy_stride * sizeof(int16_t));
  pass->sums = niti_workspace_take(w, p->most_units * channels * sizeof(uint32_t));
  pass->running = niti_workspace_take(w, channels * sizeof(uint32_t));
  pass->cuts = niti_workspace_take(w, (p->most_units + 1) * sizeof(size_t));
  pass->acc = niti_workspace_take(w, p->threads * frequencies * p->acc_stride * sizeof(int32_t));
}

static void run_winograd(const NitiConvPlan *, NitiCpu *, NitiGradient *, const int8_t *dy, const int8_t *x);

NitiConvPlan *niti_winograd_gradient_prepare(NitiWorkspace *w, const NitiWinogradGradientKernels *kernels, const NitiConv *s,
                                             NitiConvCut how) {
  const size_t pixel = niti_most((size_t)s->c, (size_t)s->k);
  Plan p = {.base = {.kernel = kernels->name, .gradient = run_winograd}, .conv = *s, .kernels = kernels, .how = how};
  p.threads = how.threads;
  cut(&p);
  NitiWorkspace run = niti_workspace_begin(NULL, 0);
  take_buffers(&(Pass){.plan = &p}, &run);
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  p.zeros = niti_workspace_take(w, pixel);
  if (!plan) return NULL;
  memset(p.zeros, 0, pixel);
  *plan = p;
  return &plan->base;
}

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

/* x of pairs first .. last of the piece: a panel of all of them after the other, so that what is written is contiguous. */
static void transform_x(const Pass *p, size_t first, size_t last) {
  const NitiConv *s = &p->plan->conv;
  const Plan *plan = p->plan;
  const int8_t *pixel[BATCH_PAIRS][NITI_GRADIENT_X_PIXELS];
  for (size_t i = first; i < last; ++i) {
    const size_t unit = p->first + i / plan->unit_pairs, image = unit / plan->image_units, row = unit % plan->image_units;
    point(pixel[i - first], p->x + image * (size_t)s->h * (size_t)s->w * (size_t)s->c, plan->zeros, (int64_t)row * 4 - s->pad_h,
          (int64_t)(i % plan->unit_pairs) * 8 - s->pad_w, 6, 10, s->h, s->w, s->c);
  }
  for (size_t panel = 0; panel < plan->x_panels; ++panel) {
    int16_t *out = p->transformed_x + panel * plan->panel + first * NITI_GRADIENT_PAIR;
    const size_t channel = panel * NITI_GRADIENT_PANEL;
    const int channels = (int)niti_least(NITI_GRADIENT_PANEL, (size_t)s->c - channel);
    for (size_t i = 0; i < last - first; ++i, out += NITI_GRADIENT_PAIR) {
      p->plan->kernels->transform_x(out, plan->x_stride, pixel[i], channel, channels);
    }
  }
}

/* The same for dy, and the sums of the units that the pairs belong to. */
static void transform_dy(const Pass *p, size_t first, size_t last) {
  const NitiConv *s = &p->plan->conv;
  const Plan *plan = p->plan;
  const int8_t *pixel[BATCH_PAIRS][NITI_GRADIENT_DY_PIXELS];
  uint32_t *sums[BATCH_PAIRS];
  for (size_t i = first; i < last; ++i) {
    const size_t unit = p->first + i / plan->unit_pairs, image = unit / plan->image_units, row = unit % plan->image_units;
    point(pixel[i - first], p->dy + image * (size_t)s->oh * (size_t)s->ow * (size_t)s->k, plan->zeros, (int64_t)row * 4,
          (int64_t)(i % plan->unit_pairs) * 8, 4, 8, s->oh, s->ow, s->k);
    sums[i - first] = p->sums + i / plan->unit_pairs * plan->dy_panels * NITI_GRADIENT_PANEL;
  }
  for (size_t panel = 0; panel < plan->dy_panels; ++panel) {
    int16_t *out = p->transformed_dy + panel * plan->panel + first * NITI_GRADIENT_PAIR;
    const size_t channel = panel * NITI_GRADIENT_PANEL;
    const int channels = (int)niti_least(NITI_GRADIENT_PANEL, (size_t)s->k - channel);
    for (size_t i = 0; i < last - first; ++i, out += NITI_GRADIENT_PAIR) {
      p->plan->kernels->transform_dy(out, plan->dy_stride, pixel[i], channel, channels, sums[i] + channel);
    }
  }
}

static void transform_group(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const size_t begin = item % p->groups * p->plan->group_units, end = niti_least(begin + p->plan->group_units, p->units);
  const size_t channels = plan->dy_panels * NITI_GRADIENT_PANEL;
  (void)thread;
  for (size_t i = begin * channels; item >= p->groups && i < end * channels; ++i) p->sums[i] = 0;
  for (size_t first = begin * plan->unit_pairs; first < end * plan->unit_pairs; first += BATCH_PAIRS) {
    const size_t last = niti_least(first + BATCH_PAIRS, end * plan->unit_pairs);
    if (item < p->groups)
      transform_x(p, first, last);
    else
      transform_dy(p, first, last);
  }
}

/* ---- sums ---- */

/* Divides the piece's units into segments, each as long as every channel's bound allows: cuts[i] .. cuts[i + 1]. */
static void cut_piece(Pass *p) {
  const size_t channels = p->plan->dy_panels * NITI_GRADIENT_PANEL;
  const uint32_t *sums = p->sums;
  uint32_t *running = p->running;
  size_t *cuts = p->cuts;
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
    cuts[++p->segments] = unit; /* never a segment's first: a single unit fits */
    for (size_t i = 0; i < channels; ++i) running[i] = sums[i];
  }
  cuts[++p->segments] = p->units;
}

static uint8_t *gradient_at(const Pass *p, size_t row, size_t tap, size_t column) {
  return (uint8_t *)p->gradient->data + ((row * 9 + tap) * (size_t)p->plan->conv.c + column) * (size_t)p->gradient->bits / 8;
}

/* One panel of rows x a block of columns: every frequency over pairs begin .. end, then the gradient of these sums. */
static void sum_panel(const Pass *p, int32_t *acc, size_t row_panel, size_t column_panel, size_t segment) {
  const size_t begin = p->cuts[segment] * p->plan->unit_pairs, end = p->cuts[segment + 1] * p->plan->unit_pairs;
  const bool add = p->add || segment > 0, looks = p->looks && segment + 1 == p->segments;
  const Plan *plan = p->plan;
  const size_t panels = niti_least(NITI_GRADIENT_COLUMN_PANELS, plan->x_panels - column_panel), c = (size_t)p->plan->conv.c;
  const size_t row = row_panel * NITI_GRADIENT_PANEL, column = column_panel * NITI_GRADIENT_PANEL;
  const size_t row_count = niti_least(NITI_GRADIENT_PANEL, (size_t)p->plan->conv.k - row);
  const size_t column_count = niti_least(panels * NITI_GRADIENT_PANEL, c - column);
  const int16_t *rows = p->transformed_dy + row_panel * plan->panel + begin * NITI_GRADIENT_PAIR;
  const int16_t *columns = p->transformed_x + column_panel * plan->panel + begin * NITI_GRADIENT_PAIR;
  for (size_t f = 0; f < NITI_GRADIENT_FREQUENCIES; ++f, rows += plan->dy_stride, columns += plan->x_stride) {
    for (size_t i = f * 4; i < f * 4 + 4 && i / 9 < row_count; ++i) { /* 16 rows of 9 taps, to which the finish will add */
      const uint8_t *to = gradient_at(p, row + i / 9, i % 9, column);
      for (size_t at = 0; at < column_count * (size_t)p->gradient->bits / 8; at += 64) __builtin_prefetch(to + at, 1, 2);
    }
    p->plan->kernels->multiply(acc + f * plan->acc_stride, plan->block_columns, rows, columns, plan->panel, end - begin,
                               (int)panels, rows + plan->dy_stride, columns + plan->x_stride);
  }
  for (size_t i = 0; i < row_count; ++i) {
    p->plan->kernels->finish(gradient_at(p, row + i, 0, column), p->gradient->bits, add, c, acc + i * plan->block_columns,
                             plan->acc_stride, (int)column_count);
    if (looks)
      niti_conv_look(p->max, p->isa, (const int32_t *)(const void *)gradient_at(p, row + i, 0, column), 9, column_count, c);
  }
}

/* Consecutive items share a block of columns, which then stays in a thread's cache. */
static void sum_block(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const size_t down = niti_divide_up(plan->dy_panels, ITEM_PANELS), column_panel = item / down * NITI_GRADIENT_COLUMN_PANELS;
  const size_t first = item % down * ITEM_PANELS, last = niti_least(first + ITEM_PANELS, plan->dy_panels);
  int32_t *acc = p->acc + thread * NITI_GRADIENT_FREQUENCIES * plan->acc_stride;
  for (size_t row_panel = first; row_panel < last; ++row_panel) {
    for (size_t segment = 0; segment < p->segments; ++segment) sum_panel(p, acc, row_panel, column_panel, segment);
  }
}

static void run_winograd(const NitiConvPlan *base, NitiCpu *cpu, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu);
  _Atomic uint32_t max = 0;
  Pass p = {.plan = plan, .gradient = gradient, .dy = dy, .x = x, .isa = cpu->isa, .max = &max};
  const size_t items = niti_divide_up(plan->dy_panels, ITEM_PANELS) * niti_divide_up(plan->x_panels, NITI_GRADIENT_COLUMN_PANELS);
  take_buffers(&p, &memory);
  for (p.first = 0; p.first < plan->units; p.first += p.units) {
    /* The rest in pieces of the same size. */
    const size_t left = plan->units - p.first;
    p.units = niti_divide_up(left, niti_divide_up(left, plan->most_units));
    p.groups = niti_divide_up(p.units, plan->group_units);
    p.add = p.first > 0;
    p.looks = gradient->bits == 32 && p.first + p.units == plan->units;
    niti_threads_run(cpu->threads, transform_group, &p, 2 * p.groups);
    cut_piece(&p);
    niti_threads_run(cpu->threads, sum_block, &p, items);
  }
  if (p.looks) niti_cpu_keep_largest(cpu, gradient, max);
  assert(niti_workspace_intact(&memory));
}

/* ---- the choice ---- */

bool niti_winograd_gradient_fits(const NitiConv *s) {
  return s->kh == 3 && s->kw == 3 && s->stride_h == 1 && s->stride_w == 1 && s->ow <= NITI_GRADIENT_LIMIT / (4 * 127);
}

const NitiWinogradGradientKernels *niti_winograd_gradient_of(NitiIsa isa) {
#ifdef __x86_64__
  if (isa == NITI_ISA_AVX512VNNI) return &niti_winograd_gradient_avx512vnni;
  if (isa == NITI_ISA_AVX2) return &niti_winograd_gradient_avx2;
#endif
  (void)isa;
  return NULL;
}

/* Whole tiles, pairs and panels are computed where the direct sum computes positions and channels. A larger batch never reverts
 * the choice to the direct sum. */
const NitiWinogradGradientKernels *niti_winograd_gradient_kernels(NitiIsa isa, const NitiConv *s) {
  const NitiWinogradGradientKernels *kernels = niti_winograd_gradient_of(isa);
  if (!kernels || !niti_winograd_gradient_fits(s)) return NULL;
  const int64_t positions = (int64_t)s->n * s->oh * s->ow, pairs = (int64_t)s->n * ((s->oh + 3) / 4) * ((s->ow + 7) / 8);
  const int64_t panels = (int64_t)((s->c + 15) / 16) * ((s->k + 15) / 16);
  const int64_t winograd = (kernels->pair_cost * pairs + kernels->finish_cost) * panels * 256;
  return winograd < positions * s->c * s->k ? kernels : NULL;
}

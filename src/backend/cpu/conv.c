/* Running convolutions, and the driver of most of them: forward and backward as an implicit GEMM. Weights are packed into
 * panels once, then parts of the output are distributed among threads. Each thread copies the input it needs, with its
 * border, into scratch that stays in its cache (or reads it in place if the kernels can and there is no border), and
 * multiplies tile by tile. */
#include "backend/cpu/conv_plan.h"

/* ---- runs ---- */

typedef struct Run {
  NitiCpu *cpu;
  const NitiConvPlan *plan;
  NitiConvOperands operands;
} Run;

static uint32_t run_passes(void *context, const NitiRounder *rounder) {
  const Run *r = context;
  NitiRounder mine = *rounder;
  uint32_t max = 0;
  mine.again = mine.again && !r->plan->next; /* each phase of a stride overwrites the workspace of the previous one */
  for (const NitiConvPlan *plan = r->plan; plan; plan = plan->next) {
    const uint32_t most = plan->pass(plan, r->cpu, &r->operands, &mine);
    if (most > max) max = most;
  }
  return max;
}

/* The threads that a plan is for become the backend's until the run ends; returns those that were. */
static NitiThreads *take_threads(NitiCpu *cpu, const NitiConvPlan *plan) {
  NitiThreads *all = cpu->threads;
  if (plan->alone) cpu->threads = cpu->alone;
  return all;
}

static int requantise(Run *run, const NitiRequantise *request, bool relu, const NitiTensor *mask) {
  NitiThreads *all = take_threads(run->cpu, run->plan);
  const int shift = niti_cpu_requantise(run->cpu, request, relu, mask, run_passes, run);
  run->cpu->threads = all;
  return shift;
}

int niti_conv_forward(NitiCpu *cpu, const NitiConvPlan *plan, int8_t *y, const int8_t *x, const int8_t *w, const int32_t *bias,
                      NitiKeptWeights *kept, const NitiRequantise *request) {
  Run run = {cpu, plan, {.out = y, .in = x, .w = w, .bias = bias}};
  if (kept && plan->kept > 0) {
    assert(kept->bytes >= plan->kept);
    run.operands.packed = kept->data;
    run.operands.ready = kept->layout == plan->layout;
    kept->layout = plan->layout;
  }
  return requantise(&run, request, plan->relu, NULL);
}

int niti_conv_backward(NitiCpu *cpu, const NitiConvPlan *plan, int8_t *dx, const int8_t *dy, const int8_t *w,
                       const NitiTensor *mask, const NitiRequantise *request) {
  Run run = {cpu, plan, {.out = dx, .in = dy, .w = w}};
  return requantise(&run, request, false, mask);
}

void niti_conv_gradient(NitiCpu *cpu, const NitiConvPlan *plan, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  NitiThreads *all = take_threads(cpu, plan);
  niti_cpu_forget_largest(cpu, gradient);
  plan->gradient(plan, cpu, gradient, dy, x);
  cpu->threads = all;
}

NitiWorkspace niti_conv_memory(const NitiCpu *cpu) {
  assert(cpu->workspace);
  return niti_workspace_begin(cpu->workspace, cpu->workspace_bytes);
}

void niti_conv_share(NitiCpu *cpu, NitiTask task, void *context, size_t items, size_t work) {
  enum { ALONE = 32 * 1024 }; /* about a microsecond */
  if (work > ALONE)
    niti_threads_run(cpu->threads, task, context, items);
  else
    for (size_t item = 0; item < items; ++item) task(context, 0, item);
}

/* ---- implicit GEMM: how a pass is cut ---- */

enum {
  SCRATCH_BYTES = 256 * 1024, /* of padded input in one part: with a panel it should fit a core's second-level cache */
  PART_PIXELS = 2048,         /* maximum pixels in one part, or one output row */
  PARTS_PER_THREAD = 8,
};

/* A part is `images` whole images or, where one image is too large, a band of `rows` output rows of one image. */
typedef struct Plan {
  NitiConvPlan base;
  NitiImplicitGemm g;
  const NitiConvKernels *kernels;
  NitiConvCut how;
  size_t threads;
  size_t nr, panels, panel_bytes;     /* output channels of a panel; panels, and bytes of each */
  size_t run, groups;                 /* elements and groups of one row of taps */
  size_t row_elements;                /* of the padded input row of one part: */
  size_t left, copied, right, source; /* zeros, elements copied from the input row's `source` on, zeros */
  size_t images, rows, pixels;        /* maximum images, output rows and pixels of a part */
  size_t bands, parts, splits;        /* bands per image; parts of the batch, each distributed in splits of its panels */
  size_t weights, outputs;            /* taps * IC * OC; N * JH * JW */
  bool dense;                         /* a part's input is one stretch of the tensor */
  size_t in_bytes, scratch_bytes;
  size_t *in_offset, *out_offset; /* of a part's pixels in its padded input and from its first output on; fewer may be there */
  size_t *weight_offset;          /* of a run's elements, where columns of the weights are contiguous */
} Plan;

/* Bytes of padded input under `rows` output rows. */
static size_t rows_under(const NitiImplicitGemm *g, size_t rows) {
  return (rows - 1) * (size_t)g->step_y + niti_most((size_t)g->tap_rows, 1);
}

/* Parts of a smaller batch are no larger. */
static void cut(Plan *p) {
  const NitiImplicitGemm *g = &p->g;
  const size_t element = (size_t)p->kernels->element, jh = (size_t)g->jh, jw = (size_t)g->jw, n = (size_t)g->n;
  const size_t row_bytes = p->row_elements * element, image_bytes = rows_under(g, jh) * row_bytes;
  const size_t pixels = niti_most(niti_conv_scaled(PART_PIXELS, p->how), jw), scratch = niti_conv_scaled(SCRATCH_BYTES, p->how);
  if (image_bytes <= scratch && jh * jw <= pixels) {
    p->images = niti_least(n, niti_least(scratch / image_bytes, pixels / (jh * jw)));
    p->rows = jh;
    p->bands = 1;
    p->parts = niti_divide_up(n, p->images);
  } else {
    size_t rows = pixels / jw;
    while (rows > 1 && rows_under(g, rows) * row_bytes > scratch) --rows;
    p->bands = niti_divide_up(jh, rows);
    p->rows = niti_divide_up(jh, p->bands);
    p->images = 1;
    p->parts = n * p->bands;
  }
  p->pixels = p->images * p->rows * jw;
  p->splits = niti_least(p->panels, niti_divide_up(p->threads * PARTS_PER_THREAD, p->parts));
  p->in_bytes = p->images * rows_under(g, p->rows) * row_bytes + 64; /* the last group reads past */
}

/* Computes the composition of a padded row. */
static void cut_row(Plan *p) {
  const NitiImplicitGemm *g = &p->g;
  const int64_t c = g->ic, columns = (int64_t)(g->jw - 1) * g->step_x + (g->tap_columns > 0 ? g->tap_columns : 1);
  const int64_t left = g->tap_x, right = left + columns; /* in the input's columns */
  const int64_t first = left > 0 ? left : 0, last = right < g->iw ? right : g->iw;
  p->row_elements = (size_t)(columns * c);
  p->left = p->row_elements;
  if (first >= last) return;
  p->left = (size_t)((first - left) * c);
  p->copied = (size_t)((last - first) * c);
  p->right = (size_t)((right - last) * c);
  p->source = (size_t)(first * c);
}

/* Whether rows of the weights' elements are contiguous, not columns. */
static bool along(const NitiImplicitGemm *g) { return g->weight_c == 1 && g->weight_b == (ptrdiff_t)g->ic; }

static void take_tables(Plan *p, NitiWorkspace *w) {
  p->in_offset = niti_workspace_take(w, p->pixels * sizeof(size_t));
  p->out_offset = niti_workspace_take(w, p->pixels * sizeof(size_t));
  p->weight_offset = niti_workspace_take(w, along(&p->g) ? 0 : p->run * sizeof(size_t));
}

static void fill_tables(Plan *p) {
  const NitiImplicitGemm *g = &p->g;
  const size_t element = (size_t)p->kernels->element, row_bytes = p->row_elements * element, under = rows_under(g, p->rows);
  for (size_t n = 0, i = 0; n < p->images; ++n) {
    for (size_t j = 0; j < p->rows; ++j) {
      for (size_t column = 0; column < (size_t)g->jw; ++column, ++i) {
        p->in_offset[i] = (n * under + j * (size_t)g->step_y) * row_bytes + column * (size_t)(g->step_x * g->ic) * element;
        p->out_offset[i] = n * g->out_image + j * g->out_row + column * g->out_pixel;
      }
    }
  }
  /* From the tap that is first in memory, so that no offset is negative. */
  const ptrdiff_t lowest = g->weight_b < 0 ? (g->tap_columns - 1) * g->weight_b : 0;
  for (size_t i = 0; !along(g) && i < p->run; ++i) {
    const size_t b = i / (size_t)g->ic, c = i % (size_t)g->ic;
    p->weight_offset[i] = (size_t)((ptrdiff_t)b * g->weight_b - lowest) + c * g->weight_c;
  }
}

typedef struct Packed {
  uint8_t *panels;
  int32_t *corrections; /* [panels][tap_rows + 1][nr]: initial accumulators for the first 0, 1, ... rows of taps */
} Packed;

static Packed take_packed(const Plan *p, NitiWorkspace *w) {
  Packed packed;
  packed.panels = niti_workspace_take(w, p->panels * p->panel_bytes);
  packed.corrections = niti_workspace_take(w, p->panels * ((size_t)p->g.tap_rows + 1) * p->nr * sizeof(int32_t));
  return packed;
}

typedef struct Buffers {
  Packed packed;
  int32_t *init;    /* [panels][nr]: the corrections and the bias */
  uint8_t *shifts;  /* [parts][splits]: what each used last */
  uint8_t *scratch; /* [threads][scratch_bytes] */
} Buffers;

static Buffers take_buffers(const Plan *p, NitiWorkspace *w) {
  Buffers b;
  b.packed = take_packed(p, w);
  b.init = niti_workspace_take(w, p->panels * p->nr * sizeof(int32_t));
  b.shifts = niti_workspace_take(w, p->parts * p->splits);
  b.scratch = niti_workspace_take(w, p->threads * p->scratch_bytes);
  return b;
}

/* Per thread: padded input and one tile of accumulators. */
typedef struct Scratch {
  uint8_t *in;
  int32_t *acc;
} Scratch;

static Scratch take_scratch(const Plan *p, NitiWorkspace *w) {
  Scratch s;
  s.in = niti_workspace_take(w, p->in_bytes);
  s.acc = niti_workspace_take(w, NITI_MR_MAX * NITI_NR_MAX * sizeof(int32_t));
  return s;
}

static uint32_t run_gemm(const NitiConvPlan *, NitiCpu *, const NitiConvOperands *, const NitiRounder *);

NitiConvPlan *niti_implicit_gemm_prepare(NitiWorkspace *w, const NitiConvKernels *kernels, const NitiImplicitGemm *g,
                                         NitiConvCut how) {
  Plan p = {.base = {.kernel = kernels->name, .layout = kernels, .pass = run_gemm}, .g = *g, .kernels = kernels, .how = how};
  const size_t element = (size_t)kernels->element, group = (size_t)kernels->group;
  p.threads = how.threads;
  p.nr = (size_t)(kernels->vectors * kernels->lanes);
  p.panels = niti_divide_up((size_t)g->oc, p.nr);
  p.run = (size_t)g->tap_columns * (size_t)g->ic;
  p.groups = niti_divide_up(p.run, group);
  p.weights = (size_t)g->tap_rows * p.run * (size_t)g->oc;
  p.outputs = (size_t)g->n * (size_t)g->jh * (size_t)g->jw;
  p.panel_bytes = niti_round_up((size_t)g->tap_rows * p.groups * group * element * p.nr, NITI_WORKSPACE_ALIGNMENT);
  cut_row(&p);
  cut(&p);
  p.dense = g->tap_rows > 0 && p.bands == 1 && g->tap_y == 0 && rows_under(g, p.rows) == (size_t)g->ih && g->tap_x == 0 &&
            p.row_elements == (size_t)g->iw * (size_t)g->ic;

  NitiWorkspace scratch = niti_workspace_begin(NULL, 0), kept = scratch, run = scratch;
  take_scratch(&p, &scratch);
  p.scratch_bytes = scratch.used;
  take_packed(&p, &kept);
  p.base.kept = kept.used;
  take_buffers(&p, &run);
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  take_tables(&p, w);
  if (!plan) return NULL;
  fill_tables(&p);
  *plan = p;
  return &plan->base;
}

/* ---- implicit GEMM: packing ---- */

typedef struct Pass {
  const Plan *plan;
  const NitiRounder *rounder;
  int8_t *out;
  const int8_t *in, *w;
  Buffers buffers;
  _Atomic uint32_t max;
} Pass;

static int columns_of(const Plan *p, size_t panel) { return (int)niti_least(p->nr, (size_t)p->g.oc - panel * p->nr); }
static int vectors_of(const Plan *p, int columns) { return (columns + p->kernels->lanes - 1) / p->kernels->lanes; }

static NitiWorkspace scratch_of(const Pass *p, size_t thread) {
  return niti_workspace_begin(p->buffers.scratch + thread * p->plan->scratch_bytes, p->plan->scratch_bytes);
}

/* Of a panel, for all rows of taps before `row`. */
static int32_t *correction_of(const Plan *p, const Buffers *b, size_t panel, size_t row) {
  return b->packed.corrections + (panel * ((size_t)p->g.tap_rows + 1) + row) * p->nr;
}

static size_t run_bytes(const Plan *p, int vectors) {
  return p->groups * (size_t)(p->kernels->group * p->kernels->element * vectors * p->kernels->lanes);
}

/* The initial accumulators of a packed panel, with which an input of zeros sums to zero. */
static void correct_panel(const Plan *p, const Buffers *b, const Scratch *scratch, size_t index, const uint8_t *panel) {
  const NitiConvKernels *kernels = p->kernels;
  const int vectors = vectors_of(p, columns_of(p, index));
  const size_t padded = (size_t)(vectors * kernels->lanes), none = 0;
  int32_t *sums = correction_of(p, b, index, 0);
  memset(sums, 0, ((size_t)p->g.tap_rows + 1) * p->nr * sizeof *sums);
  if (!kernels->offset) return;
  kernels->zero(scratch->in, p->groups * (size_t)kernels->group);
  if (kernels->begin) kernels->begin();
  for (size_t row = 0; row < (size_t)p->g.tap_rows; ++row, sums += p->nr) {
    NitiMicrotile tile = {.acc = scratch->acc,
                          .init = correction_of(p, b, index, 0), /* zeros */
                          .in = scratch->in,
                          .row_offset = &none,
                          .panel = panel + row * run_bytes(p, vectors),
                          .sets = 1,
                          .runs = 1,
                          .groups = p->groups,
                          .rows = 1,
                          .vectors = vectors};
    kernels->microkernel(&tile);
    for (size_t i = 0; i < padded; ++i) sums[p->nr + i] = (int32_t)((uint32_t)sums[i] - (uint32_t)scratch->acc[i]);
  }
  if (kernels->end) kernels->end();
}

static void pack_panel(void *context, size_t thread, size_t index) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiImplicitGemm *g = &plan->g;
  const NitiConvKernels *kernels = plan->kernels;
  const int columns = columns_of(plan, index), vectors = vectors_of(plan, columns), padded = vectors * kernels->lanes;
  const size_t bytes = run_bytes(plan, vectors);
  const ptrdiff_t lowest = g->weight_b < 0 ? (g->tap_columns - 1) * g->weight_b : 0;
  const int8_t *w = p->w + g->weight_base + index * plan->nr * g->weight_o;
  uint8_t *panel = p->buffers.packed.panels + index * plan->panel_bytes;
  for (int32_t a = 0; a < g->tap_rows; ++a) {
    const int8_t *row = w + a * g->weight_a;
    if (along(g))
      kernels->panel_along(panel + (size_t)a * bytes, row, g->weight_o, plan->run, columns, padded);
    else
      kernels->panel_across(panel + (size_t)a * bytes, row + lowest, plan->weight_offset, plan->run, columns, padded);
  }
  NitiWorkspace memory = scratch_of(p, thread);
  const Scratch scratch = take_scratch(plan, &memory);
  correct_panel(plan, &p->buffers, &scratch, index, panel);
  assert(niti_workspace_intact(&memory));
}

/* One padded row from the input row at `from`, NULL for a row of zeros. */
static void copy_row(const Plan *p, uint8_t *to, const int8_t *from) {
  const size_t element = (size_t)p->kernels->element;
  if (!from || p->copied == 0) {
    p->kernels->zero(to, p->row_elements);
    return;
  }
  if (p->left > 0) p->kernels->zero(to, p->left);
  p->kernels->convert(to + p->left * element, from + p->source, p->copied);
  if (p->right > 0) p->kernels->zero(to + (p->left + p->copied) * element, p->right);
}

/* Where the padded input of images n0 .. n1 - 1, output rows j0 .. j1 - 1 is: copied into scratch, or in the tensor. */
static const uint8_t *input_of(const Pass *p, uint8_t *scratch, size_t n0, size_t n1, size_t j0, size_t j1) {
  const Plan *plan = p->plan;
  const NitiImplicitGemm *g = &plan->g;
  const size_t in_row = (size_t)g->iw * (size_t)g->ic, in_image = (size_t)g->ih * in_row;
  const size_t row_bytes = plan->row_elements * (size_t)plan->kernels->element, rows = rows_under(g, j1 - j0);
  const int64_t top = (int64_t)j0 * g->step_y + g->tap_y;
  if (plan->dense) {
    const int8_t *from = p->in + n0 * in_image;
    if (plan->kernels->in_place && plan->run % (size_t)plan->kernels->group == 0) return (const uint8_t *)from;
    plan->kernels->convert(scratch, from, (n1 - n0) * in_image);
    return scratch;
  }
  uint8_t *to = scratch;
  for (size_t n = n0; g->tap_rows > 0 && n < n1; ++n) {
    for (size_t r = 0; r < rows; ++r, to += row_bytes) {
      const int64_t y = top + (int64_t)r;
      copy_row(plan, to, y >= 0 && y < g->ih ? p->in + n * in_image + (size_t)y * in_row : NULL);
    }
  }
  return scratch;
}

/* ---- implicit GEMM: sums ---- */

/* Output rows j0 .. j1 - 1 of some images. */
typedef struct Band {
  size_t j0, j1;
} Band;

/* The rows of taps, first .. end - 1, outside of which pixels at .. at + count - 1 of a band read only the border's zeros. */
typedef struct TapRows {
  size_t first, end;
} TapRows;

static TapRows rows_inside(const Plan *p, const Band *band, size_t at, size_t count) {
  const NitiImplicitGemm *g = &p->g;
  const size_t rows = band->j1 - band->j0, top = at / (size_t)g->jw, bottom = (at + count - 1) / (size_t)g->jw;
  const int64_t taps = g->tap_rows;
  if (taps < 2 || top / rows != bottom / rows) return (TapRows){0, (size_t)taps};
  const int64_t above = (int64_t)(band->j0 + top % rows) * g->step_y + g->tap_y; /* what the first tap of the top row reads */
  const int64_t below = (int64_t)(band->j0 + bottom % rows) * g->step_y + g->tap_y;
  const int64_t first = below < 0 ? -below : 0, end = g->ih - above < taps ? g->ih - above : taps;
  return first < end ? (TapRows){(size_t)first, (size_t)end} : (TapRows){0, 0};
}

/* Leaves rows of taps out of a tile that has all of them; init is where its initial accumulators may be made. */
static void leave_out(const Pass *p, NitiMicrotile *tile, int32_t *init, size_t panel, TapRows rows) {
  const Plan *plan = p->plan;
  const size_t all = (size_t)plan->g.tap_rows;
  const int32_t *from = correction_of(plan, &p->buffers, panel, 0);
  if (rows.first == 0 && rows.end == all) return;
  for (size_t i = 0; i < plan->nr; ++i) {
    const uint32_t left =
        (uint32_t)from[all * plan->nr + i] - (uint32_t)from[rows.end * plan->nr + i] + (uint32_t)from[rows.first * plan->nr + i];
    init[i] = (int32_t)((uint32_t)tile->init[i] - left);
  }
  tile->init = init;
  tile->in += rows.first * tile->run_stride;
  tile->panel = (const uint8_t *)tile->panel + rows.first * run_bytes(plan, tile->vectors);
  tile->runs = rows.end - rows.first;
}

/* Some panels of one part. */
static void sum_part(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const Plan *plan = p->plan;
  const NitiImplicitGemm *g = &plan->g;
  const NitiConvKernels *kernels = plan->kernels;
  uint8_t *shift = p->buffers.shifts + item;
  NitiRounder rounder = *p->rounder;
  rounder.shift = niti_part_shift(p->rounder, &p->max);
  if (p->rounder->again && *shift == rounder.shift) return;
  *shift = (uint8_t)rounder.shift;

  NitiWorkspace memory = scratch_of(p, thread);
  const Scratch scratch = take_scratch(plan, &memory);
  const size_t part = item / plan->splits, split = item % plan->splits;
  const size_t n0 = part / plan->bands * plan->images, n1 = niti_least(n0 + plan->images, (size_t)g->n);
  const size_t j0 = part % plan->bands * plan->rows, j1 = niti_least(j0 + plan->rows, (size_t)g->jh);
  if (j0 >= j1) return;
  const uint8_t *in = input_of(p, scratch.in, n0, n1, j0, j1);
  const size_t pixels = (n1 - n0) * (j1 - j0) * (size_t)g->jw, base = g->out_base + n0 * g->out_image + j0 * g->out_row;
  const Band band = {j0, j1};
  int32_t init[NITI_NR_MAX];
  uint32_t max = 0;
  if (kernels->begin) kernels->begin();
  for (size_t panel = plan->panels * split / plan->splits; panel < plan->panels * (split + 1) / plan->splits; ++panel) {
    const int columns = columns_of(plan, panel), vectors = vectors_of(plan, columns);
    const size_t mr = (size_t)kernels->mr[vectors];
    const NitiMicrotile whole = {.acc = scratch.acc,
                                 .init = p->buffers.init + panel * plan->nr,
                                 .in = in,
                                 .panel = p->buffers.packed.panels + panel * plan->panel_bytes,
                                 .sets = 1,
                                 .runs = (size_t)g->tap_rows,
                                 .groups = plan->groups,
                                 .run_stride = plan->row_elements * (size_t)kernels->element,
                                 .vectors = vectors};
    for (size_t pixel = 0; pixel < pixels; pixel += mr) {
      NitiMicrotile tile = whole;
      tile.row_offset = plan->in_offset + pixel;
      tile.rows = (int)niti_least(mr, pixels - pixel);
      leave_out(p, &tile, init, panel, rows_inside(plan, &band, pixel, (size_t)tile.rows));
      kernels->microkernel(&tile);
      max = kernels->requantise(p->out, plan->out_offset + pixel, base + panel * plan->nr, scratch.acc,
                                (size_t)(vectors * kernels->lanes), tile.rows, columns, &rounder, max);
    }
  }
  if (kernels->end) kernels->end();
  assert(niti_workspace_intact(&memory));
  niti_max_raise(&p->max, max);
}

/* Sums may wrap while a correction is among them. */
static void begin_sums(const Plan *p, const Buffers *b, const int32_t *bias) {
  for (size_t panel = 0; panel < p->panels; ++panel)
    memcpy(b->init + panel * p->nr, correction_of(p, b, panel, (size_t)p->g.tap_rows), p->nr * sizeof(int32_t));
  for (size_t o = 0; bias && o < (size_t)p->g.oc; ++o) b->init[o] = (int32_t)((uint32_t)b->init[o] + (uint32_t)bias[o]);
}

static uint32_t run_gemm(const NitiConvPlan *base, NitiCpu *cpu, const NitiConvOperands *o, const NitiRounder *rounder) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu), kept = niti_workspace_begin(o->packed, base->kept);
  Pass p = {.plan = plan, .rounder = rounder, .out = o->out, .in = o->in, .w = o->w};
  p.buffers = take_buffers(plan, &memory);
  if (o->packed) p.buffers.packed = take_packed(plan, &kept);
  if (!rounder->again && !o->ready) niti_conv_share(cpu, pack_panel, &p, plan->panels, plan->weights);
  begin_sums(plan, &p.buffers, o->bias);
  niti_conv_share(cpu, sum_part, &p, plan->parts * plan->splits, plan->weights * plan->outputs);
  assert(niti_workspace_intact(&memory) && niti_workspace_intact(&kept));
  return p.max;
}

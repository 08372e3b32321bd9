/* The weight gradient with taps as shifts of one long row, for kernels whose multiply-adds consume long rows
 * (NitiConvKernels.step), stride 1. A plane of x holds all images of a chunk one after another with their zeros between, so that
 * a tap is a shift of the whole plane, and the panels of dy have the same positions, 0 where there is no output pixel: the sum
 * over pixels becomes one row. The zeros right of a row are those left of the next, and those below an image are those above the
 * next. */
#include "backend/cpu/conv_plan.h"
#include "base/bounds.h"

enum {
  CHUNK_BYTES = 16 * 1024 * 1024, /* packed x and dy: a part of the last-level cache */
  UNIT_POSITIONS = 1024,          /* approximate: several small images are packed together */
  INNER_POSITIONS = 512,          /* summed at a time: the operands of all taps of some channels stay in the first-level cache */
  PACK_POSITIONS = 16,            /* that the transposition processes at a time */
  PART_CHANNELS = 32,             /* channels that it processes at a time */
  PART_ROWS = 288,                /* maximum (tap, channel) rows of a part: the taps of 3x3, a multiple of a tile's rows */
  PART_PANELS = 4,                /* maximum panels of output channels of a part */
  PARTS_PER_THREAD = 2,
};

typedef struct Plan {
  NitiConvPlan base;
  NitiConv conv;
  const NitiConvKernels *kernels;
  NitiConvCut how;
  size_t threads;
  size_t row, image;                /* positions of a plane's row and image */
  size_t unit_images, unit;         /* images packed together, their positions */
  size_t units, plane;              /* of a full chunk; bytes of a plane */
  size_t past;                      /* what the last plane's rows may read beyond it */
  size_t zeros;                     /* positions after the last unit that a tap may see */
  size_t taps, m, channel_blocks;   /* m: taps * C */
  size_t nr, panels, panel_bytes;   /* output channels of a panel; panels; bytes of each for a full chunk */
  size_t part_panels, across, down; /* of a part; parts side by side and above each other */
  size_t *x_offset, *dy_offset;     /* of the positions of a full unit, then of the last where it has fewer images */
  size_t *row_offset;
} Plan;

typedef struct Pass {
  const Plan *plan;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  size_t first, count;     /* source images of this chunk */
  size_t units, positions; /* of this chunk; positions a multiple of a step */
  uint8_t *planes, *panels;
  int32_t *acc; /* [threads][PART_PANELS][PART_ROWS][nr] */
} Pass;

static int columns_of(const Plan *p, size_t panel) { return (int)niti_least(p->nr, (size_t)p->conv.k - panel * p->nr); }
static int vectors_of(const Plan *p, size_t panel) { return (columns_of(p, panel) + p->kernels->lanes - 1) / p->kernels->lanes; }
static size_t lanes_of(const Plan *p, size_t panel) { return (size_t)(vectors_of(p, panel) * p->kernels->lanes); }

/* Channels of the block of PART_CHANNELS that begins with this one. */
static size_t channels_from(const Plan *p, size_t channel) { return niti_least(PART_CHANNELS, (size_t)p->conv.c - channel); }
static size_t parts_down(const Plan *p, size_t channel) { return niti_divide_up(p->taps * channels_from(p, channel), PART_ROWS); }

/* ---- the plan ---- */

bool niti_conv_gradient_shifted_fits(const NitiConvKernels *kernels, const NitiConv *s) {
  return kernels->step > 0 && s->stride_h == 1 && s->stride_w == 1 && s->pad_h < s->kh && s->pad_w < s->kw &&
         (int64_t)s->oh * s->ow > 1 && (int64_t)s->oh * s->ow <= NITI_ACCUMULATION_MAX;
}

static void cut(Plan *p) {
  const NitiConv *s = &p->conv;
  const size_t c = (size_t)s->c, area = (size_t)s->oh * (size_t)s->ow, step = (size_t)p->kernels->step;
  p->row = (size_t)s->w + (size_t)s->pad_w;
  p->image = ((size_t)s->h + (size_t)s->pad_h) * p->row;
  p->unit_images = niti_least(niti_most(1, UNIT_POSITIONS / p->image), niti_least((size_t)s->n, NITI_ACCUMULATION_MAX / area));
  p->unit = niti_round_up(p->unit_images * p->image, PACK_POSITIONS);
  p->zeros = (size_t)s->pad_h * p->row + (size_t)s->pad_w;
  p->units = niti_least(niti_conv_scaled(CHUNK_BYTES, p->how) / ((c + p->panels * p->nr) * p->unit),
                        NITI_ACCUMULATION_MAX / (area * p->unit_images));
  p->units = niti_least(niti_most(1, p->units), niti_divide_up((size_t)s->n, p->unit_images));
  p->plane = niti_round_up(p->units * p->unit + p->zeros, 64);
  p->plane += p->plane / 64 % 2 == 0 ? 64 : 0; /* an odd number of lines: planes do not compete for the same sets of a cache */
  p->past = step + ((size_t)s->kh - 1) * p->row + (size_t)s->kw;
  p->panel_bytes = niti_round_up(p->units * p->unit, step) * p->nr;
}

/* More panels per part read x less often, but every thread needs several parts. */
static void cut_parts(Plan *p) {
  for (size_t channel = 0; channel < (size_t)p->conv.c; channel += PART_CHANNELS) p->down += parts_down(p, channel);
  p->part_panels = niti_least(PART_PANELS, p->panels);
  while (p->part_panels > 1 && p->down * niti_divide_up(p->panels, p->part_panels) < p->threads * PARTS_PER_THREAD) {
    --p->part_panels;
  }
  p->across = niti_divide_up(p->panels, p->part_panels);
}

/* Offsets in x and dy of the positions of a unit of this number of images, SIZE_MAX for zeros. */
static void fill_offsets(const Plan *p, size_t *x, size_t *dy, size_t images) {
  const NitiConv *s = &p->conv;
  const size_t rows = (size_t)s->h + (size_t)s->pad_h, pad_h = (size_t)s->pad_h, pad_w = (size_t)s->pad_w;
  for (size_t i = 0; i < p->unit; ++i) x[i] = dy[i] = SIZE_MAX;
  for (size_t n = 0, at = 0; n < images; ++n) {
    for (size_t row = 0; row < rows; ++row) {
      for (size_t column = 0; column < p->row; ++column, ++at) {
        if (row >= pad_h && column >= pad_w) {
          x[at] = ((n * (size_t)s->h + row - pad_h) * (size_t)s->w + column - pad_w) * (size_t)s->c;
        }
        if (row < (size_t)s->oh && column < (size_t)s->ow) {
          dy[at] = ((n * (size_t)s->oh + row) * (size_t)s->ow + column) * (size_t)s->k;
        }
      }
    }
  }
}

/* Rows in the order of blocks of channels, then of taps, then of channels. */
static void fill_rows(const Plan *p) {
  size_t *offset = p->row_offset;
  for (size_t first = 0; first < (size_t)p->conv.c; first += PART_CHANNELS) {
    for (size_t tap = 0; tap < p->taps; ++tap) {
      const size_t shift = tap / (size_t)p->conv.kw * p->row + tap % (size_t)p->conv.kw;
      for (size_t c = 0; c < channels_from(p, first); ++c) *offset++ = (first + c) * p->plane + shift;
    }
  }
}

static void take_buffers(Pass *pass, NitiWorkspace *w) {
  const Plan *p = pass->plan;
  pass->planes = niti_workspace_take(w, (size_t)p->conv.c * p->plane + p->past);
  pass->panels = niti_workspace_take(w, p->panels * p->panel_bytes);
  pass->acc = niti_workspace_take(w, p->threads * PART_PANELS * PART_ROWS * p->nr * sizeof(int32_t));
}

static void run_shifted(const NitiConvPlan *, NitiCpu *, NitiGradient *, const int8_t *dy, const int8_t *x);

NitiConvPlan *niti_conv_gradient_shifted_prepare(NitiWorkspace *w, const NitiConvKernels *kernels, const NitiConv *s,
                                                 NitiConvCut how) {
  Plan p = {.base = {.kernel = kernels->name, .gradient = run_shifted}, .conv = *s, .kernels = kernels, .how = how};
  p.threads = how.threads;
  p.taps = (size_t)s->kh * (size_t)s->kw;
  p.m = p.taps * (size_t)s->c;
  p.channel_blocks = niti_divide_up((size_t)s->c, PART_CHANNELS);
  p.nr = (size_t)(kernels->vectors * kernels->lanes);
  p.panels = niti_divide_up((size_t)s->k, p.nr);
  cut(&p);
  cut_parts(&p);

  NitiWorkspace run = niti_workspace_begin(NULL, 0);
  take_buffers(&(Pass){.plan = &p}, &run);
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  p.x_offset = niti_workspace_take(w, 2 * p.unit * sizeof(size_t));
  p.dy_offset = niti_workspace_take(w, 2 * p.unit * sizeof(size_t));
  p.row_offset = niti_workspace_take(w, p.m * sizeof(size_t));
  if (!plan) return NULL;
  fill_offsets(&p, p.x_offset, p.dy_offset, p.unit_images);
  fill_offsets(&p, p.x_offset + p.unit, p.dy_offset + p.unit, (size_t)s->n % p.unit_images);
  fill_rows(&p);
  *plan = p;
  return &plan->base;
}

/* ---- packing ---- */

static uint8_t *panel_at(const Pass *p, size_t panel, size_t position) {
  return p->panels + panel * p->plan->panel_bytes + position * lanes_of(p->plan, panel);
}

/* Items: first x by unit and channels, then dy by unit and panel. */
static void pack_unit(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConv *s = &plan->conv;
  const NitiConvKernels *kernels = plan->kernels;
  const size_t x_items = p->units * plan->channel_blocks;
  const bool is_x = item < x_items;
  const size_t index = is_x ? item : item - x_items, parts = is_x ? plan->channel_blocks : plan->panels;
  const size_t unit = index / parts, first = p->first + unit * plan->unit_images, end = (unit + 1) * plan->unit;
  const size_t table = p->first + p->count - first < plan->unit_images ? plan->unit : 0; /* that of the rest */
  (void)thread;
  if (is_x) {
    const size_t channel = index % parts * PART_CHANNELS, channels = channels_from(plan, channel);
    uint8_t *planes = p->planes + channel * plan->plane;
    kernels->transpose(planes + unit * plan->unit, plan->plane,
                       p->x + first * (size_t)s->h * (size_t)s->w * (size_t)s->c + channel, plan->x_offset + table, plan->unit,
                       (int)channels);
    for (size_t c = 0; unit + 1 == p->units && c < channels; ++c) kernels->zero(planes + c * plan->plane + end, plan->zeros);
  } else {
    const size_t panel = index % parts, lanes = lanes_of(plan, panel);
    kernels->panel_across(panel_at(p, panel, unit * plan->unit),
                          p->dy + first * (size_t)s->oh * (size_t)s->ow * (size_t)s->k + panel * plan->nr,
                          plan->dy_offset + table, plan->unit, columns_of(plan, panel), (int)lanes);
    if (unit + 1 == p->units) memset(panel_at(p, panel, end), 0, (p->positions - end) * lanes);
  }
}

/* ---- sums ---- */

/* A part's rows: of one block of channels, from its row `begin` on. */
typedef struct Rows {
  size_t channel, channels, begin, count;
  const size_t *offset;
} Rows;

static Rows rows_of(const Plan *p, size_t part) {
  Rows rows = {0};
  while (part >= parts_down(p, rows.channel)) {
    part -= parts_down(p, rows.channel);
    rows.channel += PART_CHANNELS;
  }
  rows.channels = channels_from(p, rows.channel);
  rows.begin = part * PART_ROWS;
  rows.count = niti_least(PART_ROWS, p->taps * rows.channels - rows.begin);
  rows.offset = p->row_offset + rows.channel * p->taps + rows.begin;
  return rows;
}

/* One panel's sums of a part, tap by tap, unless the block has all channels. */
static void store_rows(const Pass *p, const Rows *rows, size_t panel, const int32_t *acc) {
  const Plan *plan = p->plan;
  const NitiGradient *g = p->gradient;
  const size_t c = (size_t)plan->conv.c, lanes = lanes_of(plan, panel);
  for (size_t done = 0, count; done < rows->count; done += count) {
    const size_t row = rows->begin + done, tap = row / rows->channels, channel = row % rows->channels;
    count = rows->channels == c ? rows->count : niti_least(rows->channels - channel, rows->count - done);
    const size_t at = panel * plan->nr * plan->m + tap * c + rows->channel + channel;
    plan->kernels->store((uint8_t *)g->data + at * (size_t)g->bits / 8, g->bits, p->first > 0, plan->m, acc + done * lanes, lanes,
                         (int)count, columns_of(plan, panel));
  }
}

static void sum_part(void *context, size_t thread, size_t item) {
  static const int32_t zeros[NITI_NR_MAX];
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConvKernels *kernels = plan->kernels;
  const size_t panel_sums = PART_ROWS * plan->nr;
  const size_t b0 = item % plan->across * plan->part_panels, b1 = niti_least(b0 + plan->part_panels, plan->panels);
  const Rows rows = rows_of(plan, item / plan->across);
  int32_t *acc = p->acc + thread * PART_PANELS * panel_sums;
  if (kernels->begin) kernels->begin();
  for (size_t at = 0; at < p->positions; at += INNER_POSITIONS) {
    const size_t positions = niti_least(INNER_POSITIONS, p->positions - at);
    for (size_t panel = b0; panel < b1; ++panel) {
      const size_t stride = lanes_of(plan, panel), mr = (size_t)kernels->mr[vectors_of(plan, panel)];
      NitiMicrotile tile = {.in = p->planes + at,
                            .panel = panel_at(p, panel, at),
                            .sets = 1,
                            .runs = 1,
                            .groups = positions / (size_t)kernels->group,
                            .vectors = vectors_of(plan, panel)};
      for (size_t row = 0; row < rows.count; row += mr) {
        tile.acc = acc + (panel - b0) * panel_sums + row * stride;
        tile.init = at == 0 ? zeros : tile.acc;
        tile.init_stride = at == 0 ? 0 : stride;
        tile.row_offset = rows.offset + row;
        tile.rows = (int)niti_least(mr, rows.count - row);
        kernels->microkernel(&tile);
      }
    }
  }
  if (kernels->end) kernels->end();
  for (size_t panel = b0; panel < b1; ++panel) store_rows(p, &rows, panel, acc + (panel - b0) * panel_sums);
}

static void run_shifted(const NitiConvPlan *base, NitiCpu *cpu, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  const Plan *plan = (const Plan *)base;
  const size_t n = (size_t)plan->conv.n;
  NitiWorkspace memory = niti_conv_memory(cpu);
  Pass p = {.plan = plan, .gradient = gradient, .dy = dy, .x = x};
  take_buffers(&p, &memory);
  for (p.first = 0; p.first < n; p.first += p.count) {
    p.count = niti_least(plan->units * plan->unit_images, n - p.first);
    p.units = niti_divide_up(p.count, plan->unit_images);
    p.positions = niti_round_up(p.units * plan->unit, (size_t)plan->kernels->step);
    niti_threads_run(cpu->threads, pack_unit, &p, p.units * (plan->channel_blocks + plan->panels));
    niti_threads_run(cpu->threads, sum_part, &p, plan->down * plan->across);
  }
  assert(niti_workspace_intact(&memory));
}

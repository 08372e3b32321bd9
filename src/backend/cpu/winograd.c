/* Forward and backward by Winograd's F(4x4, 3x3). The weights are transformed once, into panels for 36 products; then parts of
 * the output, some tens of tiles, are distributed among threads. Each thread transforms its input, multiplies plane by plane, so
 * that a panel is used for all tiles of a part, and transforms back while the sums are in its cache. */
#include "backend/cpu/winograd.h"

enum {
  TILE = 4, /* output rows and columns of a Winograd tile; its input has 6 */
  INPUT = 6,
  SLICE = 16,           /* channels whose weights are packed at a time, and the grain of a split */
  PART_BYTES = 4 << 20, /* of transformed input and products in one part */
  PART_TILES = 36,      /* maximum tiles of a part: each element of a panel that is read is used this many times */
  BLOCK_COLUMNS = 64,   /* output channels multiplied together: each transformed input that is read is used this many times, */
  MANY_CHANNELS = 256,  /* and for twice as many if input channels beyond this make it too large for a near cache */
  PARTS_PER_THREAD = 8,
  SPLIT_BYTES = 8 << 20, /* of panels that all parts use before the next: they should stay in the last cache */
  APART = 16,            /* int32 between planes, so that equal places of two planes are in different sets of the cache */
};

/* Weights whose magnitudes sum to this or less cannot produce an output of 2^25 from mantissas up to 127. */
static const uint32_t most_magnitude = ((1u << NITI_WINOGRAD_BITS) - 1) / 127;

/* How a pass is divided. Tiles are Winograd tiles. Output channels come in panels, as wide as the microkernel's tile, and panels
 * in blocks, which are multiplied together. */
typedef struct Plan {
  NitiConvPlan base;
  NitiImplicitGemm g;
  const NitiWinogradKernels *kernels;
  NitiConvCut how;
  size_t threads;
  size_t tiles_y, tiles_x, tiles; /* of an image, twice; of the batch */
  size_t tiles_most, tiles_part;  /* of any part of any smaller batch; of a part of this one */
  size_t parts, splits;           /* of the batch; of the blocks, among parts */
  size_t nr, panels, block_panels, blocks;
  size_t channels, groups, slices;     /* padded input channels; pairs of channels; slices of them */
  size_t u_stride, v_stride, m_stride; /* elements from plane to plane */
  size_t panel, m_panel;               /* elements of a panel of weights, all planes; of its products */
  size_t scratch_bytes;
  size_t *row_offset; /* of a part's tiles in v */
  int8_t *zeros;      /* a pixel outside the input */
} Plan;

/* Transformed weights, and what is known of them: for every column of a panel the sums of each slice, and what follows. */
typedef struct Packed {
  int16_t *panels;
  int32_t *magnitudes, *squares; /* [panels][slices][nr] */
  size_t *ends;                  /* [panels][slices]: of the runs of slices that sum exactly whatever the input, in slices */
  size_t *runs;                  /* [panels]: their number */
  uint64_t *square;              /* [panels]: the largest sum of squares of a column's weights */
} Packed;

/* A run's memory. */
typedef struct Buffers {
  Packed packed;
  uint8_t *shifts;  /* [splits][parts]: what each used last */
  uint8_t *scratch; /* [threads][scratch_bytes] */
} Buffers;

/* A thread's scratch: transformed input; products of a block's panels; outputs of one tile, or of all where runs of channels are
 * added up; while weights are packed, panels of a slice's nine taps. */
typedef struct Scratch {
  int16_t *v, *taps;
  int32_t *m, *acc;
} Scratch;

typedef struct Pass {
  const Plan *plan;
  const NitiRounder *rounder;
  int8_t *out;
  const int8_t *in, *w;
  const int32_t *bias;
  Buffers buffers;
  _Atomic uint32_t max;
} Pass;

/* ---- the plan ---- */

static void cut(Plan *p) {
  const NitiImplicitGemm *g = &p->g;
  const NitiWinogradKernels *kernels = p->kernels;
  p->tiles_y = niti_divide_up((size_t)g->jh, TILE);
  p->tiles_x = niti_divide_up((size_t)g->jw, TILE);
  p->tiles = (size_t)g->n * p->tiles_y * p->tiles_x;
  p->nr = (size_t)kernels->vectors * (size_t)kernels->lanes;
  p->panels = niti_divide_up((size_t)g->oc, p->nr);
  const size_t block_columns = g->ic > MANY_CHANNELS ? 2 * BLOCK_COLUMNS : BLOCK_COLUMNS;
  p->block_panels = niti_least(p->panels, niti_most(block_columns / p->nr, 1));
  p->blocks = niti_divide_up(p->panels, p->block_panels);
  p->channels = niti_round_up((size_t)g->ic, (size_t)kernels->channels);
  p->groups = niti_divide_up((size_t)g->ic, 2);
  p->slices = niti_divide_up((size_t)g->ic, SLICE);

  const size_t tile_bytes = NITI_WINOGRAD_PLANES * (p->channels * sizeof(int16_t) + p->block_panels * p->nr * sizeof(int32_t));
  const size_t mr = (size_t)kernels->mr[kernels->vectors], fitting = niti_conv_scaled(PART_BYTES, p->how) / tile_bytes / mr * mr;
  p->tiles_most = niti_least(p->tiles, niti_most(mr, niti_least(fitting, niti_conv_scaled(PART_TILES, p->how))));
  p->parts = niti_divide_up(p->tiles, p->tiles_most);
  p->tiles_part = niti_least(p->tiles_most, niti_round_up(niti_divide_up(p->tiles, p->parts), mr));
  p->parts = niti_divide_up(p->tiles, p->tiles_part);

  p->u_stride = p->groups * 2 * p->nr + 2 * APART;
  p->v_stride = p->tiles_part * p->channels + 2 * APART;
  p->m_stride = p->tiles_part * p->nr + APART;
  p->panel = niti_round_up(NITI_WINOGRAD_PLANES * p->u_stride, 32);
  p->m_panel = niti_round_up(NITI_WINOGRAD_PLANES * (p->tiles_most * p->nr + APART), 16);
  p->splits = niti_least(p->blocks, niti_most(niti_divide_up(p->panels * p->panel * sizeof(int16_t), SPLIT_BYTES),
                                              niti_divide_up(p->threads * PARTS_PER_THREAD, p->parts)));
}

static Packed take_packed(const Plan *p, NitiWorkspace *w) {
  Packed packed;
  packed.panels = niti_workspace_take(w, p->panels * p->panel * sizeof(int16_t));
  packed.magnitudes = niti_workspace_take(w, p->panels * p->slices * p->nr * sizeof(int32_t));
  packed.squares = niti_workspace_take(w, p->panels * p->slices * p->nr * sizeof(int32_t));
  packed.ends = niti_workspace_take(w, p->panels * p->slices * sizeof(size_t));
  packed.runs = niti_workspace_take(w, p->panels * sizeof(size_t));
  packed.square = niti_workspace_take(w, p->panels * sizeof(uint64_t));
  return packed;
}

static Buffers take_buffers(const Plan *p, NitiWorkspace *w) {
  Buffers b;
  b.packed = take_packed(p, w);
  b.shifts = niti_workspace_take(w, p->parts * p->blocks); /* a smaller batch may have more splits */
  b.scratch = niti_workspace_take(w, p->threads * p->scratch_bytes);
  return b;
}

static Scratch take_scratch(const Plan *p, NitiWorkspace *w) {
  Scratch s;
  s.v = niti_workspace_take(w, NITI_WINOGRAD_PLANES * (p->tiles_most * p->channels + 2 * APART) * sizeof(int16_t));
  s.m = niti_workspace_take(w, p->block_panels * p->m_panel * sizeof(int32_t));
  s.acc = niti_workspace_take(w, p->tiles_most * NITI_WINOGRAD_PIXELS * p->nr * sizeof(int32_t));
  s.taps = niti_workspace_take(w, NITI_WINOGRAD_TAPS * SLICE * p->nr * sizeof(int16_t));
  return s;
}

static uint32_t run_winograd(const NitiConvPlan *, NitiCpu *, const NitiConvOperands *, const NitiRounder *);

NitiConvPlan *niti_winograd_prepare(NitiWorkspace *w, const NitiWinogradKernels *kernels, const NitiImplicitGemm *g,
                                    NitiConvCut how) {
  Plan p = {.base = {.kernel = kernels->name, .layout = kernels, .pass = run_winograd}, .g = *g, .kernels = kernels};
  p.how = how;
  p.threads = how.threads;
  cut(&p);

  NitiWorkspace scratch = niti_workspace_begin(NULL, 0), kept = scratch, run = scratch;
  take_scratch(&p, &scratch);
  p.scratch_bytes = scratch.used;
  take_packed(&p, &kept);
  p.base.kept = kept.used;
  take_buffers(&p, &run);
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  p.row_offset = niti_workspace_take(w, p.tiles_most * sizeof(size_t));
  p.zeros = niti_workspace_take(w, (size_t)g->ic);
  if (!plan) return NULL;
  for (size_t i = 0; i < p.tiles_part; ++i) p.row_offset[i] = i * p.channels * sizeof(int16_t);
  memset(p.zeros, 0, (size_t)g->ic);
  *plan = p;
  return &plan->base;
}

/* ---- the choice ---- */

bool niti_winograd_fits(const NitiImplicitGemm *g) {
  const bool whole = g->out_pixel == (size_t)g->oc && g->out_row == (size_t)g->jw * (size_t)g->oc; /* not a phase of a stride */
  return whole && g->tap_rows == 3 && g->tap_columns == 3 && g->step_y == 1 && g->step_x == 1;
}

bool niti_winograd_serves(const NitiWinogradKernels *kernels, const NitiImplicitGemm *g) {
  if (!kernels || !niti_winograd_fits(g)) return false;
  const NitiWinogradWorth *worth = &kernels->worth;
  const int64_t rows = (g->jh + TILE - 1) / TILE, columns = (g->jw + TILE - 1) / TILE;
  return g->ic >= worth->channels && g->oc >= worth->channels && g->n * rows * columns >= worth->tiles &&
         (int64_t)g->jh * g->jw * 100 >= rows * columns * NITI_WINOGRAD_PIXELS * worth->percent;
}

/* ---- packing ---- */

static int columns_of(const Pass *p, size_t panel) {
  return (int)niti_least(p->plan->nr, (size_t)p->plan->g.oc - panel * p->plan->nr);
}

static int vectors_of(const Pass *p, size_t panel) {
  return (columns_of(p, panel) + p->plan->kernels->lanes - 1) / p->plan->kernels->lanes;
}

static int padded_of(const Pass *p, size_t panel) { return vectors_of(p, panel) * p->plan->kernels->lanes; }

static const int16_t *panel_at(const Pass *p, size_t panel) { return p->buffers.packed.panels + panel * p->plan->panel; }

static NitiWorkspace scratch_of(const Pass *p, size_t thread) {
  return niti_workspace_begin(p->buffers.scratch + thread * p->plan->scratch_bytes, p->plan->scratch_bytes);
}

/* Transforms one slice of a panel's weights. */
static void pack_slice(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const NitiImplicitGemm *g = &p->plan->g;
  const Plan *plan = p->plan;
  const size_t panel = item / plan->slices, slice = item % plan->slices, first = slice * SLICE;
  const size_t rows = niti_least(SLICE, (size_t)g->ic - first), groups = niti_divide_up(rows, 2);
  const int columns = columns_of(p, panel), padded = padded_of(p, panel);
  const size_t tap_stride = SLICE * (size_t)padded;
  const size_t sums = (panel * plan->slices + slice) * plan->nr;
  int32_t *magnitudes = p->buffers.packed.magnitudes + sums, *squares = p->buffers.packed.squares + sums;
  size_t offset[SLICE];
  NitiWorkspace memory = scratch_of(p, thread);
  int16_t *taps = take_scratch(plan, &memory).taps;
  const int8_t *w = p->w + g->weight_base + panel * plan->nr * g->weight_o + first * g->weight_c;
  for (size_t row = 0; row < rows; ++row) offset[row] = row * g->weight_c;
  for (int tap = 0; tap < NITI_WINOGRAD_TAPS; ++tap) {
    const int8_t *from = w + tap / 3 * g->weight_a + tap % 3 * g->weight_b;
    if (g->weight_c == 1)
      p->plan->kernels->panel_along(taps + (size_t)tap * tap_stride, from, g->weight_o, rows, columns, padded);
    else
      p->plan->kernels->panel_across(taps + (size_t)tap * tap_stride, from, offset, rows, columns, padded);
  }
  memset(magnitudes, 0, plan->nr * sizeof *magnitudes);
  memset(squares, 0, plan->nr * sizeof *squares);
  plan->kernels->weights(p->buffers.packed.panels + panel * plan->panel + first * (size_t)padded, plan->u_stride, taps,
                         tap_stride, groups, padded, magnitudes, squares);
  assert(niti_workspace_intact(&memory));
}

/* Divides the channels into the fewest runs whose sums stay below 2^25 for any mantissas. */
static void bound_panel(void *context, size_t thread, size_t panel) {
  const Pass *p = context;
  const size_t columns = p->plan->nr, slices = p->plan->slices;
  const Packed *b = &p->buffers.packed;
  const int32_t *magnitudes = b->magnitudes + panel * slices * columns, *squares = b->squares + panel * slices * columns;
  size_t *ends = b->ends + panel * slices, runs = 0;
  uint64_t most_square = 0;
  (void)thread;
  for (size_t column = 0; column < columns; ++column) {
    uint64_t square = 0;
    for (size_t slice = 0; slice < slices; ++slice) square += (uint32_t)squares[slice * columns + column];
    if (square > most_square) most_square = square;
  }
  for (size_t first = 0; first < slices; first = ends[runs++]) {
    size_t end = slices;
    for (size_t column = 0; column < columns; ++column) {
      uint32_t magnitude = 0;
      size_t slice = first;
      for (; slice < end; ++slice) {
        magnitude += (uint32_t)magnitudes[slice * columns + column];
        if (magnitude > most_magnitude) break;
      }
      end = slice; /* at least first + 1: a single slice is far from the bound */
    }
    ends[runs] = end;
  }
  b->runs[panel] = runs;
  b->square[panel] = most_square;
}

/* ---- sums ---- */

typedef struct Position {
  size_t image, y, x; /* of a tile; y, x in tiles */
} Position;

static Position position_of(const Plan *plan, size_t tile) {
  const size_t in_image = plan->tiles_y * plan->tiles_x;
  return (Position){tile / in_image, tile % in_image / plan->tiles_x, tile % plan->tiles_x};
}

/* Transforms the input of `count` tiles; returns the largest sum of squares under one. */
static uint64_t transform_part(const Pass *p, const Scratch *s, size_t first, size_t count) {
  const NitiImplicitGemm *g = &p->plan->g;
  const Plan *plan = p->plan;
  uint64_t most_squares = 0;
  for (size_t i = 0; i < count; ++i) {
    const Position at = position_of(plan, first + i);
    const int64_t top = (int64_t)at.y * TILE + g->tap_y, left = (int64_t)at.x * TILE + g->tap_x;
    const int8_t *pixels[INPUT * INPUT];
    const bool inside = top >= 0 && top + INPUT <= g->ih && left >= 0 && left + INPUT <= g->iw;
    for (int64_t y = top; y < top + INPUT; ++y) {
      const int8_t *row =
          p->in + (at.image * (size_t)g->ih + (size_t)(y >= 0 && y < g->ih ? y : 0)) * (size_t)g->iw * (size_t)g->ic;
      const int8_t **to = pixels + (y - top) * INPUT;
      for (int64_t x = left; x < left + INPUT; ++x) {
        const bool there = inside || (y >= 0 && y < g->ih && x >= 0 && x < g->iw);
        to[x - left] = there ? row + (size_t)x * (size_t)g->ic : plan->zeros;
      }
    }
    const uint64_t squares = p->plan->kernels->input(s->v + i * plan->channels, plan->v_stride, pixels, (size_t)g->ic);
    if (squares > most_squares) most_squares = squares;
  }
  return most_squares;
}

/* Memory that the next product will read, to be prefetched during this one. */
typedef struct Ahead {
  const char *panel, *v;
  size_t panel_bytes, v_bytes;
} Ahead;

/* Takes up to `bytes` bytes of it. */
static const void *take_ahead(Ahead *ahead, size_t bytes) {
  const char **at = ahead->panel_bytes ? &ahead->panel : &ahead->v;
  size_t *left = ahead->panel_bytes ? &ahead->panel_bytes : &ahead->v_bytes;
  if (*left == 0) return NULL;
  const char *taken = *at;
  *at += bytes;
  *left -= niti_least(*left, bytes);
  return taken;
}

/* One plane's products of `count` tiles with a panel's columns, over channels of slices first to end. */
static void multiply(const Pass *p, const Scratch *s, int32_t *m, size_t panel, size_t plane, size_t count, size_t first,
                     size_t end, Ahead ahead) {
  static const int32_t zeros[NITI_NR_MAX];
  const Plan *plan = p->plan;
  const size_t padded = (size_t)padded_of(p, panel), from = first * SLICE, mr = (size_t)plan->kernels->mr[vectors_of(p, panel)];
  NitiMicrotile tile = {.init = zeros,
                        .in = (const uint8_t *)(s->v + plane * plan->v_stride + from),
                        .panel = panel_at(p, panel) + plane * plan->u_stride + from * padded,
                        .sets = 1,
                        .runs = 1,
                        .groups = niti_least(plan->groups, end * SLICE / 2) - from / 2,
                        .vectors = vectors_of(p, panel)};
  for (size_t row = 0; row < count; row += mr) {
    tile.acc = m + plane * plan->m_stride + row * padded;
    tile.row_offset = plan->row_offset + row;
    tile.rows = (int)niti_least(mr, count - row);
    tile.ahead = take_ahead(&ahead, tile.groups * 64);
    p->plan->kernels->microkernel(&tile);
  }
}

/* What the product after that of a panel with a plane will read, in a block of panels from first to last. */
static Ahead ahead_of(const Pass *p, const Scratch *s, size_t panel, size_t plane, size_t first, size_t last, size_t count) {
  const Plan *plan = p->plan;
  const size_t next_plane = panel + 1 < last ? plane : plane + 1, next = panel + 1 < last ? panel + 1 : first;
  if (next_plane == NITI_WINOGRAD_PLANES) return (Ahead){NULL, NULL, 0, 0};
  return (Ahead){.panel = (const char *)(panel_at(p, next) + next_plane * plan->u_stride),
                 .panel_bytes = plan->groups * 4 * (size_t)padded_of(p, next),
                 .v = (const char *)(s->v + next_plane * plan->v_stride),
                 .v_bytes = next_plane == plane ? 0 : count * plan->channels * sizeof(int16_t)};
}

static void add_bias(const Pass *p, int32_t *acc, size_t panel, size_t padded) {
  const int32_t *bias = p->bias + panel * p->plan->nr;
  const size_t columns = (size_t)columns_of(p, panel);
  for (size_t pixel = 0; pixel < NITI_WINOGRAD_PIXELS; ++pixel, acc += padded) {
    for (size_t column = 0; column < columns; ++column) acc[column] += bias[column];
  }
}

/* Rounds the outputs of one tile; at the edge, those that exist. */
static uint32_t round_tile(const Pass *p, const NitiRounder *r, int32_t *acc, size_t panel, size_t tile, uint32_t max) {
  const NitiImplicitGemm *g = &p->plan->g;
  const Position at = position_of(p->plan, tile);
  const size_t j0 = at.y * TILE, i0 = at.x * TILE, padded = (size_t)padded_of(p, panel), first = panel * p->plan->nr;
  const size_t rows = niti_least(TILE, (size_t)g->jh - j0), columns = niti_least(TILE, (size_t)g->jw - i0);
  const size_t base = g->out_base + at.image * g->out_image + j0 * g->out_row + i0 * g->out_pixel;
  size_t offset[NITI_WINOGRAD_PIXELS];
  for (size_t pixel = 0; pixel < NITI_WINOGRAD_PIXELS; ++pixel) {
    offset[pixel] = base + pixel / TILE * g->out_row + pixel % TILE * g->out_pixel;
  }
  const bool whole = columns == TILE;
  if (p->bias) add_bias(p, acc, panel, padded);
  for (size_t row = 0; row < rows; row += whole ? rows : 1) {
    const size_t count = whole ? rows * TILE : columns, pixel = row * TILE;
    max = p->plan->kernels->requantise(p->out, offset + pixel, first, acc + pixel * padded, padded, (int)count,
                                       columns_of(p, panel), r, max);
  }
  return max;
}

/* A panel whose outputs could leave the range: the runs of its channels one after another, added up as outputs. */
static uint32_t sum_runs(const Pass *p, const NitiRounder *r, const Scratch *s, int32_t *m, size_t panel, size_t tile,
                         size_t count, uint32_t max) {
  const size_t *ends = p->buffers.packed.ends + panel * p->plan->slices, runs = p->buffers.packed.runs[panel];
  const int padded = padded_of(p, panel);
  const size_t acc_tile = NITI_WINOGRAD_PIXELS * (size_t)padded;
  for (size_t run = 0, first = 0; run < runs; first = ends[run++]) {
    for (size_t plane = 0; plane < NITI_WINOGRAD_PLANES; ++plane) {
      multiply(p, s, m, panel, plane, count, first, ends[run], (Ahead){NULL, NULL, 0, 0});
    }
    for (size_t i = 0; i < count; ++i) {
      p->plan->kernels->output(s->acc + i * acc_tile, (size_t)padded, m + i * (size_t)padded, p->plan->m_stride, padded, run > 0);
    }
  }
  for (size_t i = 0; i < count; ++i) max = round_tile(p, r, s->acc + i * acc_tile, panel, tile + i, max);
  return max;
}

/* Whether a panel's outputs stay below 2^25: for any input, or for this one, since a sum of products is at most the root of the
 * product of both sides' squares. */
static bool is_exact(const Pass *p, size_t panel, uint64_t squares) {
  const Packed *b = &p->buffers.packed;
  return b->runs[panel] == 1 || squares <= ((UINT64_C(1) << (2 * NITI_WINOGRAD_BITS)) - 1) / b->square[panel];
}

static void sum_part(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const Plan *plan = p->plan;
  uint8_t *shift = p->buffers.shifts + item;
  NitiRounder rounder = *p->rounder;
  rounder.shift = niti_part_shift(p->rounder, &p->max);
  if (p->rounder->again && *shift == rounder.shift) return;
  *shift = (uint8_t)rounder.shift;

  NitiWorkspace memory = scratch_of(p, thread);
  const Scratch s = take_scratch(plan, &memory);
  const size_t split = item / plan->parts, tile = item % plan->parts * plan->tiles_part;
  const size_t count = niti_least(plan->tiles_part, plan->tiles - tile);
  const uint64_t squares = transform_part(p, &s, tile, count);
  uint32_t max = 0;
  for (size_t block = plan->blocks * split / plan->splits; block < plan->blocks * (split + 1) / plan->splits; ++block) {
    const size_t first = block * plan->block_panels, last = niti_least(first + plan->block_panels, plan->panels);
    for (size_t plane = 0; plane < NITI_WINOGRAD_PLANES; ++plane) {
      for (size_t panel = first; panel < last; ++panel) {
        const Ahead ahead = ahead_of(p, &s, panel, plane, first, last, count);
        if (is_exact(p, panel, squares))
          multiply(p, &s, s.m + (panel - first) * plan->m_panel, panel, plane, count, 0, plan->slices, ahead);
      }
    }
    for (size_t panel = first; panel < last; ++panel) {
      int32_t *m = s.m + (panel - first) * plan->m_panel;
      const int padded = padded_of(p, panel);
      if (!is_exact(p, panel, squares)) {
        max = sum_runs(p, &rounder, &s, m, panel, tile, count, max);
        continue;
      }
      for (size_t i = 0; i < count; ++i) {
        p->plan->kernels->output(s.acc, (size_t)padded, m + i * (size_t)padded, plan->m_stride, padded, false);
        max = round_tile(p, &rounder, s.acc, panel, tile + i, max);
      }
    }
  }
  assert(niti_workspace_intact(&memory));
  niti_max_raise(&p->max, max);
}

static uint32_t run_winograd(const NitiConvPlan *base, NitiCpu *cpu, const NitiConvOperands *o, const NitiRounder *rounder) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu), kept = niti_workspace_begin(o->packed, base->kept);
  Pass p = {.plan = plan, .rounder = rounder, .out = o->out, .in = o->in, .w = o->w, .bias = o->bias};
  p.buffers = take_buffers(plan, &memory);
  if (o->packed) p.buffers.packed = take_packed(plan, &kept);
  if (!rounder->again && !o->ready) {
    niti_threads_run(cpu->threads, pack_slice, &p, plan->panels * plan->slices);
    niti_threads_run(cpu->threads, bound_panel, &p, plan->panels);
  }
  niti_threads_run(cpu->threads, sum_part, &p, plan->parts * plan->splits);
  assert(niti_workspace_intact(&memory) && niti_workspace_intact(&kept));
  return p.max;
}

/* Forward and backward by Winograd's F(4x4, 3x3). The weights are transformed once, into panels for 36 products; then parts of
 * the output, some tens of tiles, are handed out to threads, each of which transforms its input, multiplies plane by plane, so
 * that a panel serves all tiles of a part, and transforms back while the sums are in its cache. */
#include <string.h>

#include "backend/cpu/winograd.h"

enum {
  TILE = 4, /* output rows and columns of a tile; its input has 6 */
  INPUT = 6,
  SLICE = 16,           /* channels whose weights are packed at a time, and the grain of a split */
  PART_BYTES = 4 << 20, /* of transformed input and products in one part */
  PART_TILES = 36,      /* the most tiles of a part: each number of a panel that is read serves so many */
  BLOCK_COLUMNS = 64,   /* output channels multiplied together: each transformed input that is read serves so many, */
  MANY_CHANNELS = 256,  /* and twice as many where input channels beyond this make it too large to stay near */
  PARTS_PER_THREAD = 8,
  SPLIT_BYTES = 8 << 20, /* of panels that all parts use before the next: they should stay in the last cache */
  APART = 16,            /* int32 between planes, so that equal places of two are not in one set of the cache */
};

/* Weights of a magnitude that sums to this or less cannot make an output of 2^25 from mantissas up to 127. */
static const uint32_t most_magnitude = ((1u << NITI_WINOGRAD_BITS) - 1) / 127;

/* How a pass is cut and where its pieces lie in the workspace. Output channels come in strips, as wide as the multiplication's
 * tile, and strips in blocks, which are multiplied together. */
typedef struct Plan {
  size_t tiles_y, tiles_x, tiles; /* of an image, twice; of the batch */
  size_t tiles_most, tiles_part;  /* of any part of any smaller batch; of a part of this one */
  size_t parts;
  size_t strips, strip_columns, block_strips, blocks;
  size_t channels, groups, slices;               /* padded input channels; pairs of channels; slices of them */
  size_t u_stride, v_stride, m_stride;           /* elements from plane to plane */
  size_t panels, bounds, zeros, shifts, threads; /* workspace offsets */
  size_t strip_bytes, bound_bytes;
  size_t v_bytes, m_bytes, acc_bytes, thread_bytes;
  size_t total;
} Plan;

typedef struct Pass {
  NitiCpu *cpu;
  const NitiWinogradKernels *kernels;
  const NitiGather *g;
  const Plan *plan;
  const NitiRounder *rounder;
  int8_t *out;
  const int8_t *in, *w;
  uint8_t *packed; /* weights */
  size_t splits;   /* of the blocks, among parts */
  _Atomic uint32_t max;
} Pass;

/* What is known of a strip's weights: for every column the sums of each slice, and what follows from them. */
typedef struct Bounds {
  int32_t *magnitudes, *squares; /* [slices][strip_columns] */
  size_t *ends;                  /* of the runs of slices that sum exactly whatever the input, in slices */
  size_t *runs;                  /* their number */
  uint64_t *square;              /* the largest sum of squares of a column's weights */
} Bounds;

/* A thread's scratch: transformed input; products; outputs of one tile, or of all where runs of channels are added up. While
 * weights are packed, panels of the nine taps lie in v. */
typedef struct Scratch {
  int16_t *v;
  int32_t *m, *acc;
  size_t *row_offset;
} Scratch;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

static Plan make_plan(const NitiWinogradKernels *kernels, const NitiGather *g, size_t threads) {
  Plan p = {0};
  p.tiles_y = divide_up((size_t)g->jh, TILE);
  p.tiles_x = divide_up((size_t)g->jw, TILE);
  p.tiles = (size_t)g->n * p.tiles_y * p.tiles_x;
  p.strip_columns = (size_t)kernels->vectors * (size_t)kernels->lanes;
  p.strips = divide_up((size_t)g->oc, p.strip_columns);
  const size_t block_columns = g->ic > MANY_CHANNELS ? 2 * BLOCK_COLUMNS : BLOCK_COLUMNS;
  p.block_strips = least(p.strips, most(block_columns / p.strip_columns, 1));
  p.blocks = divide_up(p.strips, p.block_strips);
  p.channels = niti_round_up((size_t)g->ic, (size_t)kernels->channels);
  p.groups = divide_up((size_t)g->ic, 2);
  p.slices = divide_up((size_t)g->ic, SLICE);

  const size_t tile_bytes =
      NITI_WINOGRAD_PLANES * (p.channels * sizeof(int16_t) + p.block_strips * p.strip_columns * sizeof(int32_t));
  const size_t rows = (size_t)kernels->rows[kernels->vectors], fitting = PART_BYTES / tile_bytes / rows * rows;
  p.tiles_most = least(p.tiles, most(rows, least(fitting, PART_TILES)));
  p.parts = divide_up(p.tiles, p.tiles_most);
  p.tiles_part = least(p.tiles_most, niti_round_up(divide_up(p.tiles, p.parts), rows));
  p.parts = divide_up(p.tiles, p.tiles_part);

  p.u_stride = p.groups * 2 * p.strip_columns + 2 * APART;
  p.v_stride = p.tiles_part * p.channels + 2 * APART;
  p.m_stride = p.tiles_part * p.strip_columns + APART;
  p.strip_bytes = niti_line(NITI_WINOGRAD_PLANES * p.u_stride * sizeof(int16_t));
  p.bound_bytes = 2 * niti_line(p.slices * p.strip_columns * sizeof(int32_t)) + niti_line((p.slices + 2) * sizeof(size_t));
  p.panels = 0;
  p.bounds = p.panels + p.strips * p.strip_bytes;
  p.zeros = p.bounds + p.strips * p.bound_bytes;
  p.shifts = p.zeros + niti_line((size_t)g->ic);
  p.threads = p.shifts + niti_line(p.parts * p.blocks);

  const size_t taps = NITI_WINOGRAD_TAPS * SLICE * p.strip_columns * sizeof(int16_t) + SLICE * sizeof(size_t);
  const size_t v = NITI_WINOGRAD_PLANES * (p.tiles_most * p.channels + 2 * APART) * sizeof(int16_t);
  p.v_bytes = niti_line(most(v, taps));
  p.m_bytes = niti_line(NITI_WINOGRAD_PLANES * (p.tiles_most * p.strip_columns + APART) * sizeof(int32_t)) * p.block_strips;
  p.acc_bytes = niti_line(p.tiles_most * NITI_WINOGRAD_PIXELS * p.strip_columns * sizeof(int32_t));
  p.thread_bytes = p.v_bytes + p.m_bytes + p.acc_bytes + niti_line(p.tiles_most * sizeof(size_t));
  p.total = p.threads + threads * p.thread_bytes;
  return p;
}

static bool is_empty(const NitiGather *g) { return g->n <= 0 || g->jh <= 0 || g->jw <= 0; }

bool niti_winograd_fits(const NitiGather *g) {
  const bool whole = g->out_pixel == (size_t)g->oc && g->out_row == (size_t)g->jw * (size_t)g->oc; /* not a phase of a stride */
  return whole && g->tap_rows == 3 && g->tap_columns == 3 && g->step_y == 1 && g->step_x == 1;
}

bool niti_winograd_serves(const NitiWinogradKernels *kernels, const NitiGather *g) {
  if (!kernels || !niti_winograd_fits(g) || is_empty(g)) return false;
  const NitiWinogradWorth *worth = &kernels->worth;
  const int64_t rows = (g->jh + TILE - 1) / TILE, columns = (g->jw + TILE - 1) / TILE;
  return g->ic >= worth->channels && g->oc >= worth->channels && g->n * rows * columns >= worth->tiles &&
         (int64_t)g->jh * g->jw * 100 >= rows * columns * NITI_WINOGRAD_PIXELS * worth->percent;
}

size_t niti_winograd_workspace(const NitiWinogradKernels *kernels, const NitiGather *g, int threads) {
  return is_empty(g) ? 0 : make_plan(kernels, g, (size_t)threads).total;
}

size_t niti_winograd_packed_bytes(const NitiWinogradKernels *kernels, const NitiGather *g) {
  return is_empty(g) ? 0 : make_plan(kernels, g, 1).zeros;
}

static Scratch scratch_of(const Pass *p, size_t thread) {
  uint8_t *at = p->cpu->workspace + p->plan->threads + thread * p->plan->thread_bytes;
  Scratch s = {.v = (int16_t *)(void *)at};
  at += p->plan->v_bytes;
  s.m = (int32_t *)(void *)at;
  at += p->plan->m_bytes;
  s.acc = (int32_t *)(void *)at;
  at += p->plan->acc_bytes;
  s.row_offset = (size_t *)(void *)at;
  return s;
}

static int16_t *panels_of(const Pass *p, size_t strip) {
  return (int16_t *)(void *)(p->packed + p->plan->panels + strip * p->plan->strip_bytes);
}

static Bounds bounds_of(const Pass *p, size_t strip) {
  uint8_t *at = p->packed + p->plan->bounds + strip * p->plan->bound_bytes;
  const size_t sums = niti_line(p->plan->slices * p->plan->strip_columns * sizeof(int32_t));
  Bounds b = {.magnitudes = (int32_t *)(void *)at, .squares = (int32_t *)(void *)(at + sums)};
  b.square = (uint64_t *)(void *)(at + 2 * sums);
  b.runs = (size_t *)(void *)(b.square + 1);
  b.ends = b.runs + 1;
  return b;
}

static int columns_of(const Pass *p, size_t strip) {
  return (int)least(p->plan->strip_columns, (size_t)p->g->oc - strip * p->plan->strip_columns);
}

static int vectors_of(const Pass *p, size_t strip) { return (columns_of(p, strip) + p->kernels->lanes - 1) / p->kernels->lanes; }

static int padded_of(const Pass *p, size_t strip) { return vectors_of(p, strip) * p->kernels->lanes; }

/* Transforms one slice of a strip's weights. */
static void pack_slice(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const NitiGather *g = p->g;
  const Plan *plan = p->plan;
  const size_t strip = item / plan->slices, slice = item % plan->slices, first = slice * SLICE;
  const size_t rows = least(SLICE, (size_t)g->ic - first), groups = divide_up(rows, 2);
  const int columns = columns_of(p, strip), padded = padded_of(p, strip);
  const size_t tap_stride = SLICE * (size_t)padded;
  int16_t *taps = scratch_of(p, thread).v;
  size_t *offset = (size_t *)(void *)(taps + NITI_WINOGRAD_TAPS * SLICE * plan->strip_columns);
  const int8_t *w = p->w + g->weight_base + strip * plan->strip_columns * g->weight_o + first * g->weight_c;
  for (size_t row = 0; row < rows; ++row) offset[row] = row * g->weight_c;
  for (int tap = 0; tap < NITI_WINOGRAD_TAPS; ++tap) {
    const int8_t *from = w + tap / 3 * g->weight_a + tap % 3 * g->weight_b;
    if (g->weight_c == 1)
      p->kernels->panel_along(taps + (size_t)tap * tap_stride, from, g->weight_o, rows, columns, padded);
    else
      p->kernels->panel_across(taps + (size_t)tap * tap_stride, from, offset, rows, columns, padded);
  }
  const Bounds b = bounds_of(p, strip);
  int32_t *magnitudes = b.magnitudes + slice * plan->strip_columns, *squares = b.squares + slice * plan->strip_columns;
  memset(magnitudes, 0, plan->strip_columns * sizeof *magnitudes);
  memset(squares, 0, plan->strip_columns * sizeof *squares);
  p->kernels->weights(panels_of(p, strip) + first * (size_t)padded, plan->u_stride, taps, tap_stride, groups, padded, magnitudes,
                      squares);
}

/* Cuts the channels into the fewest runs whose sums stay below 2^25 for any mantissas. */
static void bound_strip(void *context, size_t thread, size_t strip) {
  const Pass *p = context;
  const size_t columns = p->plan->strip_columns, slices = p->plan->slices;
  const Bounds b = bounds_of(p, strip);
  (void)thread;
  *b.square = 0;
  *b.runs = 0;
  for (size_t column = 0; column < columns; ++column) {
    uint64_t square = 0;
    for (size_t slice = 0; slice < slices; ++slice) square += (uint32_t)b.squares[slice * columns + column];
    if (square > *b.square) *b.square = square;
  }
  for (size_t first = 0; first < slices; first = b.ends[(*b.runs)++]) {
    size_t end = slices;
    for (size_t column = 0; column < columns; ++column) {
      uint32_t magnitude = 0;
      size_t slice = first;
      for (; slice < end; ++slice) {
        magnitude += (uint32_t)b.magnitudes[slice * columns + column];
        if (magnitude > most_magnitude) break;
      }
      end = slice; /* at least first + 1: a slice alone is far from the bound */
    }
    b.ends[*b.runs] = end;
  }
}

typedef struct Position {
  size_t image, y, x; /* of a tile; y, x in tiles */
} Position;

static Position position_of(const Plan *plan, size_t tile) {
  const size_t in_image = plan->tiles_y * plan->tiles_x;
  return (Position){tile / in_image, tile % in_image / plan->tiles_x, tile % plan->tiles_x};
}

/* Transforms the input of `count` tiles; returns the largest sum of squares under one. */
static uint64_t transform_part(const Pass *p, const Scratch *s, size_t first, size_t count) {
  const NitiGather *g = p->g;
  const Plan *plan = p->plan;
  const int8_t *zeros = (const int8_t *)(p->cpu->workspace + plan->zeros);
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
        to[x - left] = there ? row + (size_t)x * (size_t)g->ic : zeros;
      }
    }
    const uint64_t squares = p->kernels->input(s->v + i * plan->channels, plan->v_stride, pixels, (size_t)g->ic);
    if (squares > most_squares) most_squares = squares;
    s->row_offset[i] = i * plan->channels * sizeof(int16_t);
  }
  return most_squares;
}

/* Memory that the next product will read: it should reach the cache during this one. */
typedef struct Ahead {
  const char *panel, *v;
  size_t panel_bytes, v_bytes;
} Ahead;

/* Takes up to `bytes` of it. */
static const void *take_ahead(Ahead *ahead, size_t bytes) {
  const char **at = ahead->panel_bytes ? &ahead->panel : &ahead->v;
  size_t *left = ahead->panel_bytes ? &ahead->panel_bytes : &ahead->v_bytes;
  if (*left == 0) return NULL;
  const char *taken = *at;
  *at += bytes;
  *left -= least(*left, bytes);
  return taken;
}

/* One plane's products of `count` tiles with a strip's columns, over channels of slices first to end. */
static void multiply(const Pass *p, const Scratch *s, int32_t *m, size_t strip, size_t plane, size_t count, size_t first,
                     size_t end, Ahead ahead) {
  static const int32_t zeros[NITI_TILE_COLUMNS];
  const Plan *plan = p->plan;
  const size_t padded = (size_t)padded_of(p, strip), from = first * SLICE, step = (size_t)p->kernels->rows[vectors_of(p, strip)];
  NitiTile tile = {.init = zeros,
                   .in = (const uint8_t *)(s->v + plane * plan->v_stride + from),
                   .panel = panels_of(p, strip) + plane * plan->u_stride + from * padded,
                   .sets = 1,
                   .runs = 1,
                   .groups = least(plan->groups, end * SLICE / 2) - from / 2,
                   .vectors = vectors_of(p, strip)};
  for (size_t row = 0; row < count; row += step) {
    tile.acc = m + plane * plan->m_stride + row * padded;
    tile.row_offset = s->row_offset + row;
    tile.rows = (int)least(step, count - row);
    tile.ahead = take_ahead(&ahead, tile.groups * 64);
    p->kernels->tile(&tile);
  }
}

/* What the product after that of a strip with a plane will read, in a block of strips from first to last. */
static Ahead ahead_of(const Pass *p, const Scratch *s, size_t strip, size_t plane, size_t first, size_t last, size_t count) {
  const Plan *plan = p->plan;
  const size_t next_plane = strip + 1 < last ? plane : plane + 1, next = strip + 1 < last ? strip + 1 : first;
  if (next_plane == NITI_WINOGRAD_PLANES) return (Ahead){NULL, NULL, 0, 0};
  return (Ahead){.panel = (const char *)(panels_of(p, next) + next_plane * plan->u_stride),
                 .panel_bytes = plan->groups * 4 * (size_t)padded_of(p, next),
                 .v = (const char *)(s->v + next_plane * plan->v_stride),
                 .v_bytes = next_plane == plane ? 0 : count * plan->channels * sizeof(int16_t)};
}

/* Rounds one tile's outputs; of a tile at the edge those that exist. */
static uint32_t round_tile(const Pass *p, const NitiRounder *r, const int32_t *acc, size_t strip, size_t tile, uint32_t max) {
  const NitiGather *g = p->g;
  const Position at = position_of(p->plan, tile);
  const size_t j0 = at.y * TILE, i0 = at.x * TILE, padded = (size_t)padded_of(p, strip), first = strip * p->plan->strip_columns;
  const size_t rows = least(TILE, (size_t)g->jh - j0), columns = least(TILE, (size_t)g->jw - i0);
  const size_t base = g->out_base + at.image * g->out_image + j0 * g->out_row + i0 * g->out_pixel;
  size_t offset[NITI_WINOGRAD_PIXELS];
  for (size_t pixel = 0; pixel < NITI_WINOGRAD_PIXELS; ++pixel) {
    offset[pixel] = base + pixel / TILE * g->out_row + pixel % TILE * g->out_pixel;
  }
  const bool whole = columns == TILE;
  for (size_t row = 0; row < rows; row += whole ? rows : 1) {
    const size_t count = whole ? rows * TILE : columns, pixel = row * TILE;
    max = p->kernels->requantise(p->out, offset + pixel, first, acc + pixel * padded, padded, (int)count, columns_of(p, strip), r,
                                 max);
    for (size_t i = pixel; r->mask && !p->kernels->masks && i < pixel + count; ++i) {
      niti_mask_apply(p->out + offset[i] + first, r->mask + offset[i] + first, (size_t)columns_of(p, strip));
    }
  }
  return max;
}

/* A strip whose outputs could leave the range: the runs of its channels one after another, added up as outputs. */
static uint32_t sum_runs(const Pass *p, const NitiRounder *r, const Scratch *s, int32_t *m, size_t strip, size_t tile,
                         size_t count, uint32_t max) {
  const Bounds b = bounds_of(p, strip);
  const int padded = padded_of(p, strip);
  const size_t acc_tile = NITI_WINOGRAD_PIXELS * (size_t)padded;
  for (size_t run = 0, first = 0; run < *b.runs; first = b.ends[run++]) {
    for (size_t plane = 0; plane < NITI_WINOGRAD_PLANES; ++plane) {
      multiply(p, s, m, strip, plane, count, first, b.ends[run], (Ahead){NULL, NULL, 0, 0});
    }
    for (size_t i = 0; i < count; ++i) {
      p->kernels->output(s->acc + i * acc_tile, (size_t)padded, m + i * (size_t)padded, p->plan->m_stride, padded, run > 0);
    }
  }
  for (size_t i = 0; i < count; ++i) max = round_tile(p, r, s->acc + i * acc_tile, strip, tile + i, max);
  return max;
}

/* Whether a strip's outputs stay below 2^25: for any input, or for this one, since a sum of products is at most the root of the
 * product of both sides' squares. */
static bool is_exact(const Pass *p, size_t strip, uint64_t squares) {
  const Bounds b = bounds_of(p, strip);
  return *b.runs == 1 || squares <= ((UINT64_C(1) << (2 * NITI_WINOGRAD_BITS)) - 1) / *b.square;
}

static void sum_part(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const Plan *plan = p->plan;
  const Scratch s = scratch_of(p, thread);
  uint8_t *shift = p->cpu->workspace + plan->shifts + item; /* that this part used last */
  NitiRounder rounder = *p->rounder;
  rounder.shift = niti_part_shift(p->rounder, &p->max);
  if (p->rounder->again && *shift == rounder.shift) return;
  *shift = (uint8_t)rounder.shift;
  const size_t split = item / plan->parts, tile = item % plan->parts * plan->tiles_part;
  const size_t count = least(plan->tiles_part, plan->tiles - tile),
               m_strip = plan->m_bytes / plan->block_strips / sizeof(int32_t);
  const uint64_t squares = transform_part(p, &s, tile, count);
  uint32_t max = 0;
  for (size_t block = plan->blocks * split / p->splits; block < plan->blocks * (split + 1) / p->splits; ++block) {
    const size_t first = block * plan->block_strips, last = least(first + plan->block_strips, plan->strips);
    for (size_t plane = 0; plane < NITI_WINOGRAD_PLANES; ++plane) {
      for (size_t strip = first; strip < last; ++strip) {
        const Ahead ahead = ahead_of(p, &s, strip, plane, first, last, count);
        if (is_exact(p, strip, squares))
          multiply(p, &s, s.m + (strip - first) * m_strip, strip, plane, count, 0, plan->slices, ahead);
      }
    }
    for (size_t strip = first; strip < last; ++strip) {
      int32_t *m = s.m + (strip - first) * m_strip;
      const int padded = padded_of(p, strip);
      if (!is_exact(p, strip, squares)) {
        max = sum_runs(p, &rounder, &s, m, strip, tile, count, max);
        continue;
      }
      for (size_t i = 0; i < count; ++i) {
        p->kernels->output(s.acc, (size_t)padded, m + i * (size_t)padded, plan->m_stride, padded, false);
        max = round_tile(p, &rounder, s.acc, strip, tile + i, max);
      }
    }
  }
  niti_max_raise(&p->max, max);
}

uint32_t niti_winograd_run(NitiCpu *cpu, const NitiWinogradKernels *kernels, const NitiGather *g, int8_t *out, const int8_t *in,
                           const int8_t *w, const NitiRounder *rounder) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  if (is_empty(g)) return 0;
  const Plan plan = make_plan(kernels, g, threads);
  Pass pass = {.cpu = cpu, .kernels = kernels, .g = g, .plan = &plan, .rounder = rounder, .out = out, .in = in, .w = w};
  pass.splits = least(plan.blocks, most(divide_up(plan.strips * plan.strip_bytes, SPLIT_BYTES),
                                        divide_up(threads * PARTS_PER_THREAD, plan.parts)));
  pass.packed = g->packed ? g->packed : cpu->workspace;
  memset(cpu->workspace + plan.zeros, 0, (size_t)g->ic);
  if (!rounder->again && !g->ready) {
    niti_threads_run(cpu->threads, pack_slice, &pass, plan.strips * plan.slices);
    niti_threads_run(cpu->threads, bound_strip, &pass, plan.strips);
  }
  niti_threads_run(cpu->threads, sum_part, &pass, plan.parts * pass.splits);
  return pass.max;
}

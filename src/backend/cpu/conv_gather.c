/* Forward and backward passes: weights packed into panels once, then parts of the output handed out to threads, each of which
 * copies the input it needs with its border into scratch that stays in its cache (or reads it in place, where kernels can and
 * there is no border), and sums tile by tile. */
#include <string.h>

#include "backend/cpu/conv_plan.h"

enum {
  SCRATCH_BYTES = 256 * 1024, /* of padded input in one part: with a panel it should fit a core's second-level cache */
  PART_PIXELS = 2048,         /* the most pixels in one part, or one output row */
  PARTS_PER_THREAD = 8,
};

/* How a pass is cut and where its pieces lie in the workspace. A part is `images` whole images or, where one image is too large,
 * a band of `rows` output rows of one image. */
typedef struct Plan {
  size_t blocks, panel_bytes;  /* blocks of output channels, bytes of each panel */
  size_t run, groups;          /* elements and groups of one row of taps */
  size_t row_elements;         /* of the padded input row of one part */
  size_t images, rows, pixels; /* the most images, output rows and pixels of a part */
  size_t bands, parts;
  size_t panels, corrections, shifts, threads; /* workspace offsets */
  size_t in_bytes, thread_bytes;
  size_t total;
} Plan;

typedef struct Pass {
  NitiCpu *cpu;
  const NitiConvKernels *kernels;
  const NitiGather *g;
  const Plan *plan;
  const NitiRounder *rounder;
  int8_t *out;
  const int8_t *in, *w;
  uint8_t *packed; /* weights */
  size_t splits;   /* of the output channels, among parts */
  _Atomic uint32_t max;
} Pass;

/* A thread's scratch: padded input, offsets of the part's pixels in it and in the output, one tile of accumulators. */
typedef struct Scratch {
  uint8_t *in;
  size_t *in_offset, *out_offset;
  int32_t *acc;
} Scratch;

/* Rows of padded input under `rows` output rows. */
static size_t rows_under(const NitiGather *g, size_t rows) {
  return (rows - 1) * (size_t)g->step_y + (size_t)(g->tap_rows > 0 ? g->tap_rows : 1);
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static size_t block_columns(const NitiConvKernels *kernels) { return (size_t)kernels->vectors * (size_t)kernels->lanes; }

/* The workspace grows with n: parts of a smaller batch are no larger. */
static Plan make_plan(const NitiConvKernels *kernels, const NitiGather *g, size_t threads) {
  const size_t element = (size_t)kernels->element, group = (size_t)kernels->group, jh = (size_t)g->jh, jw = (size_t)g->jw;
  Plan p = {0};
  p.blocks = ((size_t)g->oc + block_columns(kernels) - 1) / block_columns(kernels);
  p.run = (size_t)g->tap_columns * (size_t)g->ic;
  p.groups = (p.run + group - 1) / group;
  p.panel_bytes = niti_line((size_t)g->tap_rows * p.groups * group * element * block_columns(kernels));
  p.row_elements = ((jw - 1) * (size_t)g->step_x + (size_t)(g->tap_columns > 0 ? g->tap_columns : 1)) * (size_t)g->ic;

  const size_t row_bytes = p.row_elements * element, image_bytes = rows_under(g, jh) * row_bytes;
  const size_t pixels = most(PART_PIXELS, jw);
  if (image_bytes <= SCRATCH_BYTES && jh * jw <= pixels) {
    p.images = least((size_t)g->n, least(SCRATCH_BYTES / image_bytes, pixels / (jh * jw)));
    p.rows = jh;
    p.bands = 1;
    p.parts = ((size_t)g->n + p.images - 1) / p.images;
  } else {
    size_t rows = pixels / jw;
    while (rows > 1 && rows_under(g, rows) * row_bytes > SCRATCH_BYTES) --rows;
    p.bands = (jh + rows - 1) / rows;
    p.rows = (jh + p.bands - 1) / p.bands;
    p.images = 1;
    p.parts = (size_t)g->n * p.bands;
  }
  p.pixels = p.images * p.rows * jw;

  p.panels = 0;
  p.corrections = p.panels + p.blocks * p.panel_bytes;
  p.shifts = p.corrections + p.blocks * niti_line(block_columns(kernels) * sizeof(int32_t));
  p.threads = p.shifts + niti_line(p.parts * p.blocks);
  p.in_bytes =
      niti_line(most(p.images * rows_under(g, p.rows) * row_bytes, p.run * sizeof(size_t)) + 64); /* the last group reads past */
  p.thread_bytes = p.in_bytes + 2 * niti_line((p.pixels + NITI_TILE_ROWS) * sizeof(size_t)) +
                   niti_line(NITI_TILE_ROWS * NITI_TILE_COLUMNS * sizeof(int32_t));
  p.total = p.threads + threads * p.thread_bytes;
  return p;
}

static bool is_empty(const NitiGather *g) { return g->n <= 0 || g->jh <= 0 || g->jw <= 0; }

size_t niti_gather_workspace(const NitiConvKernels *kernels, const NitiGather *g, int threads) {
  return is_empty(g) ? 0 : make_plan(kernels, g, (size_t)threads).total;
}

size_t niti_gather_packed_bytes(const NitiConvKernels *kernels, const NitiGather *g) {
  return is_empty(g) ? 0 : make_plan(kernels, g, 1).shifts;
}

static Scratch scratch_of(const Pass *p, size_t thread) {
  uint8_t *at = p->cpu->workspace + p->plan->threads + thread * p->plan->thread_bytes;
  const size_t offsets = niti_line((p->plan->pixels + NITI_TILE_ROWS) * sizeof(size_t));
  Scratch s = {.in = at, .in_offset = (size_t *)(void *)(at + p->plan->in_bytes)};
  s.out_offset = (size_t *)(void *)(at + p->plan->in_bytes + offsets);
  s.acc = (int32_t *)(void *)(at + p->plan->in_bytes + 2 * offsets);
  return s;
}

static uint8_t *panel_of(const Pass *p, size_t block) { return p->packed + p->plan->panels + block * p->plan->panel_bytes; }

static int32_t *correction_of(const Pass *p, size_t block) {
  const size_t columns = block_columns(p->kernels);
  return (int32_t *)(void *)(p->packed + p->plan->corrections + block * niti_line(columns * sizeof(int32_t)));
}

static int columns_of(const Pass *p, size_t block) {
  return (int)least(block_columns(p->kernels), (size_t)p->g->oc - block * block_columns(p->kernels));
}

static int vectors_of(const Pass *p, int columns) { return (columns + p->kernels->lanes - 1) / p->kernels->lanes; }

/* The initial accumulators of a block that is packed: those with which an input of zeros sums to zero. */
static void correct_block(const Pass *p, const Scratch *scratch, size_t block) {
  const NitiConvKernels *kernels = p->kernels;
  const int vectors = vectors_of(p, columns_of(p, block)), padded = vectors * kernels->lanes;
  const size_t elements = p->plan->groups * (size_t)kernels->group, none = 0;
  int32_t *correction = correction_of(p, block);
  memset(correction, 0, (size_t)padded * sizeof(int32_t));
  if (!kernels->offset) return;
  kernels->zero(scratch->in, elements);
  niti_tiles_begin(kernels);
  for (int32_t a = 0; a < p->g->tap_rows; ++a) {
    const NitiTile tile = {.acc = scratch->acc,
                           .init = correction,
                           .in = scratch->in,
                           .row_offset = &none,
                           .panel = panel_of(p, block) + (size_t)a * elements * (size_t)kernels->element * (size_t)padded,
                           .sets = 1,
                           .runs = 1,
                           .groups = p->plan->groups,
                           .rows = 1,
                           .vectors = vectors};
    kernels->tile(&tile);
    memcpy(correction, scratch->acc, (size_t)padded * sizeof(int32_t));
  }
  niti_tiles_end(kernels);
  for (int column = 0; column < padded; ++column) correction[column] = (int32_t)(0u - (uint32_t)correction[column]);
}

/* Packs the weights of one block. */
static void pack_block(void *context, size_t thread, size_t block) {
  const Pass *p = context;
  const NitiGather *g = p->g;
  const NitiConvKernels *kernels = p->kernels;
  const Scratch scratch = scratch_of(p, thread);
  const int columns = columns_of(p, block), vectors = vectors_of(p, columns), padded = vectors * kernels->lanes;
  const size_t run_bytes = p->plan->groups * (size_t)kernels->group * (size_t)kernels->element * (size_t)padded;
  const int8_t *w = p->w + g->weight_base + block * block_columns(kernels) * g->weight_o;
  size_t *offset = (size_t *)(void *)scratch.in; /* of every element of a run */
  for (int32_t a = 0; a < g->tap_rows; ++a) {
    uint8_t *panel = panel_of(p, block) + (size_t)a * run_bytes;
    const int8_t *row = w + a * g->weight_a;
    if (g->weight_c == 1 && g->weight_b == (ptrdiff_t)g->ic) {
      kernels->panel_along(panel, row, g->weight_o, p->plan->run, columns, padded);
    } else {
      /* From the tap that lies first in memory, so that no offset is negative. */
      const ptrdiff_t lowest = g->weight_b < 0 ? (g->tap_columns - 1) * g->weight_b : 0;
      for (int32_t b = 0; b < g->tap_columns; ++b) {
        for (int32_t c = 0; c < g->ic; ++c) {
          offset[(size_t)b * (size_t)g->ic + (size_t)c] = (size_t)(b * g->weight_b - lowest) + (size_t)c * g->weight_c;
        }
      }
      kernels->panel_across(panel, row + lowest, offset, p->plan->run, columns, padded);
    }
  }
  correct_block(p, &scratch, block);
}

/* One padded row from the input row at `from`, NULL for a row of zeros. */
static void copy_row(const NitiConvKernels *kernels, const NitiGather *g, const Plan *plan, uint8_t *to, const int8_t *from) {
  const int64_t pixels = (int64_t)(plan->row_elements / (size_t)g->ic), left = g->tap_x, right = left + pixels;
  const int64_t first = left > 0 ? left : 0, last = right < g->iw ? right : g->iw; /* input columns to copy */
  const size_t c = (size_t)g->ic, element = (size_t)kernels->element;
  if (!from || first >= last) {
    kernels->zero(to, plan->row_elements);
    return;
  }
  if (first > left) kernels->zero(to, (size_t)(first - left) * c);
  kernels->convert(to + (size_t)(first - left) * c * element, from + (size_t)first * c, (size_t)(last - first) * c);
  if (right > last) kernels->zero(to + (size_t)(last - left) * c * element, (size_t)(right - last) * c);
}

/* The padded input of one part (*in: in scratch, or where the part lies in the tensor), and where its pixels lie in it. Returns
 * the number of pixels. */
static size_t fill_part(const Pass *p, const Scratch *s, size_t part, const uint8_t **in) {
  const NitiGather *g = p->g;
  const Plan *plan = p->plan;
  const size_t n0 = part / plan->bands * plan->images, n1 = least(n0 + plan->images, (size_t)g->n);
  const size_t j0 = part % plan->bands * plan->rows, j1 = least(j0 + plan->rows, (size_t)g->jh);
  *in = s->in;
  if (j0 >= j1) return 0;
  const size_t element = (size_t)p->kernels->element, row_bytes = plan->row_elements * element, rows = rows_under(g, j1 - j0);
  const size_t in_row = (size_t)g->iw * (size_t)g->ic, in_image = (size_t)g->ih * in_row;
  const int64_t top = (int64_t)j0 * g->step_y + g->tap_y;
  size_t count = 0;
  if (g->tap_rows > 0 && top == 0 && rows == (size_t)g->ih && g->tap_x == 0 && plan->row_elements == in_row) {
    const int8_t *from = p->in + n0 * in_image;
    if (p->kernels->in_place && plan->run % (size_t)p->kernels->group == 0) {
      *in = (const uint8_t *)from;
    } else {
      p->kernels->convert(s->in, from, (n1 - n0) * in_image);
    }
  } else if (g->tap_rows > 0) {
    for (size_t n = n0; n < n1; ++n) {
      for (size_t r = 0; r < rows; ++r) {
        const int64_t y = top + (int64_t)r;
        const int8_t *from = y >= 0 && y < g->ih ? p->in + n * in_image + (size_t)y * in_row : NULL;
        copy_row(p->kernels, g, plan, s->in + ((n - n0) * rows + r) * row_bytes, from);
      }
    }
  }
  for (size_t n = n0; n < n1; ++n) {
    for (size_t j = j0; j < j1; ++j) {
      const size_t row = ((n - n0) * rows + (j - j0) * (size_t)g->step_y) * row_bytes;
      const size_t out = g->out_base + n * g->out_image + j * g->out_row;
      for (size_t i = 0; i < (size_t)g->jw; ++i, ++count) {
        s->in_offset[count] = row + i * (size_t)g->step_x * (size_t)g->ic * element;
        s->out_offset[count] = out + i * g->out_pixel;
      }
    }
  }
  return count;
}

/* What the tile wrote, while it is near. */
static void mask_tile(const Pass *p, const size_t *offset, size_t first, int rows, int columns) {
  for (int row = 0; row < rows; ++row) {
    const size_t at = offset[row] + first;
    niti_mask_apply(p->out + at, p->rounder->mask + at, (size_t)columns);
  }
}

static void sum_part(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const NitiConvKernels *kernels = p->kernels;
  const Plan *plan = p->plan;
  const Scratch scratch = scratch_of(p, thread);
  uint8_t *shift = p->cpu->workspace + plan->shifts + item; /* that this part used last */
  NitiRounder rounder = *p->rounder;
  rounder.shift = niti_part_shift(p->rounder, &p->max);
  if (p->rounder->again && *shift == rounder.shift) return;
  *shift = (uint8_t)rounder.shift;
  const uint8_t *in;
  const size_t split = item % p->splits, pixels = fill_part(p, &scratch, item / p->splits, &in);
  const size_t first = plan->blocks * split / p->splits, last = plan->blocks * (split + 1) / p->splits;
  uint32_t max = 0;
  niti_tiles_begin(kernels);
  for (size_t block = first; block < last; ++block) {
    const int columns = columns_of(p, block), vectors = vectors_of(p, columns);
    const size_t step = (size_t)kernels->rows[vectors];
    NitiTile tile = {.acc = scratch.acc,
                     .init = correction_of(p, block),
                     .in = in,
                     .panel = panel_of(p, block),
                     .sets = 1,
                     .runs = (size_t)p->g->tap_rows,
                     .groups = plan->groups,
                     .run_stride = plan->row_elements * (size_t)kernels->element,
                     .vectors = vectors};
    for (size_t pixel = 0; pixel < pixels; pixel += step) {
      tile.row_offset = scratch.in_offset + pixel;
      tile.rows = (int)least(step, pixels - pixel);
      kernels->tile(&tile);
      max = kernels->requantise(p->out, scratch.out_offset + pixel, block * block_columns(kernels), scratch.acc,
                                (size_t)(vectors * kernels->lanes), tile.rows, columns, &rounder, max);
      if (rounder.mask && !kernels->masks) {
        mask_tile(p, scratch.out_offset + pixel, block * block_columns(kernels), tile.rows, columns);
      }
    }
  }
  niti_tiles_end(kernels);
  niti_max_raise(&p->max, max);
}

uint32_t niti_gather_run(NitiCpu *cpu, const NitiConvKernels *kernels, const NitiGather *g, int8_t *out, const int8_t *in,
                         const int8_t *w, const NitiRounder *rounder) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  if (is_empty(g)) return 0;
  const Plan plan = make_plan(kernels, g, threads);
  Pass pass = {.cpu = cpu, .kernels = kernels, .g = g, .plan = &plan, .rounder = rounder, .out = out, .in = in, .w = w};
  pass.splits = least(plan.blocks, (threads * PARTS_PER_THREAD + plan.parts - 1) / plan.parts);
  pass.packed = g->packed ? g->packed : cpu->workspace;
  if (!rounder->again && !g->ready) niti_threads_run(cpu->threads, pack_block, &pass, plan.blocks);
  niti_threads_run(cpu->threads, sum_part, &pass, plan.parts * pass.splits);
  return pass.max;
}

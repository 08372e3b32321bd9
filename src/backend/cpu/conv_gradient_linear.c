/* The weight gradient for kernels whose multiply-adds take in long rows (NitiConvKernels.step), stride 1. The sum over pixels
 * becomes one long row: a plane of x holds all images of a chunk one after another with their zeros between, so that a tap is a
 * shift of the whole plane, and the error's panels have the same positions, 0 where no output pixel lies. The zeros right of a
 * row are those left of the next, and those below an image are those above the next. */
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "base/round.h"

enum {
  CHUNK_BYTES = 16 * 1024 * 1024, /* packed x and error: a part of the last-level cache */
  UNIT_POSITIONS = 1024,          /* about: small images are packed several at a time */
  INNER_POSITIONS = 512,          /* summed at a time: the operands of all taps of some channels stay in the first-level cache */
  PACK_POSITIONS = 16,            /* that the transposition takes at a time */
  PART_CHANNELS = 32,             /* and so many channels */
  PART_ROWS = 288,                /* (tap, channel) rows of a part at most: the taps of 3x3, a multiple of a tile's rows */
  PART_BLOCKS = 4,                /* blocks of output channels of a part at most */
  PARTS_PER_THREAD = 2,
};

typedef struct Plan {
  size_t row, image;          /* positions of a plane's row and image */
  size_t unit_images, unit;   /* images packed together, their positions */
  size_t units, plane, panel; /* of a full chunk; bytes of a plane and of a block's panel */
  size_t zeros;               /* positions after the last unit that a tap may see */
  size_t taps, m, blocks;     /* m: taps * C */
  size_t planes, panels, x_offsets, dy_offsets, row_offsets, threads; /* workspace offsets */
  size_t thread_bytes, total;
} Plan;

typedef struct Pass {
  NitiCpu *cpu;
  const NitiConvKernels *kernels;
  const NitiConv *conv;
  const Plan *plan;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  size_t first, count;     /* source images of this chunk */
  size_t units, positions; /* of this chunk; positions a multiple of a step */
  size_t part_blocks;
} Pass;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
static size_t block_columns(const NitiConvKernels *kernels) { return (size_t)(kernels->vectors * kernels->lanes); }

bool niti_gradient_linear_serves(const NitiConvKernels *kernels, const NitiConv *s) {
  return kernels->step > 0 && s->stride_h == 1 && s->stride_w == 1 && s->pad_h < s->kh && s->pad_w < s->kw &&
         (int64_t)s->oh * s->ow > 1 && (int64_t)s->oh * s->ow <= NITI_MAX_TERMS;
}

static Plan make_plan(const NitiConvKernels *kernels, const NitiConv *s, size_t threads) {
  const size_t columns = block_columns(kernels), c = (size_t)s->c, area = (size_t)s->oh * (size_t)s->ow;
  Plan p = {.row = (size_t)s->w + (size_t)s->pad_w, .taps = (size_t)s->kh * (size_t)s->kw};
  p.image = ((size_t)s->h + (size_t)s->pad_h) * p.row;
  p.unit_images = least(most(1, UNIT_POSITIONS / p.image), least((size_t)s->n, NITI_MAX_TERMS / area));
  p.unit = niti_round_up(p.unit_images * p.image, PACK_POSITIONS);
  p.zeros = (size_t)s->pad_h * p.row + (size_t)s->pad_w;
  p.m = p.taps * c;
  p.blocks = divide_up((size_t)s->k, columns);
  p.units = least(CHUNK_BYTES / ((c + p.blocks * columns) * p.unit), NITI_MAX_TERMS / (area * p.unit_images));
  p.units = least(most(1, p.units), divide_up((size_t)s->n, p.unit_images));
  p.plane = niti_line(p.units * p.unit + p.zeros);
  p.plane += p.plane / 64 % 2 == 0 ? 64 : 0; /* an odd number of lines: planes do not compete for the same sets of a cache */
  p.panel = niti_round_up(p.units * p.unit, (size_t)kernels->step) * columns;

  const size_t past = (size_t)kernels->step + ((size_t)s->kh - 1) * p.row + (size_t)s->kw; /* what the last plane's rows read */
  p.planes = 0;
  p.panels = p.planes + c * p.plane + niti_line(past);
  p.x_offsets = p.panels + niti_line(p.blocks * p.panel);
  p.dy_offsets = p.x_offsets + niti_line(2 * p.unit * sizeof(size_t));
  p.row_offsets = p.dy_offsets + niti_line(2 * p.unit * sizeof(size_t));
  p.threads = p.row_offsets + niti_line(p.m * sizeof(size_t));
  p.thread_bytes = niti_line(PART_ROWS * PART_BLOCKS * columns * sizeof(int32_t));
  p.total = p.threads + threads * p.thread_bytes;
  return p;
}

size_t niti_gradient_linear_workspace(const NitiConvKernels *kernels, const NitiConv *s, int threads) {
  return make_plan(kernels, s, (size_t)threads).total;
}

static size_t *sizes_at(const Pass *p, size_t offset) { return (size_t *)(void *)(p->cpu->workspace + offset); }
static int columns_of(const Pass *p, size_t block) {
  return (int)least(block_columns(p->kernels), (size_t)p->conv->k - block * block_columns(p->kernels));
}
static int vectors_of(const Pass *p, size_t block) { return (columns_of(p, block) + p->kernels->lanes - 1) / p->kernels->lanes; }
static size_t lanes_of(const Pass *p, size_t block) { return (size_t)(vectors_of(p, block) * p->kernels->lanes); }

static uint8_t *panel_at(const Pass *p, size_t block, size_t position) {
  return p->cpu->workspace + p->plan->panels + block * p->plan->panel + position * lanes_of(p, block);
}

/* ---- packing ---- */

/* Where the positions of a unit of so many images lie in x and in the error, SIZE_MAX for zeros. */
static void fill_offsets(const Pass *p, size_t *x, size_t *dy, size_t images) {
  const Plan *plan = p->plan;
  const NitiConv *s = p->conv;
  const size_t rows = (size_t)s->h + (size_t)s->pad_h, pad_h = (size_t)s->pad_h, pad_w = (size_t)s->pad_w;
  for (size_t i = 0; i < plan->unit; ++i) x[i] = dy[i] = SIZE_MAX;
  for (size_t n = 0, at = 0; n < images; ++n) {
    for (size_t row = 0; row < rows; ++row) {
      for (size_t column = 0; column < plan->row; ++column, ++at) {
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

/* Channels of the block of PART_CHANNELS that begins with this one. */
static size_t channels_from(const Pass *p, size_t channel) { return least(PART_CHANNELS, (size_t)p->conv->c - channel); }

/* Rows in the order of blocks of channels, then of taps, then of channels. */
static void fill_rows(const Pass *p) {
  size_t *offset = sizes_at(p, p->plan->row_offsets);
  for (size_t first = 0; first < (size_t)p->conv->c; first += PART_CHANNELS) {
    for (size_t tap = 0; tap < p->plan->taps; ++tap) {
      const size_t shift = tap / (size_t)p->conv->kw * p->plan->row + tap % (size_t)p->conv->kw;
      for (size_t c = 0; c < channels_from(p, first); ++c) *offset++ = (first + c) * p->plan->plane + shift;
    }
  }
}

static size_t channel_blocks(const Pass *p) { return divide_up((size_t)p->conv->c, PART_CHANNELS); }

/* Items: first x by unit and channels, then the error by unit and block. */
static void pack_unit(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConv *s = p->conv;
  const bool is_x = item < p->units * channel_blocks(p);
  const size_t index = is_x ? item : item - p->units * channel_blocks(p), parts = is_x ? channel_blocks(p) : plan->blocks;
  const size_t unit = index / parts, first = p->first + unit * plan->unit_images, end = (unit + 1) * plan->unit;
  const size_t table = p->first + p->count - first < plan->unit_images ? plan->unit : 0; /* that of the rest */
  (void)thread;
  if (is_x) {
    const size_t channel = index % parts * PART_CHANNELS, channels = channels_from(p, channel);
    uint8_t *planes = p->cpu->workspace + plan->planes + channel * plan->plane;
    p->kernels->transpose(planes + unit * plan->unit, plan->plane,
                          p->x + first * (size_t)s->h * (size_t)s->w * (size_t)s->c + channel,
                          sizes_at(p, plan->x_offsets) + table, plan->unit, (int)channels);
    for (size_t c = 0; unit + 1 == p->units && c < channels; ++c) p->kernels->zero(planes + c * plan->plane + end, plan->zeros);
  } else {
    const size_t block = index % parts;
    p->kernels->panel_across(panel_at(p, block, unit * plan->unit),
                             p->dy + first * (size_t)s->oh * (size_t)s->ow * (size_t)s->k + block * block_columns(p->kernels),
                             sizes_at(p, plan->dy_offsets) + table, plan->unit, columns_of(p, block), (int)lanes_of(p, block));
    if (unit + 1 == p->units) memset(panel_at(p, block, end), 0, (p->positions - end) * lanes_of(p, block));
  }
}

/* ---- sums ---- */

/* A part's rows: of one block of channels, from its row `begin` on. */
typedef struct Rows {
  size_t channel, channels, begin, count;
  const size_t *offset;
} Rows;

static size_t parts_down(const Pass *p, size_t channel) {
  return divide_up(p->plan->taps * channels_from(p, channel), PART_ROWS);
}

static size_t all_parts_down(const Pass *p) {
  size_t parts = 0;
  for (size_t channel = 0; channel < (size_t)p->conv->c; channel += PART_CHANNELS) parts += parts_down(p, channel);
  return parts;
}

static Rows rows_of(const Pass *p, size_t part) {
  Rows rows = {0};
  while (part >= parts_down(p, rows.channel)) {
    part -= parts_down(p, rows.channel);
    rows.channel += PART_CHANNELS;
  }
  rows.channels = channels_from(p, rows.channel);
  rows.begin = part * PART_ROWS;
  rows.count = least(PART_ROWS, p->plan->taps * rows.channels - rows.begin);
  rows.offset = sizes_at(p, p->plan->row_offsets) + rows.channel * p->plan->taps + rows.begin;
  return rows;
}

/* One block's sums of a part, tap by tap, unless the block has all channels. */
static void store_rows(const Pass *p, const Rows *rows, size_t block, const int32_t *acc) {
  const size_t c = (size_t)p->conv->c, first = block * block_columns(p->kernels) * p->plan->m;
  for (size_t done = 0, count; done < rows->count; done += count) {
    const size_t row = rows->begin + done, tap = row / rows->channels, channel = row % rows->channels;
    count = rows->channels == c ? rows->count : least(rows->channels - channel, rows->count - done);
    const size_t at = first + tap * c + rows->channel + channel;
    NitiGradient *g = p->gradient;
    void *gradient = g->bits == 32 ? (void *)((int32_t *)g->data + at) : (void *)((int64_t *)g->data + at);
    p->kernels->store(gradient, g->bits, p->first > 0, p->plan->m, acc + done * lanes_of(p, block), lanes_of(p, block),
                      (int)count, columns_of(p, block));
  }
}

static void sum_part(void *context, size_t thread, size_t item) {
  static const int32_t zeros[NITI_TILE_COLUMNS];
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConvKernels *kernels = p->kernels;
  const size_t across = divide_up(plan->blocks, p->part_blocks), block_size = PART_ROWS * block_columns(kernels);
  const size_t b0 = item % across * p->part_blocks, b1 = least(b0 + p->part_blocks, plan->blocks);
  const Rows rows = rows_of(p, item / across);
  int32_t *acc = (int32_t *)(void *)(p->cpu->workspace + plan->threads + thread * plan->thread_bytes);
  niti_tiles_begin(kernels);
  for (size_t at = 0; at < p->positions; at += INNER_POSITIONS) {
    const size_t positions = least(INNER_POSITIONS, p->positions - at);
    for (size_t block = b0; block < b1; ++block) {
      const size_t stride = lanes_of(p, block), step = (size_t)kernels->rows[vectors_of(p, block)];
      NitiTile tile = {.in = p->cpu->workspace + plan->planes + at,
                       .panel = panel_at(p, block, at),
                       .sets = 1,
                       .runs = 1,
                       .groups = positions / (size_t)kernels->group,
                       .vectors = vectors_of(p, block)};
      for (size_t row = 0; row < rows.count; row += step) {
        tile.acc = acc + (block - b0) * block_size + row * stride;
        tile.init = at == 0 ? zeros : tile.acc;
        tile.init_stride = at == 0 ? 0 : stride;
        tile.row_offset = rows.offset + row;
        tile.rows = (int)least(step, rows.count - row);
        kernels->tile(&tile);
      }
    }
  }
  niti_tiles_end(kernels);
  for (size_t block = b0; block < b1; ++block) store_rows(p, &rows, block, acc + (block - b0) * block_size);
}

void niti_gradient_linear(NitiCpu *cpu, const NitiConvKernels *kernels, NitiGradient *gradient, const int8_t *dy, const int8_t *x,
                          const NitiConv *s) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  const Plan plan = make_plan(kernels, s, threads);
  Pass p = {.cpu = cpu, .kernels = kernels, .conv = s, .plan = &plan, .gradient = gradient, .dy = dy, .x = x};
  size_t *x_offsets = sizes_at(&p, plan.x_offsets), *dy_offsets = sizes_at(&p, plan.dy_offsets);
  const size_t rest = (size_t)s->n % plan.unit_images, down = all_parts_down(&p);
  fill_offsets(&p, x_offsets, dy_offsets, plan.unit_images);
  if (rest > 0) fill_offsets(&p, x_offsets + plan.unit, dy_offsets + plan.unit, rest);
  fill_rows(&p);
  /* Many blocks of a part read x less often; every thread shall have several parts. */
  p.part_blocks = least(PART_BLOCKS, plan.blocks);
  while (p.part_blocks > 1 && down * divide_up(plan.blocks, p.part_blocks) < threads * PARTS_PER_THREAD) --p.part_blocks;
  for (p.first = 0; p.first < (size_t)s->n; p.first += p.count) {
    p.count = least(plan.units * plan.unit_images, (size_t)s->n - p.first);
    p.units = divide_up(p.count, plan.unit_images);
    p.positions = niti_round_up(p.units * plan.unit, (size_t)kernels->step);
    niti_threads_run(cpu->threads, pack_unit, &p, p.units * (channel_blocks(&p) + plan.blocks));
    niti_threads_run(cpu->threads, sum_part, &p, down * divide_up(plan.blocks, p.part_blocks));
  }
}
